"""The similarity matrix at its door: what is refused, and which backend is let in."""

from types import SimpleNamespace

import pytest
import torch

import unimo_kernels.similarity
from unimo_kernels import similarity_chunked
from unimo_kernels.similarity import Backend, choose, load_backend, similarity_logsumexp
from unimo_kernels.similarity_types import Operands


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
    for bad in (groups[1].double(), groups[1].bool(), groups[1].to(torch.uint64)):
        with pytest.raises(
            ValueError, match=r"group_b takes int8, .*, int64, not torch\.\w+: its "
        ):
            similarity_logsumexp(a, b, groups[0], bad, scale=1.0)
    with pytest.raises(ValueError, match=r"group_a takes .* not torch.float32: .* \.long\(\)"):
        similarity_logsumexp(a, b, groups[0].float(), groups[1], scale=1.0)
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


@pytest.mark.parametrize(
    "capability, dtype, chosen",
    [
        ((7, 5), torch.float16, "chunked"),
        ((7, 0), torch.float32, "chunked"),
        ((8, 0), torch.float16, "triton"),
        ((9, 0), torch.float64, "chunked"),
    ],
    ids=str,
)
def test_a_gpu_takes_triton_if_it_is_not_too_old(capability, dtype, chosen, monkeypatch):
    """What runs is chosen from what the operands say of their device; no GPU is asked for here."""
    monkeypatch.delenv("UNIMO_SIMILARITY", raising=False)
    monkeypatch.setattr(unimo_kernels.similarity, "has_triton", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    on_gpu = SimpleNamespace(is_cuda=True, device=torch.device("cuda"), dtype=dtype)
    operands = Operands(on_gpu, *[None] * 6)
    assert choose(operands, "auto") == chosen
    if capability < (8, 0):
        with pytest.raises(ValueError, match=r"8.0, cuda has 7.\d: use backend chunked"):
            load_backend("triton", operands)


@pytest.mark.parametrize("backend", ["chunked", "triton"])
def test_a_second_derivative_is_refused_and_the_reference_has_one(backend, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    x, group = torch.eye(3, 8).requires_grad_(), torch.arange(3)

    def penalty(backend: str) -> torch.Tensor:
        out = similarity_logsumexp(x, x.detach(), group, group, scale=2.0, backend=backend)
        (grad,) = torch.autograd.grad(out.all.sum(), x, create_graph=True)
        return grad.square().sum()

    assert torch.autograd.grad(penalty("reference"), x)[0].any()
    with pytest.raises(
        RuntimeError, match="similarity_logsumexp has no second derivative, and its"
    ):
        penalty(backend)


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
