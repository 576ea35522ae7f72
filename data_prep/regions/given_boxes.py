"""Which boxes of a file belong to which picture."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.boxes import BoxSet, read_boxes
from data_prep.readers.images import Picture
from data_prep.regions.class_names import Vocabulary
from data_prep.regions.maps import BoxedPicture


def with_boxes(
    pictures: Sequence[Picture], file: Path, vocabulary: Vocabulary | None
) -> tuple[list[BoxedPicture], list[Bad]]:
    """The pictures that have boxes, with them, and entries for the others and for broken boxes.

    A picture's boxes are those of its id, else those of its file's name without the folder. Boxes
    of pictures that are not asked for are left out.

    Raises:
        ValueError: no picture has boxes; ``file`` is none of boxes; classes are asked for, but it
            has none.
    """
    owners = _owners(pictures)
    found: dict[str, list[BoxSet]] = {}  # picture id -> its boxes
    bad: list[Bad] = []
    seen = ""
    for entry in read_boxes(file):
        if isinstance(entry, BoxSet):
            seen = seen or entry.image
            if entry.image in owners and len(entry.boxes):
                found.setdefault(owners[entry.image], []).append(entry)
        elif not entry.record or entry.record in owners:
            bad.append(entry)
    boxed = []
    for picture in pictures:
        try:
            boxed.append(_boxed(picture, found.get(picture.id, ()), file, vocabulary))
        except BadRecord as error:
            bad.append(error.at(picture.source, picture.line, picture.id))
    if not boxed:
        raise ValueError(
            f"--boxes {file} has no box of any picture: it names them like {seen!r}, the pictures "
            f"here are named like {pictures[0].id!r}"
        )
    return boxed, bad


def _owners(pictures: Sequence[Picture]) -> dict[str, str]:
    """Name that boxes may have -> id of the picture: its id, or its file's name if no other picture
    has that."""
    owners: dict[str, str] = {}
    for picture in pictures:
        name = PurePosixPath(picture.id).name
        owners[name] = "" if name in owners else picture.id
    unique = {name: picture for name, picture in owners.items() if picture}
    return unique | {picture.id: picture.id for picture in pictures}


def _boxed(
    picture: Picture, sets: Sequence[BoxSet], file: Path, vocabulary: Vocabulary | None
) -> BoxedPicture:
    if not sets:
        raise BadRecord(Reason.NO_BOXES, f"{file} has no box of it")
    first = sets[0]
    if any(found.normalised != first.normalised for found in sets):
        raise BadRecord(Reason.BAD_BOX, f"{file} has boxes of it in pixels, and others in shares")
    boxes = tuple(tuple(map(float, box)) for found in sets for box in found.boxes)
    if vocabulary is None:
        return BoxedPicture(picture, boxes, first.normalised, (), first.size)
    names = [name for found in sets for name in found.classes]
    if len(names) != len(boxes):
        raise ValueError(
            f"--class-names: {first.source}, line {first.line} has no classes for the boxes of "
            f"{first.image}: leave --class-names out, regions then get visual words"
        )
    ids = tuple(vocabulary.id_of(name) for name in names)
    return BoxedPicture(picture, boxes, first.normalised, ids, first.size)
