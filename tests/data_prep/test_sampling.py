"""Which rows a page looks at, and how lengths are counted."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.inspect.charts import length_bins, share_bins
from data_prep.inspect.sampling import grid_of, lengths_at, sample_rows
from data_prep.lengths import Lengths
from unimo_ds.data.shards import open_corpus
from unimo_ds.pixels import PixelGrid


@given(st.lists(st.integers(0, 400), min_size=1, max_size=50), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_counted_lengths_say_what_the_lengths_say(lengths, bins):
    found = Lengths(np.bincount(lengths))
    assert (found.rows, found.total) == (len(lengths), sum(lengths))
    assert (found.shortest, found.longest) == (min(lengths), max(lengths))
    assert found.percentile(0.5) == sorted(lengths)[(len(lengths) - 1) // 2]
    histogram = found.histogram(bins)
    assert len(histogram) <= bins
    for low, high, count in histogram:
        assert count == sum(low <= length <= high for length in lengths)
    assert sum(count for *_, count in histogram) == len(lengths)
    drawn = length_bins(found.counts)
    assert len(drawn) <= 26 and sum(count for _, count in drawn) == len(lengths)


def test_shares_are_binned_with_both_ends():
    assert share_bins(np.array([0, 0.01, 0.99, 1.0]), 2) == [("0", 2), ("50", 2)]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    count=st.integers(1, 40),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_sample_is_some_of_the_rows_each_once(sizes, count, seed):
    class Corpus:
        """As far as sampling looks at one."""

        folder = Path("nowhere")

        def __len__(self):
            return sum(sizes)

    class Shard(NamedTuple):
        rows: int

    class Kept(NamedTuple):
        shards: list[Shard]

    corpus = Corpus()
    corpus.manifest = Kept([Shard(size) for size in sizes])
    rows = sample_rows(corpus, count, seed, purpose=0)
    assert rows == sorted(set(rows)) and 0 <= rows[0] <= rows[-1] < sum(sizes)
    if len(sizes) <= 48:
        assert len(rows) == min(count, sum(sizes))
    assert rows == sample_rows(corpus, count, seed, purpose=0)


def test_lengths_of_some_rows(prep, write_lines, sentences, tokenizer_file, tmp_path):
    source = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in sentences * 3])
    arguments = ("--tokenizer", tokenizer_file, "--rows-per-shard", 4)
    assert prep("text", tmp_path / "c", source, *arguments).code == 0
    corpus = open_corpus(tmp_path / "c")
    assert len(corpus.manifest.shards) == 3
    wanted = [8, 0, 5, 5, 3]
    assert lengths_at(corpus, wanted) == corpus.lengths[wanted].tolist()
    with pytest.raises(ValueError, match="no row 9"):
        lengths_at(corpus, [9])


def test_grids_are_told_from_boxes():
    assert grid_of(PixelGrid(grid=7).boxes()) == (7, 7)
    assert grid_of(PixelGrid(grid=1).boxes()) == (1, 1)
    boxes = PixelGrid(grid=4).boxes()
    for wrong in (boxes[::-1], boxes[:-1], boxes[:0], boxes * 0):
        assert grid_of(wrong) == (0, 0)
    wide = np.array([[0, 0, 0.5, 1, 0.5], [0.5, 0, 1, 1, 0.5]], np.float32)
    assert grid_of(wide) == (2, 1)
