"""Which values of a configuration cannot work, and what to do about them."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unimo_ds.config import ContrastConfig, RunConfig, TrainConfig


def check(config: "RunConfig") -> None:
    """Refuses values that cannot work.

    Raises:
        ValueError: with both numbers and the remedy.
    """
    _check_model(config)
    _check_data(config)
    _check_choices(config)
    _check_ranges(config)
    skipped_steps(config.train)


def _check_model(config: "RunConfig") -> None:
    model = config.model
    if model.hidden_size % model.num_attention_heads:
        raise ValueError(
            f"model.hidden_size {model.hidden_size} is not a multiple of model.num_attention_heads "
            f"{model.num_attention_heads}: change one of them"
        )
    words = model.max_position_embeddings - 2
    if config.data.max_tokens > words:
        raise ValueError(
            f"data.max_tokens {config.data.max_tokens} is more than the {words} words that "
            f"model.max_position_embeddings {model.max_position_embeddings} can place (two are the "
            "offset): lower the one or raise the other"
        )


def _check_data(config: "RunConfig") -> None:
    data = config.data
    if not data.tokenizer:
        raise ValueError("data.tokenizer is empty: name the file that `unimo-prep tokenizer` wrote")
    for kind in ("text", "image", "pair"):
        weight, corpora = getattr(data, f"{kind}_weight"), getattr(data, f"{kind}s")
        if weight < 0:
            raise ValueError(f"data.{kind}_weight {weight} is negative; 0 leaves {kind}s out")
        if weight and not corpora:
            raise ValueError(
                f"data.{kind}_weight is {weight} but data.{kind}s names no corpus: add one or set "
                f"data.{kind}_weight=0"
            )
    if not data.text_weight + data.image_weight + data.pair_weight:
        raise ValueError("all three of data.text_weight, image_weight and pair_weight are 0")
    longest = _longest_pair(config)
    if config.batch.tokens_per_row < longest:
        raise ValueError(
            f"batch.tokens_per_row {config.batch.tokens_per_row} cannot hold one pair with all "
            f"that is encoded for it, up to {longest} positions: raise it, or lower "
            "data.max_tokens, data.max_regions or the counts under cmcl"
        )
    cmcl = config.cmcl
    if cmcl.retrieved_texts + cmcl.retrieved_images and not cmcl.captions:
        raise ValueError(
            "cmcl.retrieved_texts and cmcl.retrieved_images are positives of what cmcl.captions "
            "encodes, which is 0: raise it, or set them to 0"
        )


def _longest_pair(config: "RunConfig") -> int:
    """Positions that a pair takes at most, with all that it is compared with."""
    cmcl, text, image = config.cmcl, config.data.max_tokens, config.data.max_regions + 1
    masked = image + 2 * text  # fragments may stand in it twice
    alone = image * (1 + cmcl.retrieved_images) + text * (cmcl.captions + cmcl.retrieved_texts)
    positives = 1 + cmcl.joint_positives + cmcl.rewritten_positives
    return masked + alone + (image + text) * (positives + num_negatives(cmcl))


def num_negatives(cmcl: "ContrastConfig") -> int:
    """Jointly encoded negatives of a pair."""
    levels = cmcl.word_negatives + cmcl.phrase_negatives + cmcl.sentence_negatives
    return levels + cmcl.other_negatives


_ATTENTION = ("auto", "reference", "sdpa", "flash_attn", "flex", "triton")


def _check_choices(config: "RunConfig") -> None:
    for name, value, choices in (
        ("model.score", config.model.score, ("cosine", "match")),
        ("cmcl.softmax", config.cmcl.softmax, ("separate", "shared")),
        ("cmcl.exchange", config.cmcl.exchange, ("gather", "ring")),
        ("train.precision", config.train.precision, ("bf16", "fp32")),
        ("train.attention", config.train.attention, _ATTENTION),
    ):
        if value not in choices:
            raise ValueError(f"{name} = {value!r}, expected one of {', '.join(choices)}")


_POSITIVE = (
    "model.vocab_size model.hidden_size model.num_hidden_layers model.num_attention_heads "
    "model.intermediate_size model.image_feature_size model.image_class_size model.temperature "
    "data.max_regions data.max_tokens batch.samples batch.rows batch.tokens_per_row batch.round_to "
    "corruption.span_max_words corruption.fragment_min optim.lr optim.eps train.steps "
    "train.log_every train.eval_every train.save_every train.keep_checkpoints "
    "train.heldout_candidates train.timeout_minutes"
)
_NOT_NEGATIVE = (
    "data.workers cmcl.captions cmcl.retrieved_texts cmcl.retrieved_images cmcl.joint_positives "
    "cmcl.rewritten_positives cmcl.word_negatives cmcl.phrase_negatives cmcl.sentence_negatives "
    "cmcl.other_negatives cmcl.hardness_steps loss.mlm loss.seq2seq loss.mrfr loss.mrc loss.cmcl "
    "optim.warmup_steps optim.weight_decay optim.grad_clip train.threads train.stop_after"
)
_PROBABILITIES = (
    "model.hidden_dropout_prob model.attention_probs_dropout_prob corruption.mlm_probability "
    "corruption.span_geometric_p corruption.seq2seq_share corruption.seq2seq_ratio "
    "corruption.region_probability corruption.region_overlap optim.beta1 optim.beta2"
)


def _check_ranges(config: "RunConfig") -> None:
    def value_of(name: str) -> float:
        section, key = name.split(".")
        return getattr(getattr(config, section), key)

    for name in _POSITIVE.split():
        if not value_of(name) > 0:
            raise ValueError(f"{name} = {value_of(name)}, expected more than 0")
    for name in _NOT_NEGATIVE.split():
        if not value_of(name) >= 0:
            raise ValueError(f"{name} = {value_of(name)}, expected 0 or more")
    for name in _PROBABILITIES.split():
        if not 0 <= value_of(name) <= 1:
            raise ValueError(f"{name} = {value_of(name)}, expected a share between 0 and 1")
    corruption, optim, train = config.corruption, config.optim, config.train
    if corruption.fragment_min > corruption.fragment_max:
        raise ValueError(
            f"corruption.fragment_min {corruption.fragment_min} is more than fragment_max "
            f"{corruption.fragment_max}"
        )
    if optim.warmup_steps >= train.steps:
        raise ValueError(
            f"optim.warmup_steps {optim.warmup_steps} does not end before train.steps "
            f"{train.steps}: lower the one or raise the other"
        )


def skipped_steps(train: "TrainConfig") -> frozenset[int]:
    """The steps that ``train.skip_steps`` names, counted from 1 as the log counts them.

    Raises:
        ValueError: what is neither a step of the run nor a range of steps.
    """
    skipped: set[int] = set()
    for item in train.skip_steps:
        bounds = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", str(item))
        if not bounds:
            raise ValueError(
                f"train.skip_steps names {item!r}, expected a step such as 120 or a range such as "
                '"120-125"'
            )
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        if not 1 <= first <= last <= train.steps:
            raise ValueError(
                f"train.skip_steps names {item!r}, expected steps from 1 to train.steps "
                f"{train.steps}, the lower one first"
            )
        skipped.update(range(first, last + 1))
    return frozenset(skipped)
