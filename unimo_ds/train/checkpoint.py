"""A checkpoint is a folder that appears at once: written beside, given a manifest, renamed."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from unimo_ds.config import RunConfig
from unimo_ds.distributed import agree, barrier, gather_objects, on_rank_0, rank, world_size
from unimo_ds.train.engine import Engine
from unimo_ds.train.identity import Identity, identity_of
from unimo_ds.train.resume import check_same_run
from unimo_ds.train.shared_folder import PATIENCE, await_files, relative_files, soon

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

    Raises:
        ValueError: rank 0 does not see what other ranks wrote.
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
    written = {name for names in gather_objects(relative_files(partial)) for name in names}
    on_rank_0(lambda: await_files(partial, written))
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


def read_checkpoint(folder: Path, of_rank: int | None = None) -> CheckpointManifest:
    """The manifest of the checkpoint in ``folder``, after a look at the size of its files.

    Args:
        of_rank: leaves the files of other ranks out of it.

    Raises:
        ValueError: files that are missing or shorter than they were written.
    """
    values = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    if values.get("identity"):
        values["identity"] = Identity(**values["identity"])
    manifest = CheckpointManifest(**values)
    for name, (size, _) in manifest.files.items():
        owner = re.search(r"pp_rank_(\d+)_", name)  # as DeepSpeed names them
        if owner and of_rank not in (None, int(owner[1])):
            continue
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

    Rank 0 chooses it for all; every rank looks at its own part before one of them loads.

    Args:
        engine: what is trained.
        config: of the run.
        identity: of the run when it started; None: as it is now.

    Raises:
        ValueError: the checkpoint is of another configuration, other corpora or another number of
            ranks, or is damaged, or a rank does not see it.
    """
    folder = checkpoints_folder(config.run_folder)
    name, manifest = on_rank_0(lambda: _newest_checkpoint(config, identity))
    if manifest is None:
        return None
    agree(lambda: _see_own_part(folder / name))
    engine.load(folder / name)
    return manifest


def _newest_checkpoint(
    config: RunConfig, identity: Identity | None
) -> tuple[str, CheckpointManifest | None]:
    """Name and manifest of what a run continues from; no manifest: it starts."""
    checkpoints = whole_checkpoints(config.run_folder)
    if not checkpoints:
        return "", None
    manifest = read_checkpoint(checkpoints[-1])
    check_same_run(checkpoints[-1], manifest, config, identity or identity_of(config))
    if manifest.world_size != world_size():
        raise ValueError(
            f"{checkpoints[-1]} was written by {manifest.world_size} ranks, this run has "
            f"{world_size()}: start {manifest.world_size} ranks"
        )
    return checkpoints[-1].name, manifest


def _see_own_part(folder: Path) -> None:
    """Looks at what this rank will load of a checkpoint that rank 0 sees.

    Raises:
        ValueError: it is not here, even after a while.
    """
    if rank() == 0:
        return
    soon((folder / MANIFEST_NAME).is_file, PATIENCE)
    if not (folder / MANIFEST_NAME).is_file():
        raise ValueError(
            f"{folder.absolute()}, from which rank 0 resumes, is not here: set folder to an "
            "absolute path on storage that all nodes share"
        )
    read_checkpoint(folder, rank())


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
