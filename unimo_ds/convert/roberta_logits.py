"""Whether a converted model says what its RoBERTa says.

Legend: B samples · L words · N words that are there · V words of the vocabulary
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import RobertaForMaskedLM

from unimo_ds.batch import FIRST_POSITION
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.modeling import UnimoForMaskedLM
from unimo_ds.model.padded import check_padded, pack
from unimo_ds.tokenizer import (
    CLS_ID,
    NUM_LEADING_SPECIALS,
    PAD_ID,
    SEP_ID,
    TOKENIZER_FILES,
    UNK_ID,
    load_tokenizer,
)

TOLERANCE = 1e-4
"""The largest difference of a logit that ``verify`` accepts."""

_SENTENCES = (
    " A woman with a red umbrella walks her two dogs past the café at 7:45.",
    " Three children, none older than six, are building a sand castle; the tide isn't far.",
    " An empty train station.",
)
"""What ``verify`` shows both models; each begins with a space, as a word in a text does."""


@torch.no_grad()
def largest_difference(source: Path, destination: Path, seed: int = 1) -> float:
    """The largest difference of a logit between both models, on texts of uneven lengths.

    The texts are sentences where the UNIMO folder has a tokenizer, and else random words, with all
    special words among them. The UNIMO model is asked twice: padded, and as one packed row.
    """
    roberta = RobertaForMaskedLM.from_pretrained(source, dtype=torch.float32).eval()
    unimo = UnimoForMaskedLM.from_pretrained(destination, dtype=torch.float32).eval()
    config = unimo.config
    ids_BL = verified_texts(destination, config, seed)
    mask_BL = ids_BL != config.pad_token_id
    expected_NV = roberta(ids_BL, attention_mask=mask_BL.long()).logits[mask_BL]
    padded_NV = unimo(ids_BL, mask_BL).logits[mask_BL]
    batch, _ = pack(check_padded(config, ids_BL, mask_BL, None, None, None), config)
    packed_NV = unimo.language_head(unimo.unimo(batch))
    return max(float((found - expected_NV).abs().max()) for found in (padded_NV, packed_NV))


def verified_texts(folder: Path, config: UnimoConfig, seed: int) -> Tensor:
    """int64 [B, L]: [CLS] words [SEP] with [MASK], [UNK], [SEP] and [PAD] among the words.

    The first text has the most words that the model can place, up to 64; the last is padded on
    the left, the others on the right.
    """
    longest = min(64, config.max_position_embeddings - FIRST_POSITION)
    generator = torch.Generator().manual_seed(seed)
    lengths = longest, longest - 1, longest // 2, max(1, longest // 5)
    texts = [
        torch.randint(NUM_LEADING_SPECIALS, config.vocab_size, (n,), generator=generator)
        for n in lengths
    ]
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        texts[1:] = [torch.tensor(ids) for ids in load_tokenizer(folder).encode(_SENTENCES)]
    ids_BL = torch.full((len(texts), longest), PAD_ID)
    specials = torch.tensor([config.mask_token_id, UNK_ID, SEP_ID, PAD_ID])
    for i, words in enumerate(texts):
        inner = words[: longest - 2].clone()
        at = torch.randperm(len(inner), generator=generator)[: len(specials)]
        inner[at] = specials[: len(at)]
        text = torch.cat([torch.tensor([CLS_ID]), inner, torch.tensor([SEP_ID])])
        ids_BL[i, slice(-len(text), None) if i == len(texts) - 1 else slice(len(text))] = text
    return ids_BL
