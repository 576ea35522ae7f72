"""The batches of a step on a rank, built ahead by workers; they depend on (seed, step) alone.

One worker is a thread. More are processes: building is mostly Python, which runs in one thread at a
time.
"""

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from unimo_ds.batch import Batch, Kind
from unimo_ds.config import ContrastConfig, RunConfig
from unimo_ds.data.buffers import Buffers
from unimo_ds.data.collate import RegionSizes, collate
from unimo_ds.data.footprint import batch_bytes
from unimo_ds.data.handover import Parcel, Receiver, Sender, handed_over_bytes
from unimo_ds.data.mixture import Draw, Mixture
from unimo_ds.data.packing import pack
from unimo_ds.data.samples import Samples
from unimo_ds.data.schema import REWRITES
from unimo_ds.data.segments import Sample, Segment
from unimo_ds.data.shards import Collection, PairCorpus, open_collection
from unimo_ds.distributed import uses_gpu
from unimo_ds.storage import StorageError

AHEAD = 2
"""Steps that each worker builds ahead."""


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
        buffers: where features are built; None: in page-locked memory where there is a GPU.

    Raises:
        ValueError: corpora that do not go with the configuration, or a world that does not divide
            the rows.
    """

    def __init__(
        self,
        config: RunConfig,
        rank: int = 0,
        world_size: int = 1,
        *,
        heldout: bool = False,
        buffers: Buffers | None = None,
    ) -> None:
        if config.batch.rows % world_size:
            raise ValueError(
                f"batch.rows {config.batch.rows} is not a multiple of the {world_size} ranks: "
                f"set it to {-(-config.batch.rows // world_size) * world_size}, "
                "or start another number of ranks"
            )
        folders = config.data.heldout_pairs if heldout else config.data.pairs
        pairs = open_collection(folders, PairCorpus, config.data.cache)
        if heldout:
            config = dataclasses.replace(config, cmcl=_heldout_contrast(config.cmcl, pairs))
        self.config, self.rank, self.world_size = config, rank, world_size
        self.samples = Samples(config, pairs)
        self.buffers = buffers or Buffers(pinned=uses_gpu())
        weights = config.data.text_weight, config.data.image_weight, config.data.pair_weight
        self.mixture = Mixture(self.samples.sizes, weights, config.seed)
        images = [*self.samples.images.corpora, *(c.images for c in self.samples.pairs.corpora)]
        self.sizes = RegionSizes(
            config.model.image_feature_size, images[0].source.kept_classes if images else 1
        )

    def step(self, step: int) -> list[MicroStep]:
        """This rank's micro-steps of optimizer step ``step``; every rank has as many."""
        return self._build(self.mixture.step(step, self.config.batch.samples), step)

    def heldout(self) -> Iterator[list[MicroStep]]:
        """The held-out pairs, at most ``train.heldout_candidates``, a step's worth at a time."""
        count = min(len(self.samples.pairs), self.config.train.heldout_candidates)
        draws = [Draw(Kind.PAIR, index, 0, index) for index in range(count)]
        for start in range(0, count, self.config.batch.samples):
            draws_of_step = draws[start : start + self.config.batch.samples]
            yield self._build(draws_of_step, self.config.cmcl.hardness_steps)

    def steps(self, steps: Sequence[int]) -> Iterator[list[MicroStep]]:
        """``steps``, in that order, built ahead by ``data.workers`` (0: on demand).

        Raises:
            ValueError: a corpus that is damaged, or no memory for what processes hand over.
        """
        workers = self.config.data.workers
        if not workers:
            return map(self.step, steps)
        if workers == 1:
            return self._by_thread(steps)
        return self._by_processes(steps, workers)

    def _by_thread(self, steps: Sequence[int]) -> Iterator[list[MicroStep]]:
        with _thread() as pool:
            waiting: deque[Future[list[MicroStep]]] = deque()
            try:
                for step in steps:
                    waiting.append(pool.submit(self.step, step))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _by_processes(self, steps: Sequence[int], workers: int) -> Iterator[list[MicroStep]]:
        sent = DataLoader(
            _Steps(self.config, self.rank, self.world_size),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            prefetch_factor=AHEAD,
            collate_fn=_as_it_is,
            multiprocessing_context="spawn",  # a fork would copy the state of CUDA and of threads
        )
        receiver, pinned = Receiver(), self.buffers.pinned

        def taken_in(parcel: Parcel) -> Batch:
            batch = receiver.batch(parcel)
            return batch.pin_memory() if pinned else batch

        def received() -> Iterator[list[MicroStep]]:
            for step in sent:
                if isinstance(step, ValueError):
                    raise step
                yield [MicroStep(taken_in(parcel), names) for parcel, names in step]

        # A thread takes the next step in, and to page-locked memory, while this one is trained on.
        arriving = received()
        with _thread() as pool:
            waiting = pool.submit(next, arriving, None)
            while step := waiting.result():
                waiting = pool.submit(next, arriving, None)
                yield step

    def bytes_ahead(self, steps: Sequence[int]) -> int:
        """Memory in which processes hand over ``steps`` to this rank, if all are like the first; 0
        without processes.

        A worker comes to hold the steps that it has built ahead and one that is trained on.
        """
        workers = self.config.data.workers
        if workers < 2 or not steps:
            return 0
        draws = self.mixture.step(steps[0], self.config.batch.samples)
        round_to = self.config.batch.round_to
        of_step = sum(
            handed_over_bytes(batch_bytes(_segments(rows), self.sizes, round_to))
            for rows in self._plan(draws, steps[0])
        )
        return min(workers * (AHEAD + 1), len(steps)) * of_step

    def _build(self, draws: Sequence[Draw], step: int) -> list[MicroStep]:
        return [self._micro_step(rows) for rows in self._plan(draws, step)]

    def _plan(self, draws: Sequence[Draw], step: int) -> Iterator[list[list[Sample]]]:
        """This rank's rows of each micro-step."""
        batch = self.config.batch
        samples = [self.samples.sample(draw, step) for draw in draws]
        rows = pack([sample.length for sample in samples], batch.rows, batch.tokens_per_row)
        share = batch.rows // self.world_size
        first = self.rank * share
        for start in range(0, len(rows), batch.rows):
            mine = rows[start + first : start + first + share]
            yield [[samples[i] for i in row] for row in mine]

    def _micro_step(self, rows: list[list[Sample]]) -> MicroStep:
        packed = collate(
            _segments(rows),
            self.sizes,
            self.config.corruption,
            self.config.batch.round_to,
            self.buffers,
        )
        return MicroStep(packed, [sample.name for row in rows for sample in row])


