"""Memory is handed out again when nobody holds it, and not before."""

import torch

from unimo_ds.data.buffers import Buffers


def test_a_view_keeps_its_memory_and_the_last_one_gives_it_back():
    buffers = Buffers(pinned=False)
    first = buffers.empty(8, 4).fill_(1)
    address, view = first.data_ptr(), first[2:3]
    del first
    other = buffers.empty(8, 4).fill_(2)
    assert other.data_ptr() != address and torch.equal(view, torch.ones(1, 4).half())
    del view
    assert buffers.empty(9, 4).data_ptr() == address


def test_memory_too_small_is_replaced():
    buffers = Buffers(pinned=False)
    del (small := [buffers.empty(1, 4)])[:]
    large = buffers.empty(100, 4).fill_(3)
    assert large.shape == (100, 4) and large.dtype == torch.float16 and (large == 3).all()
    assert not small and buffers.empty(0, 4).shape == (0, 4)
