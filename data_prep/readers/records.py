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
    subject: str = ""  # what ``others`` are guesses for, if it is not ``image``: a URL


class Guess(NamedTuple):
    """How a source is read that may be read otherwise too: for the screen."""

    what: str
