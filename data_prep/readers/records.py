"""What every reader of pictures and captions yields."""

from typing import Any, NamedTuple

from data_prep.readers.images import Picture


class Record(NamedTuple):
    """A picture, named or found, and what is said about it; captions are not checked yet."""

    image: str  # as the source names it
    captions: tuple[Any, ...]
    line: int  # line, row or number in the source
    split: str = ""
    others: tuple[str, ...] = ()  # other names the picture may have, in this order
    picture: Picture | None = None  # where it lies, if the source holds it


class LeftOut(NamedTuple):
    """A record that is not wrong, but not wanted: of another split, never downloaded."""

    what: str  # "split 'test'"


class Guess(NamedTuple):
    """How a source is read that may be read otherwise too: for the screen."""

    what: str
