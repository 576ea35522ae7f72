"""Every collective of a training with tensors takes them from the device that the ranks compute on.

NCCL refuses others; here two ranks of gloo train on a device that only says it is not the CPU.
"""

import dataclasses
from contextlib import nullcontext
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves, tree_map

from tests.cluster.gloo import run_ranks
from tests.cluster.other_device import DEVICE, OtherDevice, on_host
from unimo_ds.train import group
from unimo_ds.train.engine import PlainEngine
from unimo_ds.train.loop import train
from unimo_ds.train.model import build_model
from unimo_ds.train.optim import build_optimizer

pytestmark = pytest.mark.alone

TENSORS = (
    "all_reduce broadcast reduce all_gather gather scatter all_to_all reduce_scatter isend irecv "
    "send recv all_gather_into_tensor reduce_scatter_tensor all_to_all_single"
)
OBJECTS = "all_gather_object broadcast_object_list gather_object scatter_object_list"
"""torch chooses their device: the CPU, where the group knows one."""


class OtherEngine(PlainEngine):
    """Plain torch on the other device. Each rank trains for itself: nothing but what the loop, the
    log, the evaluation and the checkpoints exchange goes through the group."""

    def __init__(self, config):
        super().__init__(build_model(config), config)
        self.device = DEVICE
        self.model = self.model.to(DEVICE)
        self.optimizer = build_optimizer(self.model, config.optim)

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: on_host(x.detach()) for name, x in self.model.state_dict().items()}
        torch.save(state, folder / f"rank_{dist.get_rank()}.pt")

    def load(self, folder):
        state = torch.load(folder / f"rank_{dist.get_rank()}.pt", weights_only=True)
        self.model.load_state_dict({name: x.to(DEVICE) for name, x in state.items()})


class Recorder:
    """Stands before each collective of torch.distributed and notes where its tensors are."""

    def __init__(self, patch):
        self.seen = []
        for name in f"{TENSORS} {OBJECTS}".split():
            patch.setattr(dist, name, self._recorded(name, getattr(dist, name)))

    def _recorded(self, name, collective):
        def call(*args, **kwargs):
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            places = {x.device.type for x in tensors}
            self.seen.append((name, *sorted(places)))
            if name in TENSORS.split():  # what is written to the host's tensor is in ours
                args, kwargs = tree_map(on_host, (args, kwargs))
            return collective(*args, **kwargs)

        return call


def train_twice(rank, world_size, results, config):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, OtherDevice():
        recorder = Recorder(patch)
        # Times products that take a GPU milliseconds and the CPU behind this device minutes.
        patch.setattr("unimo_ds.train.loop.peak_flops", lambda device, dtype: 1e9)
        # Autocast knows its devices by name.
        patch.setattr(torch, "is_autocast_enabled", lambda device: False)
        patch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
        for stop in (1, 2):  # the second time it resumes
            stopping = dataclasses.replace(config.train, stop_after=stop)
            resumed = dataclasses.replace(config, train=stopping)
            train(OtherEngine(resumed), resumed)
    results.put((rank, recorder.seen))


def test_no_collective_takes_a_tensor_from_the_host(small_config, tmp_path):
    every_step = dataclasses.replace(
        small_config.train, steps=2, eval_every=1, save_every=1, deepspeed="", attention="reference"
    )
    warm = dataclasses.replace(small_config.optim, warmup_steps=1)
    config = dataclasses.replace(
        small_config, folder=str(tmp_path), name="run", train=every_step, optim=warm
    )
    config.run_folder.mkdir()
    for _, seen in run_ranks(partial(train_twice, config=config), 2):
        with_tensors = {call for call in seen if call[0] in TENSORS.split()}
        strays = {call for call in with_tensors if call[1:] != (DEVICE.type,)}
        assert not strays
        names = {call[0] for call in seen}
        assert {"all_reduce", "all_gather", "all_gather_object", "broadcast_object_list"} <= names


def test_a_group_on_gpus_takes_what_is_on_the_host_too(monkeypatch):
    opened = {}
    monkeypatch.setattr(group, "uses_gpu", lambda: True)
    monkeypatch.setattr(group._Met, "store", dist.HashStore())
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **rest: opened.update(rest, backend=backend)
    )
    monkeypatch.setenv("RANK", "0")
    group.open_group(timedelta(minutes=7))
    assert opened["backend"] == "cpu:gloo,cuda:nccl"
    assert opened["timeout"] == timedelta(minutes=7)
