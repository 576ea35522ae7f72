"""The similarity matrix at its door: what is refused, and which backend is let in."""

import pytest
import torch

import unimo_kernels.similarity
from unimo_kernels import similarity_chunked
from unimo_kernels.similarity import Backend, similarity_logsumexp


def test_what_does_not_fit_is_refused():
    a, b = torch.zeros(3, 8), torch.zeros(4, 8)
    groups = torch.arange(3), torch.arange(4)
    with pytest.raises(ValueError, match=r"\[3, 8\] and \[4, 7\]"):
        similarity_logsumexp(a, b[:, :7], *groups, scale=1.0)
    with pytest.raises(ValueError, match=r"one floating dtype, not torch.float32 and torch.bfl"):
        similarity_logsumexp(a, b.bfloat16(), *groups, scale=1.0)
    with pytest.raises(ValueError, match=r"one floating dtype, not torch.int64 and torch.int64"):
        similarity_logsumexp(a.long(), b.long(), *groups, scale=1.0)
    with pytest.raises(ValueError, match=r"group_a \[3\] and group_b \[4\], not \[3\] and \[3\]"):
        similarity_logsumexp(a, b, groups[0], groups[0], scale=1.0)
    with pytest.raises(ValueError, match=r"one scale, not \[2\]"):
        similarity_logsumexp(a, b, *groups, scale=torch.ones(2))
    with pytest.raises(ValueError, match=r"log_weight_b \[4\], one per row of b, not \[3\]"):
        similarity_logsumexp(a, b, *groups, scale=1.0, log_weight_b=torch.zeros(3))
    with pytest.raises(ValueError, match="known are auto, reference, chunked, triton"):
        similarity_logsumexp(a, b, *groups, scale=1.0, backend="sdpa")


def test_triton_says_what_it_lacks(monkeypatch):
    x, group = torch.zeros(3, 8), torch.arange(3)
    monkeypatch.setenv("UNIMO_SIMILARITY", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"CUDA tensors, these are on cpu: take backend chunked"):
        similarity_logsumexp(x, x, group, group, scale=1.0)
    monkeypatch.setattr(unimo_kernels.similarity, "has_triton", lambda: False)
    with pytest.raises(ValueError, match="pip install triton"):
        similarity_logsumexp(x, x, group, group, scale=1.0)
    assert (
        similarity_logsumexp(x, x, group, group, scale=1.0, backend="chunked").all.isfinite().all()
    )


def test_a_cpu_takes_tiles_without_being_asked(monkeypatch):
    monkeypatch.delenv("UNIMO_SIMILARITY", raising=False)
    called = []
    counting = Backend(
        lambda *given: called.append(given) or similarity_chunked.statistics(*given),
        similarity_chunked.gradients,
    )
    monkeypatch.setattr(unimo_kernels.similarity, "similarity_chunked", counting)
    x, group = torch.zeros(3, 8), torch.arange(3)
    similarity_logsumexp(x, x, group, group, scale=1.0)
    assert len(called) == 1
