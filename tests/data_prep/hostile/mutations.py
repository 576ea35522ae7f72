"""What goes wrong with files on their way: cuts, flips, insertions, other people's bytes."""

import random
from collections.abc import Callable

NASTY = (
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\xbd",  # half a surrogate pair
    b"\xf4\x90\x80\x80",  # beyond Unicode
    b"\r",
    b"\n\n\n",
    b'"',
    b"{",
    b"]]]]",
    b"\\u0000",
    b"\\ud83d",
    b"1e999",
    b"-1",
    b"NaN",
    b"9" * 400,
    b"../" * 40,
    b"/dev/zero",
    b"pipe:touch /tmp/x",
    b"http://127.0.0.1:9/x.jpg",
    b"%s%n",
    b"A" * 5000,
)


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def inserted(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(NASTY) + data[at:]


def overwritten(data: bytes, rng: random.Random) -> bytes:
    at, nasty = rng.randrange(len(data)), rng.choice(NASTY)
    return data[:at] + nasty + data[at + len(nasty) :]


def left_out(data: bytes, rng: random.Random) -> bytes:
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:first] + data[last:]


def repeated(data: bytes, rng: random.Random) -> bytes:
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:last] + data[first:]


def shuffled(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncated,
    flipped,
    inserted,
    overwritten,
    left_out,
    repeated,
    shuffled,
)


def mutated(data: bytes, seed: int) -> bytes:
    """``data`` after one to three mishaps, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if data:
            data = rng.choice(MUTATIONS)(data, rng)
    return data
