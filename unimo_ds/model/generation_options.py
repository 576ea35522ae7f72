"""Which options of `transformers`' generation UNIMO cannot follow, and why.

Some of them end in an error far away, and some go wrong without one: they would be left out of
account, or look at the target where they mean the source.
"""

from collections.abc import Mapping
from typing import Any

from transformers import Cache, DynamicCache, GenerationConfig

DYNAMIC = "dynamic"
_ONE_WORD = "it computes one word after the other, and proposes none"
_SOURCE = "it looks at the source, which UNIMO gives apart from the target"
_KEPT = "no layer keeps them"
_REFUSED: dict[str, tuple[Any, str]] = {
    # name: the value that asks for nothing, and why another cannot be followed
    "assistant_model": (None, _ONE_WORD),
    "assistant_early_exit": (None, _ONE_WORD),
    "prompt_lookup_num_tokens": (None, _ONE_WORD),
    "encoder_repetition_penalty": (1.0, _SOURCE),
    "encoder_no_repeat_ngram_size": (0, _SOURCE),
    "guidance_scale": (1.0, _SOURCE),
    "negative_prompt_ids": (None, _SOURCE),
    "output_attentions": (False, _KEPT),
    "output_hidden_states": (False, _KEPT),
    "position_ids": (None, "positions are counted from the words that are there"),
    "inputs": (None, "the source is called input_ids, the target begins with [CLS]"),
}

_CACHE = (
    "UNIMO's cache grows with source and target; static caches (static, sliding_window, "
    "offloaded_static), offloaded, quantized and paged ones do not work"
)


def check_options(
    options: Mapping[str, Any], defaults: GenerationConfig, first_word: int | None
) -> None:
    """Refuses options that would be left out of account, or mean something else here.

    Args:
        options: of generate; None is the default.
        defaults: of the model, where neither ``options`` nor their ``generation_config`` say more.
        first_word: the id of the word that every target begins with.

    Raises:
        ValueError: names the option, what it is, and what may stand there.
    """

    def value_of(name: str) -> Any:
        given = options.get("generation_config")
        named = (options.get(name), getattr(given, name, None), getattr(defaults, name, None))
        return next((value for value in named if value is not None), None)

    for name, (neutral, reason) in _REFUSED.items():
        value = value_of(name)
        if value is not None and (neutral is None or value != neutral):
            raise ValueError(
                f"generate({name}=...) does not work with UNIMO: {reason}; leave it out"
            )
    for name in ("bos_token_id", "decoder_start_token_id"):
        if (value := value_of(name)) not in (None, first_word):
            raise ValueError(
                f"generate({name}={value}): every target of UNIMO begins with [CLS], {first_word}; "
                "leave it out"
            )
    if (kind := value_of("cache_implementation")) not in (None, DYNAMIC):
        raise ValueError(
            f"generate(cache_implementation={kind!r}): {_CACHE}; leave it out, or say {DYNAMIC!r}"
        )


def check_cache(cache: Cache | None) -> None:
    """Refuses caches that give back other keys than those of the filled columns.

    Raises:
        ValueError: names the cache's class.
    """
    if cache is not None and not isinstance(cache, DynamicCache):
        raise ValueError(f"{type(cache).__name__}: {_CACHE}; give a DynamicCache, or none")
