"""Damaged inputs of every kind: a whole corpus or a clear error comes of them, nothing else."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.quarantine import Reason, read_quarantine
from tests.data_prep.conftest import Ran
from tests.data_prep.hostile.inputs import INPUTS, Input, Tools
from tests.data_prep.hostile.mutations import mutated

SEEDS = range(8)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.parametrize("kind", INPUTS)
def test_what_is_whole_is_built(
    kind: str, tmp_path: Path, tools: Tools, attempt: Callable[[Input], Ran]
) -> None:
    """Else the damaged ones would show nothing."""
    (tmp_path / "in").mkdir()
    assert attempt(INPUTS[kind](tmp_path / "in", tools)).code == 0
    entries = read_quarantine(tmp_path / "out")  # files of other kinds are told, not damaged
    assert [entry for entry in entries if entry.reason is not Reason.LEFT_OUT] == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", INPUTS)
def test_damage_ends_in_a_whole_corpus_or_a_clear_error(
    kind: str, seed: int, tmp_path: Path, tools: Tools, attempt: Callable[[Input], Ran]
) -> None:
    (tmp_path / "in").mkdir()
    given = INPUTS[kind](tmp_path / "in", tools)
    rng = random.Random(f"{kind} {seed}")
    # The file that the command names counts most; then those that it names or lies beside.
    named = [path for path in given.sources if path.is_file()] or _files(given.sources[0])
    victim = rng.choice(named if seed % 4 else _files(tmp_path / "in"))
    victim.write_bytes(mutated(victim.read_bytes(), rng.randrange(1 << 32)))
    attempt(given)
