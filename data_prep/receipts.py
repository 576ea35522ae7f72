"""What finished tasks leave beside their shards, so that a build can go on where it was killed."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.quarantine import Bad, Reason
from data_prep.writer import Folder, sizes_in, write_bytes
from unimo_ds.data.schema import ShardRecord
from unimo_ds.storage import RemotePath

RECEIPTS_FOLDER = ".receipts"
_LOCK_NAME = "lock"
_READ_AT_ONCE = 16  # requests take longer than what they bring


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a finished task says of itself."""

    index: int
    key: str  # of the slice and the parameters it was made with
    records: int  # read, good and bad
    shard: ShardRecord | None  # None: no record of the slice was good
    bad: list[Bad]
    size: int

    def to_json(self) -> str:
        """What `read` reads."""
        return json.dumps(asdict(self) | {"bad": list(self.bad)}, sort_keys=True) + "\n"

    @staticmethod
    def read(path: Folder) -> "Receipt":
        """The receipt in a file."""
        values = json.loads(path.read_text(encoding="utf-8"))
        values["shard"] = ShardRecord(**values["shard"]) if values["shard"] else None
        values["bad"] = [Bad(Reason(reason), *rest) for reason, *rest in values["bad"]]
        return Receipt(**values)


def write_receipt(folder: Folder, receipt: Receipt) -> None:
    """Puts down that the shard of ``receipt`` is in ``folder``, whole."""
    path = folder / RECEIPTS_FOLDER / f"{receipt.index:05d}.json"
    write_bytes(path, receipt.to_json().encode())


def read_receipts(folder: Folder) -> dict[int, Receipt]:
    """Number of the slice -> what an earlier run said of it, where its files are there."""
    receipts = folder / RECEIPTS_FOLDER
    names = [name for name in sizes_in(receipts) if name.partition(".")[0].isdecimal()]
    names = [name for name in names if name.endswith(".json")]
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        found = list(pool.map(lambda name: Receipt.read(receipts / name), sorted(names)))
    sizes = sizes_in(folder)
    return {r.index: r for r in found if r.shard is None or _is_there(r.shard, sizes)}


def remove_receipts(folder: Folder) -> None:
    """Nobody needs them once the manifest is there."""
    receipts = folder / RECEIPTS_FOLDER
    if isinstance(receipts, RemotePath):
        receipts.remove_tree()
    else:
        shutil.rmtree(receipts, ignore_errors=True)


def _is_there(shard: ShardRecord, sizes: dict[str, int]) -> bool:
    return sizes.get(shard.name) == shard.bytes and all(name in sizes for name, _ in shard.files)


def is_unused(folder: Folder) -> bool:
    """Is nothing in ``folder`` but, perhaps, the lock of a build that is about to begin?"""
    if not folder.exists():
        return True
    if any(path.name != RECEIPTS_FOLDER for path in folder.iterdir()):
        return False
    receipts = folder / RECEIPTS_FOLDER
    return not receipts.exists() or all(path.name == _LOCK_NAME for path in receipts.iterdir())


def lock_in(folder: Path) -> Path:
    """The file that whoever builds in a local ``folder`` holds locked."""
    return folder / RECEIPTS_FOLDER / _LOCK_NAME
