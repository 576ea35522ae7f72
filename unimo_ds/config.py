"""What a run is: one TOML file -> frozen dataclasses, overridden by ``key=value``.

Every field stands here once, with its meaning; every check names both numbers and the remedy.
"""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import GenericAlias
from typing import Any, get_args, get_origin, get_type_hints

from unimo_ds.config_rules import check


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The Transformer; names as in Hugging Face's RoBERTa."""

    vocab_size: int = 50_265
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    max_position_embeddings: int = 514  # two are RoBERTa's offset: 512 words
    image_feature_size: int = 2048  # F
    image_class_size: int = 1601  # K
    score: str = "cosine"  # of image and text: "cosine", or the paper's "match" head
    temperature: float = 0.07  # learned from here on
    init: str = ""  # a Hugging Face folder to start from; random if empty


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The corpora (folders or URLs), and how often each kind comes."""

    tokenizer: str = ""
    texts: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    heldout_pairs: list[str] = field(default_factory=list)  # never trained on
    text_weight: int = 1
    image_weight: int = 1
    pair_weight: int = 5
    max_regions: int = 100
    max_tokens: int = 512  # with [CLS] and [SEP]
    cache: str = ""  # for corpora at URLs; empty: $UNIMO_CACHE or ~/.cache/unimo_ds
    workers: int = 1  # of a rank, build batches ahead: 1 a thread, more processes; 0 = in the loop


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How much goes into a step. None of it depends on the number of ranks."""

    samples: int = 256  # per optimizer step, all kinds together
    rows: int = 8  # packed rows per micro-step over all ranks; the ranks must divide it
    tokens_per_row: int = 8192  # the most positions of a row: more micro-steps are made beyond it
    round_to: int = 64  # rows are padded to a multiple of this


@dataclass(frozen=True, kw_only=True)
class CorruptionConfig:
    """What is hidden from the model (Li et al. 2021, sections 2.2 and 2.3)."""

    mlm_probability: float = 0.15
    span_geometric_p: float = 0.2
    span_max_words: int = 10
    phrases: bool = True  # spans are of phrases and words where `unimo-prep --phrases` marked them
    seq2seq_share: float = 0.5  # of texts and captions; the others get MLM
    seq2seq_ratio: float = 0.25  # of a text's tokens
    fragment_min: int = 4
    fragment_max: int = 32
    region_probability: float = 0.15
    region_overlap: float = 0.3  # regions that overlap a masked anchor more than this go with it


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Cross-modal contrastive learning (Li et al. 2021, section 2.1)."""

    captions: int = 1  # individually encoded captions per pair, all positives of its image
    retrieved_texts: int = 0  # individually encoded, weak positives of the image
    retrieved_images: int = 0  # individually encoded, weak positives of its captions
    # Jointly encoded with the image, beside one of its captions; negatives of a level that a pair
    # has no rewrite of are captions of other images:
    joint_positives: int = 1  # other captions of the image
    rewritten_positives: int = 0  # rewritten captions that say the same; or other captions again
    word_negatives: int = 0  # rewritten captions that are wrong in a word,
    phrase_negatives: int = 0  # in a phrase,
    sentence_negatives: int = 0  # or throughout
    other_negatives: int = 1  # captions of other images
    # 0: rewrites from the first step; else captions of other images give way to them level by
    # level within so many steps, sentences first and words last:
    hardness_steps: int = 0
    in_batch_negatives: bool = True  # the similarity matrix over the data-parallel group
    softmax: str = "separate"  # scored pairs and matrix: one softmax each, or "shared"
    exchange: str = "gather"  # of all embeddings at once, or "ring": one rank after the other


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the objectives; 0 switches one off (it still runs, every step, on every rank)."""

    mlm: float = 1.0
    seq2seq: float = 1.0
    mrfr: float = 1.0
    mrc: float = 1.0
    cmcl: float = 1.0


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, linear warm-up, linear decay to zero."""

    lr: float = 5e-5
    warmup_steps: int = 10_000
    weight_decay: float = 0.01  # not on biases, LayerNorm and the temperature
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    grad_clip: float = 1.0  # of the global norm; 0 = none


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop."""

    steps: int = 500_000
    stop_after: int = 0  # stop with a checkpoint after this step, as if killed; 0 = at the end
    skip_steps: list[int | str] = field(default_factory=list)  # not trained on: 120 or "120-125"
    precision: str = "bf16"  # or "fp32"
    deepspeed: str = "ds_configs/zero3.json"  # empty: plain torch, one process
    activation_checkpointing: bool = False
    attention: str = "auto"  # backend of unimo_kernels.attention
    log_every: int = 10
    eval_every: int = 5000
    save_every: int = 5000
    keep_checkpoints: int = 3
    heldout_candidates: int = 1000  # images and texts that held-out retrieval searches
    timeout_minutes: float = 30.0  # a rank that waits longer than this for another ends the run
    threads: int = 0  # torch's own, per rank; 0 = the machine's cores shared among its ranks


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run."""

    name: str = "run"
    folder: str = "runs"
    seed: int = 1
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    cmcl: ContrastConfig = field(default_factory=ContrastConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def run_folder(self) -> Path:
        return Path(self.folder) / self.name

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in the TOML file ``path`` with ``section.key=value`` overrides, checked.

    Values of overrides are TOML (``train.steps=30``, ``data.pairs=["a", "b"]``); what is no TOML is
    a string.

    Raises:
        ValueError: unreadable file, unknown key, wrong type, or values that do not go together.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no configuration at {path}; the built-in ones are in unimo_ds/configs")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    for override in overrides:
        _override(values, override)
    config = config_from_dict(values)
    check(config)
    return config


def config_from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The unchecked configuration that ``values`` (nested dicts) describes."""
    return _build(RunConfig, values, "")


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"override {override!r} is not of the form key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"override {override!r}: {section} is a value, not a section")
    values[name] = value


def _build(cls: type[Any], values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(cls)
    for name in values:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1, cutoff=0.0)
            raise ValueError(
                f"unknown key {prefix}{name}; the nearest known one is {prefix}{near[0]}"
            )
    arguments = {}
    for name, value in values.items():
        kind = hints[name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{name} is a section, not the value {value!r}")
            arguments[name] = _build(kind, value, f"{prefix}{name}.")
        else:
            arguments[name] = _typed(kind, value, prefix + name)
    return cls(**arguments)


def _typed(kind: type | GenericAlias, value: Any, name: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(kind) is list:
        if isinstance(value, list) and all(_is(get_args(kind)[0], item) for item in value):
            return value
    elif _is(kind, value):
        return value
    expected = getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)
    raise ValueError(f"{name} = {value!r} is {type(value).__name__}, expected {expected}")


def _is(kind: Any, value: Any) -> bool:
    """Is ``value`` of ``kind``? ``True`` is no number."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
