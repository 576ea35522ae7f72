"""An S3 server on the loopback device, and in front of it a proxy that makes things go wrong."""

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from unimo_ds.storage import RemotePath, is_url

BUCKET = "corpora"
_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive", "server", "date")


class Proxy:
    """Forwards requests; ``fault`` decides by number, method and path what goes wrong with one."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.lock = threading.Lock()
        self.forget()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def forget(self) -> None:
        self.fault: Callable[[int, str, str], str] = lambda number, method, path: ""
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        self.faults = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def got(self, ending: str) -> int:
        """How often the content of a file was asked for."""
        return sum(m == "GET" and path.endswith(ending) for m, path, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _forward(self) -> None:
        body = self._body()
        with self.proxy.lock:
            number = len(self.proxy.requests)
            path = self.path.split("?")[0]
            self.proxy.requests.append((self.command, path, self.headers.get("Range", "")))
            fault = self.proxy.fault(number, self.command, path)
            self.proxy.faults += bool(fault)
        if fault == "503":
            self.send_error(503, "Slow Down")
            return
        if fault == "slow":
            time.sleep(0.2)
        connection = http.client.HTTPConnection(*self.proxy.upstream)
        headers = {n: v for n, v in self.headers.items() if n.lower() != "transfer-encoding"}
        headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self._answer(answer, content, fault)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, answer: http.client.HTTPResponse, content: bytes, fault: str) -> None:
        if fault == "corrupt" and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        length = len(content) if self.command != "HEAD" else answer.getheader("Content-Length", "0")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if fault == "truncate" and content:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def proxy_to_s3() -> Iterator[Proxy]:
    """Starts the servers and points this process, and those it starts, at them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
                patch.delenv(name)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        proxy = Proxy(server.get_host_and_port())
        for name, value in {
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": proxy.url,
        }.items():
            patch.setenv(name, value)
        yield proxy
        server.stop()


@pytest.fixture
def s3(proxy_to_s3, monkeypatch, tmp_path) -> Iterator[Proxy]:
    """An empty bucket, a proxy that does no harm yet, an empty cache, short pauses."""
    monkeypatch.setattr("unimo_ds.storage.FIRST_PAUSE", 0.01)
    monkeypatch.setenv("UNIMO_CACHE", str(tmp_path / "cache"))
    proxy_to_s3.forget()
    bucket = fs.S3FileSystem(
        endpoint_override=proxy_to_s3.url, allow_bucket_creation=True, allow_bucket_deletion=True
    )
    bucket.create_dir(BUCKET)
    yield proxy_to_s3
    proxy_to_s3.forget()
    bucket.delete_dir(BUCKET)


@pytest.fixture
def upload(s3) -> Callable[[Path, str], str]:
    """Puts a file or the files of a folder below a URL."""

    def put(source: Path, url: str) -> str:
        assert is_url(url)
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        for file in files:
            if file.is_file():
                inner = "" if file == source else f"/{file.relative_to(source)}"
                with file.open("rb") as stream:
                    RemotePath(url + inner).put(stream)
        return url

    return put


@pytest.fixture
def download(s3, tmp_path) -> Callable[[str], Path]:
    """A local folder with all that lies below a URL."""

    def get(url: str) -> Path:
        root = tmp_path / "downloaded" / url.replace("/", "_")
        for path in RemotePath(url).files():
            local = root / str(path).removeprefix(f"{url}/")
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(path.read_bytes())
        return root

    return get
