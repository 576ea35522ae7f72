"""Shared memory between a worker and the training: used again when nobody holds it, not before."""

import gc

import torch

from tests.data.test_loader import assert_same
from unimo_ds.batch import Batch
from unimo_ds.data.handover import Receiver, Sender
from unimo_ds.data.loader import Loader


def sent(sender: Sender, size: int, value: int) -> Batch:
    """A batch whose fields are of ``size`` and hold ``value``."""
    dtypes = {"features": torch.float16, "region_masked": torch.bool, "kind": torch.int8}
    fields = {
        name: torch.full((size,), value, dtype=dtypes.get(name, torch.int64))
        for name in Batch._fields
    }
    fields["features"] = sender.empty(size, 4).fill_(value)
    return Batch(**fields)


def test_what_arrives_is_what_was_sent(small_config):
    sender, receiver = Sender(0), Receiver()
    loader, plain = Loader(small_config, buffers=sender), Loader(small_config)
    for step in range(3):
        for ours, theirs in zip(loader.step(step), plain.step(step), strict=True):
            assert_same(receiver.batch(sender.parcel(ours.batch)), theirs.batch)


def test_a_batch_that_is_held_keeps_its_memory_and_a_view_of_it_too():
    sender, receiver = Sender(0), Receiver()
    first = receiver.batch(sender.parcel(sent(sender, 8, 1)))
    view, pointer = first.word_ids[2:3], first.features.data_ptr()
    second = receiver.batch(sender.parcel(sent(sender, 8, 2)))
    assert second.features.data_ptr() != pointer and (first.features == 1).all()
    del first, second
    gc.collect()
    third = receiver.batch(sender.parcel(sent(sender, 8, 3)))
    assert third.features.data_ptr() == pointer  # free again; its other block is not
    assert view.item() == 1 and (third.word_ids == 3).all()


def test_no_more_memory_is_taken_than_batches_are_held_at_once():
    sender, receivers = Sender(0), Receiver()
    addresses = set()
    for value in range(20):
        size = 100 + value % 3 * 8  # within the room to spare
        batch = receivers.batch(sender.parcel(sent(sender, size, value)))
        assert (batch.features == value).all() and (batch.labels == value).all()
        addresses.add(batch.features.data_ptr())
    assert len(addresses) == 2  # the last batch is held while the next one is built


def test_larger_batches_take_the_place_of_smaller_ones():
    sender, receiver = Sender(3), Receiver()
    for size in (1, 100, 10_000):
        parcel = sender.parcel(sent(sender, size, size % 100))
        batch = receiver.batch(parcel)
        assert (batch.features == size % 100).all() and batch.features.shape == (size, 4)
        assert (parcel.gone == []) == (size == 1)
        del batch, parcel
    assert receiver.batch(sender.parcel(sent(sender, 0, 0))).features.shape == (0, 4)
