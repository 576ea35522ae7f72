"""Which configuration may go on from a checkpoint, and what a person is told when it does."""

from pathlib import Path
from typing import TYPE_CHECKING

from unimo_ds.config import RunConfig
from unimo_ds.data.schema import RegionSource
from unimo_ds.tokenizer import WordTokenizer
from unimo_ds.train.identity import (
    CUT,
    Identity,
    fingerprint_of_paths,
    other_corpora,
    other_settings,
    settings_of,
)
from unimo_ds.train.optim import learning_rate

if TYPE_CHECKING:
    from unimo_ds.train.checkpoint import CheckpointManifest

REMEDY = "another name, or --fresh"


def check_same_run(
    checkpoint: Path, manifest: "CheckpointManifest", config: RunConfig, identity: Identity
) -> None:
    """Refuses to go on from a checkpoint of other settings or other corpora.

    Raises:
        ValueError: naming what differs, with both values.
    """
    own = config.run_folder / "config.json"
    if manifest.identity is None:
        if manifest.config_fingerprint != fingerprint_of_paths(config):
            raise ValueError(
                f"{checkpoint} was trained with another model, data, batch, loss or optimizer, or "
                "with corpora at other paths (it is of an earlier release, which compared paths): "
                f"use the configuration in {own}, {REMEDY}"
            )
        return
    if settings := list(other_settings(manifest.identity.settings, config)):
        raise ValueError(
            f"{checkpoint} was trained with {', '.join(settings)}: use the configuration in {own}, "
            f"{REMEDY}"
        )
    if corpora := list(other_corpora(manifest.identity, identity)):
        raise ValueError(
            f"{checkpoint} was trained with {', '.join(corpora)}: name the corpora that it was "
            f"trained on, {REMEDY}"
        )


def check_kept(
    run: Path,
    checkpoint: Path,
    manifest: "CheckpointManifest",
    config: RunConfig,
    words: WordTokenizer,
    source: RegionSource | None,
) -> None:
    """Refuses what a run's folder holds if it is not of the run that made a checkpoint.

    Args:
        run: the folder.
        checkpoint, manifest: what is to be converted.
        config, words, source: what the folder holds; no corpus is opened.

    Raises:
        ValueError: naming what differs.
    """
    saved, path = manifest.identity, run / "config.json"
    if saved is None:
        if manifest.config_fingerprint != fingerprint_of_paths(config):
            raise ValueError(
                f"{path} is not the configuration that {checkpoint} was trained with: undo what "
                "was changed in it (in earlier releases a start that was refused overwrote it; "
                "command.txt beside it lists all starts)"
            )
        return
    if settings := list(other_settings(saved.settings, config)):
        raise ValueError(
            f"{path} is not the configuration that {checkpoint} was trained with, which has "
            f"{', '.join(settings)}: undo what was changed in it"
        )
    regions = source.fingerprint if source else ""
    for name, before, found in (
        ("tokenizer", saved.tokenizer, words.fingerprint),
        ("source of regions", saved.regions, regions),
    ):
        if found != before:
            raise ValueError(
                f"the {name} of {run} has the fingerprint {found or 'none'}, {checkpoint} was "
                f"trained with {before or 'none'}: copy the run's folder again"
            )


def check_cut(manifest: "CheckpointManifest", config: RunConfig, micro_steps: int) -> None:
    """Refuses another `CUT` of steps into micro-steps, except where a step is one micro-step.

    The contrast spans a micro-step: with several of them other rows make another loss. With one
    they decide only which samples share a row, which no loss depends on.

    Args:
        manifest: of the checkpoint that the run goes on from.
        config: of the run.
        micro_steps: of the next step.

    Raises:
        ValueError: naming both cuts and the numbers of micro-steps.
    """
    before = manifest.identity.settings if manifest.identity else {}
    here = settings_of(config)
    other = [name for name in CUT if before.get(name, here[name]) != here[name]]
    if not other:
        return
    cuts = " and ".join(f"{name} {before[name]} (here {here[name]})" for name in other)
    if manifest.micro_steps != 1:
        so_far = f"up to {manifest.micro_steps}" if manifest.micro_steps else "an unknown number of"
        raise ValueError(
            f"the run was trained to step {manifest.step} with {cuts} in {so_far} micro-steps a "
            "step, which other rows would fill otherwise: set them as they were"
        )
    if micro_steps != 1:
        raise ValueError(
            f"the run was trained to step {manifest.step} with {cuts} in 1 micro-step a step, the "
            f"next one would be {micro_steps}: raise batch.tokens_per_row, or set them as they were"
        )


def schedule_notice(step: int, before: int, config: RunConfig) -> list[str]:
    """Says what another ``train.steps`` than ``before`` does to the learning rate of ``step``."""
    here = config.train.steps
    if before == here:
        return []
    old, new = (learning_rate(min(step, end), end, config.optim) for end in (before, here))
    return [
        f"train.steps is {here}, it was {before}: the learning rate of step {step + 1} goes from "
        f"{old:.3e} to {new:.3e}, and from there linearly to 0 at step {here}"
    ]
