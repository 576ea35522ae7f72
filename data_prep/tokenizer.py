"""Makes the tokenizer file that corpora and models share."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.quarantine import Bad
from data_prep.readers.pairs import read_pairs
from data_prep.readers.text import DocumentReader, parse_object
from unimo_ds.tokenizer import WordTokenizer, import_roberta, train_tokenizer


def make_tokenizer(output: Path, files: Sequence[Path], vocab_size: int) -> WordTokenizer:
    """Learns a byte-level BPE from the texts and captions in ``files``, or takes over the RoBERTa
    tokenizer in the folder that ``files`` is, and writes it to ``output``.

    Raises:
        ValueError: ``output`` exists, unreadable files, or an impossible ``vocab_size``.
    """
    if output.exists():
        raise ValueError(
            f"{output} exists: name a new file, corpora belong to the tokenizer they had"
        )
    if len(files) == 1 and (files[0] / "vocab.json").is_file():
        tokenizer = import_roberta(files[0])
    else:
        tokenizer = train_tokenizer(_texts(files), vocab_size)
    tokenizer.save(output)
    return tokenizer


def _texts(files: Sequence[Path]) -> Iterator[str]:
    for file in files:
        if _holds_captions(file):
            for pair in read_pairs(file):
                if not isinstance(pair, Bad):
                    yield from pair.captions
        else:
            yield from (d.text for d in DocumentReader([file]) if not isinstance(d, Bad))


def _holds_captions(file: Path) -> bool:
    if file.suffix == ".json":
        return True
    if file.suffix != ".jsonl" or not file.is_file():
        return False
    with file.open("rb") as stream:
        first = next((line for line in stream if line.strip()), b"{}")
    return bool({"captions", "caption"} & parse_object(first).keys())
