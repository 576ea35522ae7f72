"""Files on an S3 server: as on a disk, whatever happens to single requests."""

import errno
import hashlib
import io
import random
import socket
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import boto3
import pytest

from unimo_ds import storage
from unimo_ds.storage import RemotePath, StorageError, location
from unimo_ds.transfer import clear_errors, copy_of, fetch, origin_of

CONTENT = random.Random(5).randbytes(300_000)
FOLDER = "s3://corpora/some/folder"


@pytest.fixture
def remote(s3):
    """A file of five chunks."""
    path = RemotePath(FOLDER) / "file.bin"
    path.put(io.BytesIO(CONTENT))
    return path


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(storage, "CHUNK", 65_536)
    monkeypatch.setattr("unimo_ds.transfer.CHUNK", 65_536)


def test_a_remote_path_behaves_like_a_path(remote):
    folder = RemotePath(FOLDER)
    (folder / "inner" / "b.txt").put(io.BytesIO(b"text"))
    assert remote.exists() and remote.is_file() and not remote.is_dir()
    assert folder.exists() and folder.is_dir() and not (folder / "none").exists()
    assert remote.stat().st_size == len(CONTENT) and remote.stat().st_mtime_ns > 0
    assert sorted(p.name for p in folder.iterdir()) == ["file.bin", "inner"]
    assert list(folder.glob("*.bin")) == [remote] == [p for p in folder.files() if p == remote]
    assert [str(p) for p in folder.files()] == [f"{FOLDER}/file.bin", f"{FOLDER}/inner/b.txt"]
    assert (folder / "inner" / "b.txt").read_text() == "text"
    with pytest.raises(FileNotFoundError, match="none"):
        (folder / "none").stat()
    remote.unlink()
    remote.unlink(missing_ok=True)
    assert not remote.exists()
    folder.remove_tree()
    assert not folder.files() and not list(folder.iterdir())


def test_any_part_is_read_as_from_a_local_file(remote, small_chunks):
    local, draw = io.BytesIO(CONTENT), random.Random(1)
    with remote.open() as file:
        for _ in range(40):
            position, count = draw.randrange(len(CONTENT) + 9), draw.randrange(1, 100_000)
            assert file.seek(position) == local.seek(position)
            assert file.read(count) == local.read(count)


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///a", "s3://a/../b", "s3://a//b", "s3://a/./b", "/a", "c:\\x"]
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match="no URL"):
        RemotePath(url)


def test_locations_are_paths_or_urls():
    assert location("a/b").name == location("gs://c/a/b/").name == "b"
    assert str(location("gs://c/a/b/")) == "gs://c/a/b"
    assert location("gs://c/a").parent == RemotePath("gs://c")


def test_storage_that_is_not_there(s3):
    with pytest.raises(ValueError, match="nosuch://x"):
        RemotePath("nosuch://x/y").exists()
    with pytest.raises(FileNotFoundError):
        RemotePath("s3://no-such-bucket/y").stat()


@pytest.mark.parametrize("kind", ["503", "truncate", "slow"])
def test_faults_that_pass_change_no_byte(kind, remote, s3, small_chunks, tmp_path):
    s3.forget()
    # four in a row: one more than the S3 client repeats by itself
    s3.fault = lambda number, method, path: kind if number % 12 < 4 else ""
    fetch(remote, tmp_path / "copy")
    (RemotePath(FOLDER) / "back").put(io.BytesIO(CONTENT))
    assert s3.faults >= 4
    s3.forget()
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert (RemotePath(FOLDER) / "back").read_bytes() == CONTENT


def test_faults_that_do_not_pass_end_in_one_clear_error(remote, s3, monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    s3.fault = lambda number, method, path: "503"
    with pytest.raises(StorageError, match=f"cannot look at {remote}, tried 2 times: .*503"):
        remote.stat()
    s3.fault = lambda number, method, path: "truncate" if method == "GET" else ""
    with pytest.raises(StorageError, match=f"cannot read {remote}, tried 2 times"):
        fetch(remote, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_download_goes_on_where_it_stopped(remote, s3, small_chunks, monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    s3.fault = lambda n, method, path: "truncate" if method == "GET" and s3.got("bin") > 3 else ""
    with pytest.raises(StorageError):
        fetch(remote, tmp_path / "copy")
    (part,) = tmp_path.iterdir()
    kept = part.stat().st_size
    assert part.suffix == ".part" and kept == 3 * 65_536
    s3.forget()
    fetch(remote, tmp_path / "copy", hashlib.sha256(CONTENT).hexdigest())
    assert (tmp_path / "copy").read_bytes() == CONTENT
    starts = [int(r.removeprefix("bytes=").split("-")[0]) for _, _, r in s3.requests if r]
    assert min(starts) == kept
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_changed_content_is_fetched_again_and_then_refused(remote, s3, tmp_path):
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    s3.fault = lambda n, method, path: "corrupt" if s3.got("bin") == 1 and method == "GET" else ""
    fetch(remote, tmp_path / "copy", sha256)
    assert s3.faults == 1 and (tmp_path / "copy").read_bytes() == CONTENT
    s3.fault = lambda n, method, path: "corrupt" if method == "GET" else ""
    with pytest.raises(StorageError, match=f"{remote} came twice with a SHA-256"):
        fetch(remote, tmp_path / "other", sha256)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_any_storage_that_fsspec_knows():
    path = RemotePath("memory://some/where/a.bin")
    path.put(io.BytesIO(CONTENT))
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    assert list(path.parent.files()) == [path]
    path.parent.remove_tree()
    assert not path.exists()


def test_a_file_of_a_web_server(remote, s3, tmp_path):
    client = boto3.client("s3", endpoint_url=s3.url)
    client.put_object_acl(Bucket="corpora", Key="some/folder/file.bin", ACL="public-read")
    web = RemotePath(f"{s3.url}/corpora/some/folder/file.bin")
    fetch(web, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    with pytest.raises(ValueError, match="list no folders"):
        web.parent.files()


def test_a_copy_tells_its_origin(tmp_path):
    source = RemotePath("s3://bucket/a b/c.jsonl")
    assert origin_of(str(copy_of(source, tmp_path))) == str(source)
    assert origin_of("/data/c.jsonl") == "/data/c.jsonl"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO])
def test_only_a_full_disk_is_told_as_one(number, tmp_path):
    expected = {errno.ENOSPC: "is full: .* MB are free", errno.EFBIG: "ulimit", errno.EIO: "broken"}
    with pytest.raises(OSError, match=expected[number]), clear_errors(tmp_path / "file"):
        raise OSError(number, "broken")


def test_a_web_server_that_does_not_answer_is_not_one_without_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "FIRST_PAUSE", 0.001)
    (tmp_path / "there.bin").write_bytes(CONTENT)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert RemotePath(f"{url}/there.bin").is_file() and not RemotePath(f"{url}/none").exists()
        server.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StorageError, match="tried 6 times: Cannot connect"):
        RemotePath(f"http://127.0.0.1:{port}/there.bin").is_file()
