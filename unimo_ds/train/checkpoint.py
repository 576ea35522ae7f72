"""A checkpoint is a folder that appears at once: written beside, given a manifest, renamed."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from unimo_ds.config import RunConfig
from unimo_ds.distributed import barrier, rank, world_size
from unimo_ds.train.engine import Engine
from unimo_ds.train.identity import Identity, identity_of
from unimo_ds.train.resume import check_same_run

MANIFEST_NAME = "manifest.json"
LATEST_NAME = "latest"


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest:
    """What a checkpoint is of. ``files`` maps its relative paths to [bytes, sha256]."""

    step: int
    seed: int
    seconds: float  # of training so far
    world_size: int
    files: dict[str, list[int | str]]
    identity: Identity | None = None  # what must not change over a resume
    config_fingerprint: str = ""  # of earlier releases, in place of the identity
    train_steps: int = 0  # what the learning rate decays towards; 0: not known
    micro_steps: int = 0  # the most of any step so far; 0: not known


def checkpoints_folder(run: Path) -> Path:
    return run / "checkpoints"


def save_checkpoint(
    engine: Engine,
    config: RunConfig,
    step: int,
    seconds: float,
    identity: Identity | None = None,
    micro_steps: int = 0,
) -> Path:
    """Writes the checkpoint of ``step`` and forgets the oldest beyond ``keep_checkpoints``.

    Args:
        engine: what is trained.
        config: of the run.
        step: steps done.
        seconds: of training so far.
        identity: of the run when it started; None: as it is now.
        micro_steps: the most of any step so far; 0: not known.
    """
    folder = checkpoints_folder(config.run_folder)
    final = folder / f"step_{step:08d}"
    partial = folder / f".partial_step_{step:08d}"
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".partial_*"):
            shutil.rmtree(stale)
        if final.exists():  # of a run that was resumed from before it
            shutil.rmtree(final)
    barrier()
    engine.save(partial)
    barrier()
    if rank() == 0:
        manifest = CheckpointManifest(
            step=step,
            seed=config.seed,
            seconds=seconds,
            world_size=world_size(),
            files=_describe(partial),
            identity=identity or identity_of(config),
            train_steps=config.train.steps,
            micro_steps=micro_steps,
        )
        text = json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n"
        write_durably(partial / MANIFEST_NAME, text)
        partial.rename(final)
        write_durably(folder / LATEST_NAME, final.name + "\n")
        for old in whole_checkpoints(config.run_folder)[: -config.train.keep_checkpoints]:
            shutil.rmtree(old)
    barrier()
    return final


def whole_checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path.parent for path in checkpoints_folder(run).glob(f"step_*/{MANIFEST_NAME}"))


def read_checkpoint(folder: Path) -> CheckpointManifest:
    """The manifest of the checkpoint in ``folder``, after a look at the size of its files.

    Raises:
        ValueError: files that are missing or shorter than they were written.
    """
    values = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    if values.get("identity"):
        values["identity"] = Identity(**values["identity"])
    manifest = CheckpointManifest(**values)
    for name, (size, _) in manifest.files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            raise ValueError(
                f"{path} has {found} bytes, its manifest says {size}: remove {folder} to resume "
                "from the checkpoint before it"
            )
    return manifest


def load_checkpoint(
    engine: Engine, config: RunConfig, identity: Identity | None = None
) -> CheckpointManifest | None:
    """Continues from the newest checkpoint of the run; None where there is none.

    Args:
        engine: what is trained.
        config: of the run.
        identity: of the run when it started; None: as it is now.

    Raises:
        ValueError: the checkpoint is of another configuration, other corpora or another number of
            ranks, or is damaged.
    """
    checkpoints = whole_checkpoints(config.run_folder)
    if not checkpoints:
        return None
    manifest = read_checkpoint(checkpoints[-1])
    check_same_run(checkpoints[-1], manifest, config, identity or identity_of(config))
    if manifest.world_size != world_size():
        raise ValueError(
            f"{checkpoints[-1]} was written by {manifest.world_size} ranks, this run has "
            f"{world_size()}: start {manifest.world_size} ranks"
        )
    engine.load(checkpoints[-1])
    return manifest


def write_durably(path: Path, text: str) -> None:
    """``path`` holds all of ``text`` or what it held before, whatever happens."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _describe(folder: Path) -> dict[str, list[int | str]]:
    described: dict[str, list[int | str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            described[path.relative_to(folder).as_posix()] = [path.stat().st_size, digest]
    return described
