"""Records out of JSON of any size: lines of ``.jsonl``, items of the lists in ``.json``.

One record at a time is in memory, and none larger than `MAX_RECORD`: hostile files have no say in
how much memory a build takes.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.encoding import utf8_stream
from data_prep.readers.lines import bounded_lines, unpacked
from data_prep.readers.text import check_surrogates, parse_object

MAX_RECORD = 16 << 20
"""Bytes of a line, characters of an item in a list: captions and boxes of one picture."""

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_SLACK = 16  # characters before the end of what is there, where an error may mean "not all there"


def json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    """(number, object or BadRecord) of the lines of a file, which may be packed.

    Raises:
        OSError, EOFError, zlib.error, lzma.LZMAError: a packed file that is damaged.
    """
    with file.open("rb") as raw, unpacked(raw, file) as stream:
        for number, line in bounded_lines(utf8_stream(stream, file), MAX_RECORD):
            try:
                if isinstance(line, BadRecord):
                    raise line
                if line.strip():
                    yield number, parse_object(line)
            except BadRecord as error:
                yield number, error


def json_items(file: Path) -> Iterator[tuple[str, Any]]:
    """(key, item) for every item of the lists that are the values of an object, ("", item) for
    those of a list; values that are no lists come whole. An item with half a character in it is
    a BadRecord.

    Raises:
        ValueError: not JSON, or a record above `MAX_RECORD`; with the file and the place.
    """
    with file.open("rb") as raw:
        window = _Window(utf8_stream(raw, file))
        try:
            yield from _walk(window)
        except RecursionError as error:
            raise ValueError(f"{file}: JSON nested too deeply, {window.place}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is no UTF-8, {window.place}: {error.reason}") from error
        except BadRecord as error:
            raise ValueError(f"{file}: {error}, {window.place}") from error
        except ValueError as error:
            raise ValueError(f"{file} is not JSON, {window.place}: {error}") from error


def _walk(window: "_Window") -> Iterator[tuple[str, Any]]:
    opening = window.peek()
    if opening == "[":
        yield from (("", item) for item in window.items())
    elif opening == "{":
        window.take("{")
        more = window.peek() != "}"
        while more:
            key = window.value()
            if not isinstance(key, str):
                raise ValueError("a key that is no text")
            window.take(":")
            if window.peek() == "[":
                yield from ((key, item) for item in window.items())
            else:
                yield key, window.value()
            more = window.goes_on("}")
        if not window.closed:
            window.take("}")
    else:
        raise ValueError("expected an object or a list" if opening else "the file is empty")
    if window.peek():
        raise ValueError("more after its end")


class _Window:
    """The part of a JSON text that is being read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._ended = "", 0, False
        self._before = 0  # characters before the window
        self.closed = False  # has `goes_on` taken the closing bracket?

    @property
    def place(self) -> str:
        """Where the record begins that is being read."""
        return f"in the record at character {self._before + self._at:,}"

    def peek(self) -> str:
        """The next character that is no space; none at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read()

    def take(self, character: str) -> None:
        """Goes over ``character``, which must be the next."""
        found = self.peek()
        if found != character:
            raise ValueError(f"expected {character!r}, found {found!r}")
        self._at += 1

    def goes_on(self, closing: str) -> bool:
        """Is there another item, or does ``closing`` end them? Goes over the comma or bracket."""
        self.closed = self.peek() == closing
        self.take(closing if self.closed else ",")
        return not self.closed

    def items(self) -> Iterator[Any]:
        """The items of the list that begins here."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        more = True
        while more:
            yield self.value()
            more = self.goes_on("]")

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:  # else a number may go on
                    return self._checked(value, end)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self._text) - _SLACK or error.msg.startswith("Unterminated")
                if self._ended or not cut:
                    raise
            if len(self._text) - self._at > MAX_RECORD:
                detail = f"a record above {MAX_RECORD:,} characters"
                raise BadRecord(Reason.TOO_LARGE, detail)
            self._read()

    def _checked(self, value: Any, end: int) -> Any:
        begin, self._at = self._at, end
        if self._text.find("\\u", begin, end) >= 0:
            try:
                check_surrogates(value)
            except BadRecord as error:
                return error
        return value

    def _read(self) -> None:
        """Doubles what is left of the window, so that a record is decoded a few times at most."""
        left = self._text[self._at :]
        data = self._stream.read(max(_CHUNK, len(left)))
        self._ended = not data
        self._before += self._at
        self._text, self._at = left + self._decoder.decode(data, final=not data), 0
