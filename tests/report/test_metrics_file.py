"""Reading a run folder."""

import json
from pathlib import Path

import pytest

from unimo_ds.report.metrics_file import ends, parse_metrics, read_run, series


def line(kind: str, step: int, **values: float | None) -> str:
    return json.dumps({"type": kind, "step": step, "seconds": step * 2.0, **values})


def test_last_line_of_a_repeated_step_wins_and_steps_are_sorted():
    texts = [
        line("train", 10, loss=5.0),
        line("train", 20, loss=4.0),
        line("train", 30, loss=9.0),
        line("heldout", 20, loss=7.0),
        line("train", 20, loss=3.0),  # resumed from step 10
    ]
    lines, unreadable = parse_metrics(texts)
    assert series(lines["train"], "loss") == ([10, 20, 30], [5.0, 3.0, 9.0])
    assert series(lines["heldout"], "loss") == ([20], [7.0])
    assert unreadable == 0


def test_null_and_missing_values_were_not_measured():
    texts = [line("train", 1, loss=None), line("train", 2, loss=2.0), line("train", 3)]
    lines, _ = parse_metrics(texts)
    assert series(lines["train"], "loss") == ([2], [2.0])


def test_a_torn_last_line_and_unknown_types_are_counted():
    texts = [line("train", 1, loss=1.0), "", line("other", 1), '{"type": "train", "st']
    lines, unreadable = parse_metrics(texts)
    assert len(lines["train"]) == 1
    assert unreadable == 2


def test_steps_that_were_skipped_are_metrics_too(tmp_path: Path):
    texts = [line("skipped", 3), line("train", 4, loss=1.0), line("skipped", 2), line("skipped", 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(texts))
    run = read_run(tmp_path)
    assert (run.skipped, run.unreadable, len(run.train)) == ([2, 3], 0, 1)


def test_what_was_skipped_counts_until_a_start_goes_back_before_it(tmp_path: Path):
    texts = [line("skipped", 3), line("skipped", 6), line("start", 4), line("skipped", 5)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(texts))
    assert (read_run(tmp_path).skipped, read_run(tmp_path).unreadable) == ([3, 5], 0)


def test_values_that_are_no_numbers_are_counted_and_left_out(tmp_path: Path):
    texts = [line("train", 1, loss=float("nan")), line("train", 2, loss=2.0)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(texts))
    run = read_run(tmp_path)
    assert run.not_finite == 1
    assert series(run.train, "loss") == ([2], [2.0])


def test_ends_are_means_over_a_twentieth_but_at_least_one_line():
    few, _ = parse_metrics([line("train", i, loss=float(i)) for i in range(1, 6)])
    assert ends(few["train"], "loss") == (1.0, 5.0)
    many, _ = parse_metrics([line("train", i, loss=float(i)) for i in range(1, 41)])
    assert ends(many["train"], "loss") == (1.5, 39.5)
    assert ends(many["train"], "loss/mlm") is None


def test_an_empty_folder_is_an_empty_run_and_no_folder_is_an_error(tmp_path: Path):
    run = read_run(tmp_path)
    assert (run.name, run.config, run.train, run.seconds) == (tmp_path.name, {}, [], 0.0)
    with pytest.raises(ValueError, match="is no run folder"):
        read_run(tmp_path / "missing")
