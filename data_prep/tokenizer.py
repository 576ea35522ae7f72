"""Makes the tokenizer file that corpora and models share."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.quarantine import Bad
from data_prep.readers.formats import find_sources
from data_prep.readers.left_out import LeftOut, Tally
from data_prep.readers.pairs import holds_captions, pairs_of
from data_prep.readers.records import Guess
from data_prep.readers.text import DocumentReader
from unimo_ds.tokenizer import TOKENIZER_FILES, WordTokenizer, import_roberta, train_tokenizer


class Notes(NamedTuple):
    """What is to be told of the sources when they have been read."""

    bad: list[Bad]  # what could not be read or was left out
    guesses: list[str]  # how files were read that may be read otherwise too


def make_tokenizer(
    output: Path, files: Sequence[Path], vocab_size: int, notes: Notes
) -> WordTokenizer:
    """Learns a byte-level BPE from the texts and captions in ``files``, or imports the RoBERTa
    tokenizer in the folder that ``files`` is, and writes it to ``output``; adds to ``notes``
    what is to be told.

    Raises:
        ValueError: ``output`` exists, unreadable files, or an impossible ``vocab_size``.
    """
    if output.exists():
        raise ValueError(
            f"{output} exists: name a new file, corpora belong to the tokenizer they had"
        )
    if len(files) == 1 and any((files[0] / name).is_file() for name in TOKENIZER_FILES):
        tokenizer = import_roberta(files[0])
    else:
        tokenizer = train_tokenizer(_texts(files, notes), vocab_size)
    tokenizer.save(output)
    return tokenizer


def _texts(files: Sequence[Path], notes: Notes) -> Iterator[str]:
    tally = Tally()
    for file in files:
        if not holds_captions(file):
            reader = DocumentReader([file])
            for document in reader:
                if isinstance(document, Bad):
                    notes.bad.append(document)
                else:
                    yield document.text
            notes.guesses.extend(reader.guesses)
            continue
        for source in find_sources([file], captioned=True):
            notes.bad.extend(source.left_out)
            for entry in pairs_of(source):
                if isinstance(entry, LeftOut):
                    tally.add(source.path, entry)
                elif isinstance(entry, Bad):
                    notes.bad.append(entry)
                elif isinstance(entry, Guess):
                    notes.guesses.append(f"{source.path}: {entry.what}")
                else:
                    yield from entry.captions
    notes.bad.extend(tally.entries())
