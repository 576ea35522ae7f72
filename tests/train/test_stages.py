"""The stages of ZeRO in bf16, on two ranks: their steps, their files, and each other's files."""

import json
import sys

import pytest
import torch

from tests.cluster.gloo import free_port
from tests.conftest import ROOT, command_environment
from tests.processes import run_command
from unimo_ds.convert.weights import read_weights
from unimo_ds.train.model import build_model
from unimo_ds.train.sharding import check_layout, layout_of

pytestmark = pytest.mark.alone

LAYOUTS = {"zero0": "ZeRO 0", "zero2": "ZeRO 1 or 2", "zero3": "ZeRO 3", "fp32_sums": "ZeRO 1 or 2"}


@pytest.fixture(scope="module")
def stages(small_toml, tmp_path_factory):
    out = tmp_path_factory.mktemp("stages")
    ranks = ("torch.distributed.run", "--nproc_per_node", 2, "--master_port", free_port())
    command = [sys.executable, "-m", *ranks, "-m", "tests.cluster.stages", small_toml, out]
    done = run_command(command, env=command_environment(), cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


@pytest.mark.parametrize("stage", ["zero0", "zero2", "fp32_sums"])
def test_steps_and_master_weights_are_those_of_plain_torch(stages, small_config, stage):
    expected = torch.load(stages / "plain.pt", weights_only=True)
    found = read_weights(stages / stage, build_model(small_config), small_config.optim)
    for name, weight in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], weight), name
    assert any((weight != weight.bfloat16().float()).any() for weight in expected.values())


def test_a_layout_that_cannot_be_read_is_refused_with_both_named(stages):
    said = json.loads((stages / "said.json").read_text())
    for pair, message in said.items():
        written, read = pair.split(" by ")
        if LAYOUTS[written] == LAYOUTS[read]:
            assert not message, pair
            continue
        assert f"{stages / written} was written with {LAYOUTS[written]}, this run has" in message
        assert f"this run has {LAYOUTS[read]}: set train.deepspeed=ds_configs/zero" in message
    assert {name: layout_of(stages / name) for name in LAYOUTS} == LAYOUTS
    with pytest.raises(ValueError, match=r"with ZeRO 3, this run has plain torch: set train\.deep"):
        check_layout(stages / "zero3", "plain torch")
