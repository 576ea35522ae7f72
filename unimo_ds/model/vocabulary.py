"""The words of a model are those of the tokenizer beside it."""

from pathlib import Path

from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.tokenizer import MASK, WordTokenizer, load_tokenizer


def check_vocabulary(config: UnimoConfig, words: WordTokenizer, folder: Path) -> None:
    """Refuses a model whose words are not those of the tokenizer beside it.

    Raises:
        ValueError: another number of words (a padded vocabulary), or another [MASK].
    """
    if (words.vocab_size, words.mask_id) != (config.vocab_size, config.mask_token_id):
        raise ValueError(
            f"{folder}: the tokenizer has {words.vocab_size} words, the last of them {MASK}; the "
            f"model has {config.vocab_size}, {MASK} being {config.mask_token_id}: they must be the "
            "same (a padded vocabulary is cut by `resize_token_embeddings` of transformers, "
            "saved, and converted with `unimo-convert roberta`)"
        )


def folder_words(folder: Path) -> WordTokenizer:
    """The tokenizer in a model's folder, whose words are those of the model.

    Raises:
        ValueError: none there, or that of another model.
    """
    words = load_tokenizer(folder)
    if (folder / "config.json").is_file():
        check_vocabulary(UnimoConfig.from_pretrained(folder), words, folder)
    return words
