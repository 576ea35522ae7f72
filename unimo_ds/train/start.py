"""Where a run begins: at step 0 or at its newest checkpoint, once nothing has refused it."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from unimo_ds.config import RunConfig
from unimo_ds.config_rules import skipped_steps
from unimo_ds.data.loader import Loader, MicroStep
from unimo_ds.distributed import barrier, on_rank_0
from unimo_ds.train.checkpoint import CheckpointManifest, load_checkpoint
from unimo_ds.train.console import say
from unimo_ds.train.engine import Engine
from unimo_ds.train.host_memory import check_batches_fit
from unimo_ds.train.identity import Identity, identity_of
from unimo_ds.train.resume import check_cut, schedule_notice
from unimo_ds.train.run_folder import commit_start, read_config
from unimo_ds.train.skipping import say_trained_before


class Start(NamedTuple):
    """Of a run that was accepted."""

    step: int
    stop: int  # the step that it ends before
    seconds: float  # of training so far
    micro_steps: int  # the most of any step so far; 0: not known
    identity: Identity
    skipped: frozenset[int]  # steps, counted from 1, that are not trained on
    batches: Iterator[list[MicroStep]]  # of the other steps from ``step`` to ``stop``


def begin(
    engine: Engine, config: RunConfig, loader: Loader, *, fresh: bool, command: Sequence[str]
) -> Start:
    """Loads the newest checkpoint and the first batch, then writes the run's folder.

    Args:
        engine: with the model at its first step.
        config: of the run.
        loader: of what it trains on.
        fresh: set an earlier run of this name aside instead of going on from it.
        command: that started the run, for ``command.txt``.

    Raises:
        ValueError: a checkpoint or corpora that do not go with ``config``; the folder is as it was.
    """
    # Once: a corpus may be built anew while the run goes on.
    identity = on_rank_0(lambda: identity_of(config))
    resumed = None if fresh else load_checkpoint(engine, config, identity)
    step = resumed.step if resumed else 0
    stop = min(config.train.stop_after or config.train.steps, config.train.steps)
    skipped = skipped_steps(config.train)
    steps = [at for at in range(step, stop) if at + 1 not in skipped]
    check_batches_fit(config.data, loader.bytes_ahead(steps))
    batches = loader.steps(steps)
    first = list(islice(batches, 1))  # damage of a corpus shows when it is read
    if resumed and first:
        check_cut(resumed, config, len(first[0]))
    notices = schedule_notice(step, _last_steps(resumed, config), config) if resumed else []
    barrier()  # every rank has accepted
    on_rank_0(lambda: commit_start(config, fresh=fresh, command=command))
    if resumed:
        say("\n".join([f"resumed from step {step}", *notices]))
        say_trained_before(config.run_folder, skipped, step)
    seconds, micro_steps = (resumed.seconds, resumed.micro_steps) if resumed else (0.0, 1)
    return Start(step, stop, seconds, micro_steps, identity, skipped, chain(first, batches))


def _last_steps(resumed: CheckpointManifest, config: RunConfig) -> int:
    """``train.steps`` of the run so far; of earlier releases, only its last start tells."""
    try:
        return resumed.train_steps or read_config(config.run_folder).train.steps
    except ValueError:
        return config.train.steps


def most_micro_steps(so_far: int, step: int, micro_steps: int, config: RunConfig) -> int:
    """Returns the most of any step, the one counted ``step`` (from 1) included; 0: not known.

    Says when it has more than all before.
    """
    if not 0 < so_far < micro_steps:
        return so_far
    batch = config.batch
    say(
        f"step {step} is {micro_steps} micro-steps: batch.rows {batch.rows} of "
        f"batch.tokens_per_row {batch.tokens_per_row} do not hold its samples. The contrast spans "
        "one micro-step at a time, and batch.rows can no longer change when the run is resumed"
    )
    return micro_steps
