"""What every reader of pictures and captions yields."""

from typing import Any, NamedTuple

from data_prep.quarantine import BadRecord, Reason
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


def bad_caption(caption: object, number: int) -> BadRecord:
    """The error for a caption that is no text, or empty; ``number`` counts those of a picture."""
    if isinstance(caption, BadRecord):
        return caption
    if isinstance(caption, str):
        return BadRecord(Reason.EMPTY_CAPTION, f"caption {number} is empty")
    told = "null" if caption is None else f"no text, but {type(caption).__name__}"
    return BadRecord(Reason.MISSING_FIELD, f"caption {number} is {told}")
