"""Ends all ranks when one fails: every rank keeps a TCP connection to rank 0 open.

The system closes the connections of a process that dies, whatever killed it, and keepalive finds a
machine that is gone; neither depends on what Python or a collective is doing meanwhile. A rank that
fails tells rank 0 why, and rank 0 tells all others.
"""

import contextlib
import hmac
import ipaddress
import json
import multiprocessing
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

from torch.distributed import DistError, Store

STORE_KEY = "unimo_ds/watchdog"
UNREACHED_KEY = f"{STORE_KEY}/unreached"
KEEPALIVE = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
"""Seconds of silence, seconds between probes, probes: a machine that is gone is missed in 6 s."""
GRACE = 0.5
"""Seconds in which a closed connection may be a launcher's doing that ends this rank as well, and a
refusal one that rank 0 is about to make itself."""
ANSWER_SECONDS = 5.0
GREET_EVERY = 0.05
"""Seconds between looks at who has greeted."""
MOST_BYTES = 1 << 16
"""Received at once."""
GREETING_BYTES = 1 << 12
"""Received from whom has not yet said who it is."""
UNEXPECTED = 1
"""The exit code of an error that is neither the user's nor a loss that is not finite."""


class NotMet(ValueError):
    """Ranks that were announced and did not come."""


class Failure(NamedTuple):
    """Why a rank ends, and with what exit code all of them do."""

    rank: int
    host: str
    code: int
    text: str

    @property
    def line(self) -> str:
        return f"unimo_ds.pretrain: rank {self.rank} on {self.host}: {self.text}"


@dataclass
class _Peer:
    """Rank 0's side of a connection."""

    connection: socket.socket
    rank: int = -1  # until it has said who it is
    host: str = ""
    received: bytes = b""
    lost_at: float = float("inf")


