"""Runs a build under a clock; what must hold after any of them."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_prep.verify import damage
from tests.data_prep.conftest import Ran
from tests.data_prep.hostile.inputs import Input, Tools, small_words

SECONDS = 60
CODES = (0, 1, 2, 3)


@pytest.fixture(scope="session")
def tools(tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    folder = tmp_path_factory.mktemp("words")
    return Tools(tokenizer_file, small_words(folder / "visual_words.npy"))


@contextmanager
def _clock() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"not done after {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


@pytest.fixture
def attempt(prep: Callable[..., Ran], tmp_path: Path) -> Callable[[Input], Ran]:
    """Builds ``tmp_path / "out"``: it ends in a corpus that is whole or in an error that says why.

    Every other exception than the command's own exit comes through and fails the test.
    """

    def run(given: Input) -> Ran:
        out = tmp_path / "out"
        with _clock():
            ran = prep(given.command, out, *given.sources, *given.options)
        assert ran.code in CODES
        assert "Traceback" not in ran.err and "Traceback" not in ran.out
        if ran.code == 0:
            assert list(damage(out)) == []
        else:
            assert "error:" in ran.err or "stopped:" in ran.err, ran.err
            assert not (out / "manifest.json").exists()
        return ran

    return run
