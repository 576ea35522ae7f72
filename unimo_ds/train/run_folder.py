"""What a run's folder says of the run; nothing in it changes before a start has been accepted."""

import json
import os
import shlex
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from unimo_ds.config import RunConfig, check, config_from_dict
from unimo_ds.data.schema import RegionSource
from unimo_ds.tokenizer import WordTokenizer, load_tokenizer
from unimo_ds.train.checkpoint import write_durably
from unimo_ds.train.identity import region_source

CONFIG_NAME = "config.json"
COMMAND_NAME = "command.txt"
METRICS_NAME = "metrics.jsonl"
TOKENIZER_NAME = "tokenizer.json"
REGIONS_NAME = "regions.json"


def commit_start(config: RunConfig, *, fresh: bool, command: Sequence[str]) -> None:
    """Writes into the run's folder what is being run, and what a conversion needs of its corpora.

    For rank 0, once checkpoint and corpora have accepted the configuration.

    Args:
        config: of the run.
        fresh: set an earlier run of this name aside.
        command: that started it, for ``command.txt``.

    Raises:
        ValueError: the folder cannot be written to.
    """
    tokenizer = load_tokenizer(config.data.tokenizer).to_json()
    regions = region_source(config)
    try:
        _write_start(config, tokenizer, regions, fresh=fresh, command=command)
    except OSError as error:
        raise ValueError(
            f"cannot write into {config.run_folder.absolute()} on {socket.gethostname()} "
            f"({error}): set folder, or make room there"
        ) from error


def _write_start(
    config: RunConfig,
    tokenizer: str,
    regions: RegionSource | None,
    *,
    fresh: bool,
    command: Sequence[str],
) -> None:
    folder = config.run_folder
    if fresh and folder.exists():
        folder.rename(folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"))
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / TOKENIZER_NAME, tokenizer)
    kept = asdict(regions) if regions else None
    write_durably(folder / REGIONS_NAME, json.dumps(kept, indent=1, sort_keys=True) + "\n")
    write_durably(folder / CONFIG_NAME, config.to_json())
    with (folder / COMMAND_NAME).open("a", encoding="utf-8") as file:
        world = os.environ.get("WORLD_SIZE", "1")
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} ranks={world} {shlex.join(command)}\n")


def read_config(run: Path) -> RunConfig:
    """The resolved configuration of a run.

    Raises:
        ValueError: no run there, or a file that is not one of ours.
    """
    path = run / CONFIG_NAME
    if not path.is_file():
        raise ValueError(f"{run} is no run: {path.name} is missing")
    config = config_from_dict(_json(path))
    check(config)
    return config


def read_tokenizer(run: Path, config: RunConfig) -> WordTokenizer:
    """The tokenizer that a run was started with; of runs of earlier releases that of its path.

    Raises:
        ValueError: neither is there.
    """
    kept, path = run / TOKENIZER_NAME, Path(config.data.tokenizer)
    if not kept.is_file() and not path.exists():
        raise ValueError(
            f"{run} is of an earlier release, which kept no tokenizer, and there is none at "
            f"{path.absolute()}: copy the tokenizer.json of its corpora to {kept}"
        )
    return load_tokenizer(kept if kept.is_file() else path)


def read_regions(run: Path, config: RunConfig) -> RegionSource | None:
    """Where the regions of a run's images came from; of earlier releases as its corpora say.

    Raises:
        ValueError: neither is there.
    """
    path = run / REGIONS_NAME
    if not path.is_file():
        try:
            return region_source(config)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{run} is of an earlier release, which kept no {REGIONS_NAME}, and its corpora "
                f"cannot be read ({error}): convert it from the folder and on the machine that it "
                "was trained on, or resume it there once and copy the run again"
            ) from error
    values = _json(path)
    try:
        return RegionSource(**values) if values else None
    except TypeError as error:
        raise ValueError(f"{path} says {error}: copy it again from the training machine") from error


def _json(path: Path) -> dict[str, object]:
    try:
        values: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): copy it again") from error
    return values
