"""Makes the tokenizer file that corpora and models share."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.quarantine import Bad
from data_prep.readers.formats import find_sources
from data_prep.readers.left_out import LeftOut, Tally
from data_prep.readers.pairs import holds_captions, pairs_of
from data_prep.readers.text import DocumentReader
from unimo_ds.tokenizer import TOKENIZER_FILES, WordTokenizer, import_roberta, train_tokenizer


def make_tokenizer(
    output: Path, files: Sequence[Path], vocab_size: int, bad: list[Bad]
) -> WordTokenizer:
    """Learns a byte-level BPE from the texts and captions in ``files``, or imports the RoBERTa
    tokenizer in the folder that ``files`` is, and writes it to ``output``; appends what could not
    be read or was left out to ``bad``.

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
        tokenizer = train_tokenizer(_texts(files, bad), vocab_size)
    tokenizer.save(output)
    return tokenizer


def _texts(files: Sequence[Path], bad: list[Bad]) -> Iterator[str]:
    tally = Tally()
    for file in files:
        if not holds_captions(file):
            for document in DocumentReader([file]):
                if isinstance(document, Bad):
                    bad.append(document)
                else:
                    yield document.text
            continue
        for source in find_sources([file], captioned=True):
            bad += source.left_out
            for entry in pairs_of(source):
                if isinstance(entry, LeftOut):
                    tally.add(source.path, entry)
                elif isinstance(entry, Bad):
                    bad.append(entry)
                else:
                    yield from entry.captions
    bad += tally.entries()