class Watchdog:
    """This rank's part. Every rank makes one, rank 0's first.

    Args:
        store: which all ranks share; through it they learn where rank 0 listens.
        address: of the machine of rank 0.

    Raises:
        NotMet: rank 0's port cannot be reached.
    """

    def __init__(self, store: Store, rank: int, address: str) -> None:
        self.rank, self.host = rank, socket.gethostname()
        self._store = store
        self._lock = threading.Lock()  # held by the thread that ends this process, for ever
        self._closed = False
        self._failure: Failure | None = None  # of this rank
        self._peers: dict[socket.socket, _Peer] = {}
        self._greeted: set[int] = set()
        if rank == 0:
            self._listener = _listen(address)
            self._token = secrets.token_hex(16)
            port = self._listener.getsockname()[1]
            store.set(
                STORE_KEY, json.dumps({"host": self.host, "port": port, "token": self._token})
            )
        else:
            rank_0 = json.loads(store.get(STORE_KEY))
            self._host_of_rank_0 = rank_0["host"]
            self._connection = self._connect(address, rank_0["port"])
            greeting = {"rank": rank, "host": self.host, "token": rank_0["token"]}
            _send(self._connection, greeting)
        watch = self._watch_peers if rank == 0 else self._watch_rank_0
        threading.Thread(target=watch, name="watchdog", daemon=True).start()

    def wait_for_greetings(self, world_size: int, timeout: timedelta) -> None:
        """On rank 0: returns when every other rank has connected; until then the end of a rank
        would be missed.

        Raises:
            NotMet: some have not in time, or have said in the store that they cannot.
        """
        give_up_at = time.monotonic() + timeout.total_seconds()
        while missing := set(range(1, world_size)) - self._greeted:
            if self._store.check([UNREACHED_KEY]):
                raise NotMet(self._store.get(UNREACHED_KEY).decode())
            if time.monotonic() > give_up_at:
                ranks = ", ".join(map(str, sorted(missing)))
                raise NotMet(
                    f"rank 0 on {self.host} has not heard of these ranks within "
                    f"{timeout.total_seconds():.0f} s: {ranks}; see what they say, whether they "
                    f"were killed, and whether their machines reach port "
                    f"{self._listener.getsockname()[1]} of rank 0's"
                )
            time.sleep(GREET_EVERY)

    def fail(self, code: int, text: str) -> NoReturn:
        """Prints ``text`` once and ends all ranks with exit code ``code``."""
        self._failure = Failure(self.rank, self.host, code, text)
        if self.rank == 0:
            self._end_all(self._failure)
        with contextlib.suppress(OSError):
            _send(self._connection, {"failed": self._failure._asdict()})
            time.sleep(ANSWER_SECONDS)  # rank 0's answer ends this process
        self._leave(code, self._failure.line)

    def close(self) -> None:
        """Says that this rank has ended well: what others do from now on does not end it."""
        self._closed = True
        connections = list(self._peers) if self.rank == 0 else [self._connection]
        for connection in connections:
            with contextlib.suppress(OSError):
                _send(connection, {"bye": True})

    def _connect(self, address: str, port: int) -> socket.socket:
        try:
            connection = socket.create_connection((address, port), ANSWER_SECONDS)
        except OSError as error:
            refusal = (
                f"rank {self.rank} on {self.host} cannot reach rank 0 at {address}, port {port} "
                f"({error}): ranks connect to each other at ports of the system's choice; let them "
                "through, or set MASTER_ADDR to an address of rank 0 that all nodes reach"
            )
            with contextlib.suppress(DistError):
                self._store.set(UNREACHED_KEY, refusal)  # or rank 0 would wait for this rank
            raise NotMet(refusal) from error
        connection.settimeout(None)
        _keep_alive(connection)
        return connection

    def _watch_rank_0(self) -> None:
        received = b""
        while chunk := _receive(self._connection):
            received += chunk
            *lines, received = received.split(b"\n")
            for message in map(json.loads, lines):
                if "bye" in message:
                    return
                self._leave(message["code"], "")
        time.sleep(GRACE)
        if self._closed:
            return
        if self._failure:
            self._leave(self._failure.code, self._failure.line)
        # One rank says it, or a thousand lines would hide what rank 0 may have printed.
        lost = Failure(0, self._host_of_rank_0, UNEXPECTED, _LOST)
        self._leave(UNEXPECTED, f"{lost.line}; all ranks end" if self.rank == 1 else "")

    def _watch_peers(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._closed:
                for key, _ in selector.select(GRACE / 2):
                    if key.fileobj is self._listener:
                        if connection := _accept(self._listener):
                            self._peers[connection] = _Peer(connection)
                            selector.register(connection, selectors.EVENT_READ)
                    elif not self._hear(peer := self._peers[key.fileobj]):  # type: ignore[index]
                        selector.unregister(peer.connection)
                        peer.connection.close()
                        del self._peers[peer.connection]
                self._miss_the_lost()

    def _hear(self, peer: _Peer) -> bool:
        """Takes what a connection brought; False where nothing more is to be heard of it."""
        known = peer.rank >= 0
        most = MOST_BYTES if known else GREETING_BYTES - len(peer.received)
        chunk = _receive(peer.connection, most)
        if not chunk and known:
            peer.lost_at = min(peer.lost_at, time.monotonic())
            return True
        peer.received += chunk
        *lines, peer.received = peer.received.split(b"\n")
        try:
            welcome = all(self._take(peer, json.loads(line)) for line in lines)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False  # not one of our ranks: a port scanner
        return welcome and bool(chunk) and (peer.rank >= 0 or len(peer.received) < GREETING_BYTES)

    def _take(self, peer: _Peer, message: dict[str, Any]) -> bool:
        if peer.rank < 0:
            if not hmac.compare_digest(message["token"], self._token):
                return False
            peer.rank, peer.host = message["rank"], message["host"]
            self._greeted.add(peer.rank)
            return True
        if "bye" in message:
            return False
        failure = Failure(**message["failed"])
        if failure.code != UNEXPECTED:
            time.sleep(GRACE)
        self._end_all(failure)

    def _miss_the_lost(self) -> None:
        for peer in list(self._peers.values()):
            if time.monotonic() - peer.lost_at > GRACE and not self._closed:
                self._end_all(Failure(peer.rank, peer.host, UNEXPECTED, _LOST))

    def _end_all(self, failure: Failure) -> NoReturn:
        """On rank 0: prints the first failure, tells all ranks and leaves."""
        self._lock.acquire()
        line = failure.line
        if failure.code == UNEXPECTED:
            line += "; all ranks end"
        elif failure.rank == 0:  # most refusals are those of all ranks
            line = f"unimo_ds.pretrain: {failure.text}"
        print(line, file=sys.stderr, flush=True)
        for connection in list(self._peers):
            with contextlib.suppress(OSError):
                _send(connection, {"code": failure.code})
                connection.shutdown(socket.SHUT_WR)
        time.sleep(GRACE / 2)  # a socket that is closed with messages unread takes back its own
        exit_at_once(failure.code)

    def _leave(self, code: int, line: str) -> NoReturn:
        self._lock.acquire()
        if line:
            print(line, file=sys.stderr, flush=True)
        exit_at_once(code)


_LOST = "ended without a word (killed? out of memory?), or its machine or network is gone"


def exit_at_once(code: int) -> NoReturn:
    """Ends this process at once: what runs at a normal exit waits for other ranks."""
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _listen(address: str) -> socket.socket:
    """Listens on all interfaces, but where no other machine can be meant on the loopback alone."""
    if _is_loopback(address):
        # Of the addresses of localhost IPv4's is the least; who connects tries all of them.
        family, *_, place = min(socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM))
        return socket.create_server(place[:2], family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _is_loopback(address: str) -> bool:
    """Asks no resolver: a machine's own name is often a loopback address there, and only there."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address.lower() == "localhost"


def _accept(listener: socket.socket) -> socket.socket | None:
    """A connection, if one is to be had: strangers can take all descriptors, or be gone again."""
    try:
        connection, _ = listener.accept()
    except OSError:
        time.sleep(GRACE / 2)  # without descriptors it stays readable
        return None
    try:
        _keep_alive(connection)
    except OSError:
        connection.close()
        return None
    return connection


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, most: int = MOST_BYTES) -> bytes:
    """What has come; empty when the connection is closed or broken."""
    try:
        return connection.recv(most)
    except OSError:
        return b""
