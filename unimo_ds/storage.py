"""Files at URLs: ``s3://`` and ``gs://`` through pyarrow, any other scheme through fsspec.

Every request is repeated with growing pauses when it fails for a moment (503, a connection that
breaks, a body that ends early). Endpoints and keys come from the environment as usual:
``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``GOOGLE_APPLICATION_CREDENTIALS`` and so on.
"""

import io
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, TypeVar

from pyarrow import fs as arrow_fs

T = TypeVar("T")

ATTEMPTS = 6
FIRST_PAUSE = 0.25
"""Seconds after the first failure; each further pause is twice as long."""
CHUNK = 8 << 20
"""Bytes asked for at a time."""
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_OBJECT_STORES = ("s3", "gs", "gcs", "abfs", "abfss", "az")  # an upload appears whole or not at all
_WEB = ("http", "https")  # files without folders
_GONE = (404, 410)
_DENIED = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT_MATCH|"
    "UNRECOGNIZED_CLIENT|NO_SUCH_BUCKET|InvalidBucketName|HTTP status 40[0134]"
)
_PERMANENT = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ValueError,
    TypeError,
)


class StorageError(OSError):
    """A request that was refused, or that failed as often as it was repeated."""


class FileState(NamedTuple):
    """As `os.stat` names them."""

    st_size: int
    st_mtime_ns: int  # 0: the storage does not say


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or folder at a URL, with those methods of `pathlib.Path` that corpora need."""

    url: str

    def __post_init__(self) -> None:
        found = _URL.fullmatch(self.url)
        parts = found["rest"].rstrip("/").split("/") if found else []
        if not parts or not parts[0] or any(part in ("", ".", "..") for part in parts[1:]):
            raise ValueError(f"{self.url!r} is no URL of a file or folder: scheme://where/name")
        assert found
        object.__setattr__(self, "url", f"{found['scheme']}://{'/'.join(parts)}")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.url}/{name}")

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def key(self) -> PurePosixPath:
        """What stands behind ``scheme://``: bucket or host, then the path."""
        return PurePosixPath(self.url.partition("://")[2])

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(f"{self.scheme}://{self.key.parent}")

    def exists(self) -> bool:
        return self._info().type != arrow_fs.FileType.NotFound

    def is_file(self) -> bool:
        return self._info().type == arrow_fs.FileType.File

    def is_symlink(self) -> bool:
        return False

    def is_dir(self) -> bool:
        return self.scheme not in _WEB and self._info().type == arrow_fs.FileType.Directory

    def stat(self) -> FileState:
        """Raises:
        FileNotFoundError: no file there.
        """
        info = self._info()
        if info.type != arrow_fs.FileType.File:
            raise FileNotFoundError(f"no file {self}")
        if info.size is None:
            raise StorageError(f"{self}: the server tells no size; download it first")
        return FileState(info.size, info.mtime_ns or 0)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing to do: a folder is there when a file in it is."""

    def iterdir(self) -> Iterator["RemotePath"]:
        """What lies in this folder; nothing if there is no such folder."""
        return (self / PurePosixPath(info.path).name for info in self._listed(False))

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """The entries whose name ``pattern`` matches; it is of one folder, without slashes."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def files(self) -> dict["RemotePath", FileState]:
        """All files below this folder, sub-folders too, in the order of their names."""
        root = self._path().rstrip("/")
        found = {
            self / info.path[info.path.index(root) + len(root) + 1 :]: info
            for info in self._listed(True)
            if info.type == arrow_fs.FileType.File
        }
        return {p: FileState(i.size or 0, i.mtime_ns or 0) for p, i in sorted(found.items())}

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The content, for reading only; ranges of `CHUNK` bytes are fetched when needed."""
        if mode != "rb":
            raise ValueError(f"{self} opens for reading only: mode 'rb', not {mode!r}")
        return io.BufferedReader(_Ranges(self, self.stat().st_size), CHUNK)

    def read_bytes(self) -> bytes:
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok or self.exists():
            retried(f"delete {self}", lambda: self._filesystem().delete_file(self._path()))

    def remove_tree(self) -> None:
        """Deletes the folder and what is in it, if it is there."""
        if self.exists():
            retried(f"delete {self}", lambda: self._filesystem().delete_dir(self._path()))

    def put(self, source: IO[bytes]) -> None:
        """Uploads all of an open file under this name; others see it whole or not at all.

        Raises:
            StorageError: it did not arrive whole, as often as it was tried.
        """
        retried(f"upload to {self}", lambda: self._put(source))

    def _put(self, source: IO[bytes]) -> None:
        filesystem, path = self._filesystem(), self._path()
        at_once = self.scheme in _OBJECT_STORES
        target = path if at_once else f"{path}.{os.getpid():x}.part"
        if not at_once:
            filesystem.create_dir(str(PurePosixPath(path).parent), recursive=True)
        size = source.seek(0, io.SEEK_END)
        source.seek(0)
        with filesystem.open_output_stream(target) as stream:
            shutil.copyfileobj(source, stream, CHUNK)
        found = filesystem.get_file_info(target).size
        if found != size:
            raise EOFError(f"{found} bytes arrived of {size}")
        if not at_once:
            filesystem.move(target, path)

    def _filesystem(self) -> arrow_fs.FileSystem:
        return _filesystem(self.scheme, self.key.parts[0])

    def _path(self) -> str:
        return self.url if self.scheme in _WEB else str(self.key)

    def _info(self) -> arrow_fs.FileInfo:
        ask = self._web_info if self.scheme in _WEB else self._stored_info
        return retried(f"look at {self}", ask)

    def _stored_info(self) -> arrow_fs.FileInfo:
        return self._filesystem().get_file_info(self._path())

    def _web_info(self) -> arrow_fs.FileInfo:
        """As `_stored_info`; fsspec calls a server that does not answer a file that is not there.

        Raises:
            ConnectionError: the server did not say that there is no such file.
        """
        try:
            self._filesystem().handler.fs.info(self.url)
        except FileNotFoundError as error:
            cause = error.__cause__
            if cause is not None and getattr(cause, "status", 0) not in _GONE:
                raise ConnectionError(str(cause) or type(cause).__name__) from cause
        return self._stored_info()

    def _listed(self, recursive: bool) -> list[arrow_fs.FileInfo]:
        if self.scheme in _WEB:
            raise ValueError(f"{self}: web servers list no folders; name files")
        select = arrow_fs.FileSelector(self._path(), allow_not_found=True, recursive=recursive)
        return retried(f"list {self}", lambda: self._filesystem().get_file_info(select))


class _Ranges(io.RawIOBase):
    """A remote file whose ranges are asked for one by one, each as often as it needs."""

    def __init__(self, path: RemotePath, size: int) -> None:
        super().__init__()
        self._remote, self._size, self._position = path, size, 0
        self._file: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._position)
        if count <= 0:
            return 0
        data = retried(f"read {self._remote}", lambda: self._range(count))
        buffer[:count] = data
        self._position += count
        return count

    def _range(self, count: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._remote._filesystem().open_input_file(self._remote._path())
            if self._file.tell() != self._position:
                self._file.seek(self._position)
            data = self._file.read(count)
        except Exception:
            self._file = None  # the next attempt begins with a new connection
            raise
        if len(data) != count:
            self._file = None
            raise EOFError(f"{len(data)} bytes came of {count} at {self._position}")
        return data


def location(text: str) -> Path | RemotePath:
    """What a user names: a local path or a URL."""
    return RemotePath(text) if is_url(text) else Path(text)


def is_url(text: str) -> bool:
    return _URL.fullmatch(text) is not None


def retried(what: str, action: Callable[[], T]) -> T:
    """The result of ``action``, which is repeated while it fails in a way that may pass.

    Raises:
        StorageError: it was refused, or failed `ATTEMPTS` times.
    """
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except _PERMANENT:
            raise
        except Exception as error:
            if _DENIED.search(str(error)):
                raise StorageError(f"cannot {what}: {error}") from error
            if attempt == ATTEMPTS:
                told = f"cannot {what}, tried {ATTEMPTS} times: {error or type(error).__name__}"
                raise StorageError(told) from error
        time.sleep(pause * random.uniform(0.5, 1))
        pause *= 2
    raise AssertionError


@cache
def _filesystem(scheme: str, authority: str) -> arrow_fs.FileSystem:
    """Of one bucket or host, made once in a process."""
    if scheme == "s3":
        return _s3(authority)
    if scheme in ("gs", "gcs"):
        return arrow_fs.GcsFileSystem(retry_time_limit=timedelta(seconds=10))
    import fsspec

    try:
        return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ImportError, ValueError) as error:
        raise ValueError(f"{scheme}://{authority}: {error}") from error


def _s3(bucket: str) -> arrow_fs.FileSystem:
    options: dict[str, Any] = {"allow_delayed_open": True, "connect_timeout": 10}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        return arrow_fs.S3FileSystem(
            endpoint_override=endpoint, region=region or "us-east-1", **options
        )
    region = region or retried(f"find {bucket}", lambda: arrow_fs.resolve_s3_region(bucket))
    return arrow_fs.S3FileSystem(region=region, **options)
