"""Dropout's specification: known answers, and a keep mask that is a function of the place alone."""

import pytest
import torch

from unimo_kernels.philox import drop_threshold, keep_mask, keep_scale, philox

# Random123, kat_vectors, philox4x32 10.
KNOWN = {
    "zeros": ("00000000 00000000", "00000000 " * 4, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": ("ffffffff ffffffff", "ffffffff " * 4, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": (
        "a4093822 299f31d0",
        "243f6a88 85a308d3 13198a2e 03707344",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
}


def _words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize("name", KNOWN)
def test_philox_gives_the_known_answers(name: str) -> None:
    key, counter, answer = (_words(words) for words in KNOWN[name])
    k0, k1 = key
    c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
    assert [int(word) for word in philox((k0, k1), (c0, c1, c2, c3))] == answer


@pytest.mark.parametrize("seed", [0, 5, 2**32 + 5, 2**63 - 1])
def test_a_weight_is_kept_by_its_byte_of_the_four_words(seed: int) -> None:
    heads, length, p = 3, 37, 0.35
    mask = keep_mask(seed, heads, length, p)
    assert mask.shape == (heads, length, length)
    for h, i, j in [(0, 0, 0), (1, 2, 3), (2, 36, 15), (0, 17, 16), (2, 9, 33), (1, 36, 36)]:
        counter = tuple(torch.tensor(word) for word in (j // 16, i, h, 0))
        words = philox((seed % 2**32, seed // 2**32), counter)  # type: ignore[arg-type]
        stream = b"".join(int(word).to_bytes(4, "little") for word in words)
        assert bool(mask[h, i, j]) == (stream[j % 16] >= round(256 * p))


def test_every_head_query_key_and_seed_has_its_own_draw() -> None:
    mask = keep_mask(9, 4, 64, 0.5)
    rows = [*mask.flatten(0, 1), *mask.transpose(1, 2).flatten(0, 1)]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)
    for other in (10, 9 + 2**32):
        assert 0.4 < float((mask == keep_mask(other, 4, 64, 0.5)).double().mean()) < 0.6


def test_the_mask_does_not_depend_on_the_length_of_the_row() -> None:
    assert torch.equal(keep_mask(3, 2, 21, 0.3), keep_mask(3, 2, 40, 0.3)[:, :21, :21])
    assert keep_mask(3, 2, 0, 0.3).shape == (2, 0, 0)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_the_share_and_the_mean_are_those_of_the_rounded_probability(p: float) -> None:
    kept = keep_mask(1, 8, 256, p).double()
    share = 1 - round(256 * p) / 256
    assert float(kept.mean()) == pytest.approx(share, abs=5 * (0.25 / kept.numel()) ** 0.5)
    assert keep_scale(p) * share == pytest.approx(1)


def test_thresholds_are_256ths() -> None:
    assert [drop_threshold(p) for p in (0, 0.1, 0.25, 0.5, 0.998)] == [0, 26, 64, 128, 255]


@pytest.mark.parametrize(
    "p, message",
    [
        (0.9981, "rounds to 256/256 and would drop every weight: the most is"),
        (0.0019, "rounds to 0/256 and would drop no weight: the least is 1/256 = 0.00390625"),
        (1e-9, "rounds to 0/256"),
        (1.0, "no probability from 0 to below 1"),
        (-0.001, "no probability from 0 to below 1"),
        (float("nan"), "no probability from 0 to below 1"),
    ],
)
def test_probabilities_that_keep_nothing_are_refused(p: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drop_threshold(p)
