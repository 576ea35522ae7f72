"""The similarity matrix of all ranks: each holds some rows of both sides, none the whole matrix.

Rank r computes the strip S_r of its own a against the b of every rank. The log-sum-exps of its rows
are complete with it; those of a column are the sum over the strips of all ranks. One strip per rank
serves both directions: 8 * B^2 * D floating point operations over all ranks and both passes,
where a strip per direction takes 12.

* ``gather``: every rank gets all b at once, two reductions complete the columns, and the gradients
  to b are reduced to their owners.
* ``ring``: b goes from rank to rank. A rank holds three blocks of it at most, its own, the present
  one and the one that arrives meanwhile; what is summed over the ranks travels with its block.

Legend: M own rows of a · n rows of b that a rank holds · N rows of b of all ranks · D width
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from unimo_kernels.similarity import (
    Backend,
    check_operands,
    choose,
    differentiable,
    load_backend,
    similarity_logsumexp,
)
from unimo_kernels.similarity_types import Gradients, Lse, Operands, Statistics

EXCHANGES = ("gather", "ring")


def similarity_logsumexp_across_ranks(
    a: Tensor,
    b: Tensor,
    group_a: Tensor,
    group_b: Tensor,
    *,
    scale: Tensor | float,
    log_weight_a: Tensor | None = None,
    log_weight_b: Tensor | None = None,
    exchange: str = "gather",
    process_group: "dist.ProcessGroup | None" = None,
    backend: str = "auto",
) -> Statistics:
    """Log-sum-exps of this rank's rows over the b of all ranks, of its columns over all a.

    Every rank of the group calls it with its own part, and every rank runs its backward: both
    exchange data. Without torch.distributed, or in a group of one, it is ``similarity_logsumexp``
    with both directions.

    With L the sum over the ranks of the losses that each computes from its own result, a, b and
    the log-weights get dL / d(own tensor). ``scale`` is one number on all ranks and gets the share
    of this rank's strip: summed over the ranks, that is dL / d scale.

    Args:
        a: float [M, D]. b: [n, D] of the same dtype. The numbers of rows may differ from rank to
            rank and be zero; D and the dtype are the same everywhere.
        group_a: int [M]. group_b: int [n]; compared across ranks.
        scale: number or one-element tensor, the same on all ranks.
        log_weight_a: float [M]. log_weight_b: float [n]. As in ``similarity_logsumexp``.
        exchange: ``gather`` or ``ring``; the same numbers up to rounding.
        process_group: the ranks that take part; None = all.
        backend: as in ``similarity_logsumexp``, the same on all ranks.

    Returns:
        Statistics: rows [M] and columns [n], an Lse each.

    Raises:
        ValueError: as in ``similarity_logsumexp``; an unknown exchange; another D or dtype on
            another rank.
    """
    if exchange not in EXCHANGES:
        raise ValueError(
            f"similarity: unknown exchange {exchange!r}, known are {', '.join(EXCHANGES)}"
        )
    initialised = dist.is_available() and dist.is_initialized()
    if not initialised or dist.get_world_size(process_group) == 1:
        local: Any = similarity_logsumexp(
            a,
            b,
            group_a,
            group_b,
            scale=scale,
            log_weight_a=log_weight_a,
            log_weight_b=log_weight_b,
            both_directions=True,
            backend=backend,
        )
        return local
    operands = check_operands(a, b, group_a, group_b, scale, log_weight_a, log_weight_b)
    form = (_Gather if exchange == "gather" else _Ring)(
        load_backend(choose(operands, backend), operands), _meet(b, process_group)
    )
    return differentiable(Backend(form.statistics, form.gradients), operands, both=True)


class _Team(NamedTuple):
    """The ranks and how many rows of b each holds."""

    group: "dist.ProcessGroup | None"
    rank: int
    sizes: list[int]

    @property
    def own(self) -> slice:
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    def all_rows(self, x: Tensor) -> Tensor:
        """``x`` [n, ...] of all ranks, one behind the other: [N, ...]."""
        longest = max(self.sizes)
        if longest == 0:
            return x
        padded = x.new_zeros(longest, *x.shape[1:])
        padded[: len(x)] = x
        parts = list(x.new_empty(len(self.sizes), *padded.shape).unbind())
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)])


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _meet(b: Tensor, group: "dist.ProcessGroup | None") -> _Team:
    own = torch.tensor([*b.shape, _DTYPES.index(b.dtype)], device=b.device)
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, own, group=group)
    sizes, *same = zip(*(one.tolist() for one in everyone), strict=True)
    widths, dtypes = same
    if len(set(widths)) > 1 or len(set(dtypes)) > 1:
        raise ValueError(
            "similarity: the ranks hold embeddings of widths "
            f"{list(widths)} and dtypes {[str(_DTYPES[i]) for i in dtypes]}, expected one of each"
        )
    return _Team(group, dist.get_rank(group), list(sizes))


class _Gather:
    """All b on every rank. The gathered b stays for the backward."""

    def __init__(self, local: Backend, team: _Team) -> None:
        self.local, self.team = local, team

    def statistics(self, operands: Operands, both: bool) -> Statistics:
        team = self.team
        self.strip = operands._replace(
            b=team.all_rows(operands.b),
            group_b=team.all_rows(operands.group_b),
            log_weight_b=team.all_rows(operands.log_weight_b),
        )
        rows, columns = self.local.statistics(self.strip, both)
        assert columns is not None
        self.columns = Lse(*self._complete(torch.stack(columns)))
        return Statistics(rows, Lse(*(lse[team.own].clone() for lse in self.columns)))

    def _complete(self, partial_2N: Tensor) -> Tensor:
        """log Σ exp over the ranks: their maximum, then the sum relative to it."""
        if partial_2N.numel() == 0:
            return partial_2N
        highest_2N = partial_2N.clone()
        dist.all_reduce(highest_2N, dist.ReduceOp.MAX, group=self.team.group)
        highest_2N.masked_fill_(highest_2N == -torch.inf, 0)
        total_2N = (partial_2N - highest_2N).exp_()
        dist.all_reduce(total_2N, group=self.team.group)
        return total_2N.log_().add_(highest_2N)

    def gradients(
        self, operands: Operands, statistics: Statistics, upstream: Statistics, weights: bool
    ) -> Gradients:
        team = self.team
        assert upstream.columns is not None
        upstream_N2 = team.all_rows(torch.stack(upstream.columns, dim=1))
        grads = self.local.gradients(
            self.strip,
            Statistics(statistics.rows, self.columns),
            Statistics(upstream.rows, Lse(*upstream_N2.T.contiguous())),
            weights,
        )
        homeward = [
            dist.reduce(of_owner, group_dst=owner, group=team.group, async_op=True)
            for part in (grads.b, grads.log_weight_b)[: 1 + weights]
            for owner, of_owner in enumerate(part.split(team.sizes))
            if len(of_owner)
        ]
        for work in homeward:
            work.wait()
        own_b, own_weight = grads.b[team.own], grads.log_weight_b[team.own]
        return grads._replace(b=own_b.clone(), log_weight_b=own_weight.clone())


class _Transfer(NamedTuple):
    """What is on its way to the next rank, and from the one before."""

    works: "list[dist.Work]"
    sent: tuple[Tensor, ...]  # held until it has left
    received: tuple[Tensor, ...]

    def arrived(self) -> tuple[Tensor, ...]:
        for work in self.works:
            work.wait()
        return self.received


class _Ring:
    """One block of b after the other: at step k a rank has that of the k-th rank before it."""

    def __init__(self, local: Backend, team: _Team) -> None:
        self.local, self.team = local, team

    def statistics(self, operands: Operands, both: bool) -> Statistics:
        def visit(b_nD: Tensor, group_n: Tensor, weight_n: Tensor) -> tuple[Lse, Lse]:
            block = operands._replace(b=b_nD, group_b=group_n, log_weight_b=weight_n)
            rows, columns = self.local.statistics(block, both)
            assert columns is not None
            return rows, columns

        block = operands.b, operands.group_b, operands.log_weight_b
        rows, columns = self._around(block, visit, torch.logaddexp)
        return Statistics(Lse(*rows), Lse(*columns))

    def gradients(
        self, operands: Operands, statistics: Statistics, upstream: Statistics, weights: bool
    ) -> Gradients:
        def visit(
            b_nD: Tensor, group_n: Tensor, weight_n: Tensor, *columns: Tensor
        ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            grads = self.local.gradients(
                operands._replace(b=b_nD, group_b=group_n, log_weight_b=weight_n),
                Statistics(statistics.rows, Lse(*columns[:2])),
                Statistics(upstream.rows, Lse(*columns[2:])),
                weights,
            )
            return (grads.a, grads.scale, grads.log_weight_a), (grads.b, grads.log_weight_b)

        assert statistics.columns is not None and upstream.columns is not None
        block = operands.b, operands.group_b, operands.log_weight_b
        a_side, b_side = self._around(
            (*block, *statistics.columns, *upstream.columns), visit, Tensor.add_
        )
        (a, scale, weight_a), (b, weight_b) = a_side, b_side
        return Gradients(a, b, scale, weight_a, weight_b)

    def _around(
        self,
        block: tuple[Tensor, ...],
        visit: Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]],
        merge: Callable[[Tensor, Tensor], Tensor],
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Every block visits every rank; what belongs to a block goes with it and comes home.

        Args:
            block: this rank's, tensors of n rows.
            visit: of a block; what is of this rank's rows of a, and what is of the block's, both
                to be merged over the visits.
            merge: may overwrite its first argument.
        """
        sizes, rank = self.team.sizes, self.team.rank
        stays: tuple[Tensor, ...] = ()
        travels = _Transfer([], (), ())
        for step in range(len(sizes)):
            last = step == len(sizes) - 1
            # What arrives belongs to the block that the rank before has at this step.
            rows = sizes[(rank - step - 1) % len(sizes)]
            coming = _Transfer([], (), ()) if last else self._post(block, rows)
            of_rows, of_block = visit(*block)
            if step:
                of_rows = tuple(map(merge, stays, of_rows))
                of_block = tuple(map(merge, travels.arrived(), of_block))
            stays, travels = of_rows, self._post(of_block, rows)
            block = coming.arrived()
        return stays, travels.arrived()

    def _post(self, tensors: tuple[Tensor, ...], rows: int) -> _Transfer:
        """Starts sending ``tensors`` and receiving the like with another number of ``rows``."""
        group, rank, sizes = self.team
        sent = tuple(x.contiguous() for x in tensors)
        received = tuple(x.new_empty(rows, *x.shape[1:]) for x in sent)
        to, source = (rank + 1) % len(sizes), (rank - 1) % len(sizes)
        operations = [
            dist.P2POp(operation, x, group=group, group_peer=peer)
            for operation, side, peer in ((dist.isend, sent, to), (dist.irecv, received, source))
            for x in side
            if x.numel()
        ]
        return _Transfer(dist.batch_isend_irecv(operations) if operations else [], sent, received)
