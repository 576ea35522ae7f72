"""The batches of a step on a rank, built ahead by threads; they depend on (seed, step) alone."""

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from unimo_ds.batch import Batch, Kind
from unimo_ds.config import RunConfig
from unimo_ds.data.collate import RegionSizes, collate, merge
from unimo_ds.data.mixture import Draw, Mixture
from unimo_ds.data.packing import pack
from unimo_ds.data.samples import Sample, Samples
from unimo_ds.data.shards import PairCorpus, open_collection
from unimo_ds.distributed import uses_gpu

AHEAD = 2
"""Steps that each worker thread builds ahead."""


class MicroStep(NamedTuple):
    """What a rank computes between two synchronisations."""

    batch: Batch
    names: list[str]  # of its samples, as corpus:id


class Loader:
    """Builds the micro-steps of any step for one rank.

    Args:
        config: of the run; ``batch.rows`` must be a multiple of ``world_size``.
        rank, world_size: which share of every row list is built here.
        heldout: serve ``data.heldout_pairs`` instead of what is trained on.

    Raises:
        ValueError: corpora that do not go with the configuration, or a world that does not divide
            the rows.
    """

    def __init__(
        self, config: RunConfig, rank: int = 0, world_size: int = 1, *, heldout: bool = False
    ) -> None:
        if config.batch.rows % world_size:
            raise ValueError(
                f"batch.rows {config.batch.rows} is not a multiple of the {world_size} ranks: "
                f"set it to {-(-config.batch.rows // world_size) * world_size}, "
                "or start another number of ranks"
            )
        if heldout:  # one caption per image, so that candidates are as many texts as images
            config = dataclasses.replace(config, cmcl=dataclasses.replace(config.cmcl, captions=1))
        self.config, self.rank, self.world_size = config, rank, world_size
        folders = config.data.heldout_pairs if heldout else config.data.pairs
        self.samples = Samples(config, open_collection(folders, PairCorpus))
        weights = config.data.text_weight, config.data.image_weight, config.data.pair_weight
        self.mixture = Mixture(self.samples.sizes, weights, config.seed)
        images = [*self.samples.images.corpora, *(c.images for c in self.samples.pairs.corpora)]
        self.sizes = RegionSizes(
            config.model.image_feature_size, images[0].source.kept_classes if images else 1
        )

    def step(self, step: int) -> list[MicroStep]:
        """This rank's micro-steps of optimizer step ``step``; every rank has as many."""
        return self._build(self.mixture.step(step, self.config.batch.samples))

    def heldout(self) -> Iterator[list[MicroStep]]:
        """The held-out pairs, at most ``train.heldout_candidates``, a step's worth at a time."""
        count = min(len(self.samples.pairs), self.config.train.heldout_candidates)
        draws = [Draw(Kind.PAIR, index, 0) for index in range(count)]
        for start in range(0, count, self.config.batch.samples):
            yield self._build(draws[start : start + self.config.batch.samples])

    def steps(self, start: int, stop: int) -> Iterator[list[MicroStep]]:
        """Steps ``start`` to ``stop``, built ahead by ``data.workers`` threads (0: on demand)."""
        workers = self.config.data.workers
        if not workers:
            yield from map(self.step, range(start, stop))
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="batch") as pool:
            waiting: deque[Future[list[MicroStep]]] = deque()
            try:
                for step in range(start, stop):
                    waiting.append(pool.submit(self.step, step))
                    if len(waiting) > AHEAD * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _build(self, draws: Sequence[Draw]) -> list[MicroStep]:
        batch = self.config.batch
        samples = [self.samples.sample(draw) for draw in draws]
        rows = pack([sample.length for sample in samples], batch.rows, batch.tokens_per_row)
        share = batch.rows // self.world_size
        first = self.rank * share
        micro_steps = []
        for start in range(0, len(rows), batch.rows):
            mine = rows[start + first : start + first + share]
            micro_steps.append(self._micro_step([[samples[i] for i in row] for row in mine]))
        return micro_steps

    def _micro_step(self, rows: list[list[Sample]]) -> MicroStep:
        batches = [
            collate(
                [segment for sample in row for segment in sample.segments],
                self.sizes,
                self.config.corruption,
                self.config.batch.round_to,
            )
            for row in rows
        ]
        batch = merge(batches)
        names = [sample.name for row in rows for sample in row]
        return MicroStep(batch.pin_memory() if uses_gpu() else batch, names)
