"""A command tells how far it is, also where its output is no terminal."""

import re
import time

from data_prep import console
from data_prep.engine import Options


def test_lines_say_the_stage_how_much_is_done_and_how_fast(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.05)
    out = tmp_path / "o"
    with console.building(out, Options(command=[]), 6472, 1, "images") as options:
        options.on_stage("a sample")
        time.sleep(0.2)
        options.on_stage("regions")
        options.progress(1024)
        time.sleep(0.2)
    with console.listing("pictures") as seen:
        seen(2000)
        time.sleep(0.2)
    with console.waiting("fetching sources"):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    patterns = (
        rf"{re.escape(str(out))}: a sample, 0/6,472 images, 0\.0/s, 0:00:00",
        rf"{re.escape(str(out))}: regions, 1,024/6,472 images, [\d,]+\.\d/s, 0:00:00",
        r"reading, 2,000 pictures, [\d,]+\.\d/s, 0:00:00",
        r"fetching sources, 0:00:00",
    )
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), (pattern, lines)
    assert not out.exists()
