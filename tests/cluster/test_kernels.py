"""Training through our own kernels, in Triton's interpreter: the losses of the other backends."""

import pytest
import torch

from tests.cluster.launch import curve, train

pytestmark = pytest.mark.alone

SMALL = (
    "train.steps=3",
    "train.eval_every=100",
    "optim.warmup_steps=1",
    "batch.samples=7",
    "batch.rows=2",
    "cmcl.joint_positives=0",
    "cmcl.other_negatives=0",
    "model.num_hidden_layers=1",
    "model.num_attention_heads=1",  # a head is then 32 wide, which the kernels take
)
LOSSES = ("loss", "loss/mlm", "loss/seq2seq", "loss/mrfr", "loss/mrc", "loss/cmcl", "grad_norm")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter is for machines without GPU")
def test_zero3_through_triton_has_the_losses_of_sdpa(small_toml, tmp_path, monkeypatch):
    curves = {}
    for attention, similarity in (("sdpa", "chunked"), ("triton", "triton")):
        monkeypatch.setenv("UNIMO_ATTENTION", attention)
        monkeypatch.setenv("UNIMO_SIMILARITY", similarity)
        printed = train("deepspeed", 2, small_toml, tmp_path / attention, *SMALL)
        assert f"attention runs on backend {attention} (UNIMO_ATTENTION)" in printed
        assert f"similarity runs on backend {similarity} (UNIMO_SIMILARITY)" in printed
        curves[attention] = curve(tmp_path / attention, LOSSES)
    assert len(curves["sdpa"]) == 3
    assert all(any(step[i] for step in curves["sdpa"]) for i in range(len(LOSSES)))
    for ours, theirs in zip(curves["triton"], curves["sdpa"], strict=True):
        for name, x, y in zip(LOSSES, ours, theirs, strict=True):
            # An objective without any word in a step has no loss, whichever backend ran.
            assert x is y is None or x == pytest.approx(y, rel=1e-4), name
