"""Which samples share a row: nothing lost, nothing over the budget, rows nearly equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimo_ds.data.packing import pack

lengths_and_rows = st.tuples(st.lists(st.integers(1, 100), max_size=80), st.integers(1, 5))


@given(lengths_and_rows, st.integers(100, 400))
def test_every_sample_has_one_row_within_the_budget(given_, budget):
    lengths, rows = given_
    packed = pack(lengths, rows, budget)
    assert sorted(i for row in packed for i in row) == list(range(len(lengths)))
    assert len(packed) % rows == 0
    assert all(sum(lengths[i] for i in row) <= budget for row in packed)


def test_rows_are_nearly_equal():
    lengths = [20 + i * 7 % 90 for i in range(400)]
    loads = [sum(lengths[i] for i in row) for row in pack(lengths, 8, 10_000)]
    assert max(loads) - min(loads) <= 20


def test_more_than_a_budget_makes_more_micro_steps():
    assert len(pack([50] * 8, 2, 100)) == 4
    assert len(pack([50] * 9, 2, 100)) == 6


def test_a_sample_that_fits_no_row_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"sample of 101 positions does not fit .* 100"):
        pack([5, 101], 2, 100)