def _segments(rows: list[list[Sample]]) -> list[list[Segment]]:
    return [[segment for sample in row for segment in sample.segments] for row in rows]


def _heldout_contrast(cmcl: ContrastConfig, pairs: Collection[PairCorpus]) -> ContrastConfig:
    """One caption per image, so that candidates are as many texts as images; nothing retrieved,
    and rewrites where all corpora have them."""
    told = {"captions": 1, "retrieved_texts": 0, "retrieved_images": 0}
    if not all(REWRITES in corpus.manifest.stages for corpus in pairs.corpora):
        told |= {"word_negatives": 0, "phrase_negatives": 0, "sentence_negatives": 0}
        told |= {"rewritten_positives": 0}
    return dataclasses.replace(cmcl, **told)


def _thread() -> ThreadPoolExecutor:
    """A thread that locks pages for the GPU of this rank: by itself it would use the first one."""
    if not uses_gpu():
        return ThreadPoolExecutor(1, "batch")
    return ThreadPoolExecutor(1, "batch", torch.cuda.set_device, (torch.cuda.current_device(),))


class _Sent(NamedTuple):
    """A micro-step on its way between processes."""

    parcel: Parcel
    names: list[str]


class _Steps(Dataset[list[_Sent] | ValueError]):
    """Step -> its micro-steps, in a worker process, which has a loader of its own.

    What a user can mend is handed over too: the DataLoader would put a traceback before it.
    """

    def __init__(self, config: RunConfig, rank: int, world_size: int) -> None:
        self._arguments = config, rank, world_size
        self._made: tuple[Loader, Sender] | None = None

    def __getitem__(self, step: int) -> list[_Sent] | ValueError:
        try:
            return self._sent(step)
        except (ValueError, StorageError) as error:
            return ValueError(str(error))

    def _sent(self, step: int) -> list[_Sent]:
        if self._made is None:  # in the worker
            worker = get_worker_info()
            assert worker is not None
            sender = Sender(worker.id)
            self._made = Loader(*self._arguments, buffers=sender), sender
        loader, sender = self._made
        return [_Sent(sender.parcel(micro.batch), micro.names) for micro in loader.step(step)]


def _as_it_is(step: list[_Sent] | ValueError) -> list[_Sent] | ValueError:
    return step
