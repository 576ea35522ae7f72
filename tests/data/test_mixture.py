"""Which samples make up a step: bijections, proportions, a closed form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimo_ds.batch import Kind
from unimo_ds.data.mixture import Mixture, permuted, round_keys, round_robin


@given(st.integers(1, 300), st.integers(0, 2**62), st.integers(0, 5))
def test_every_epoch_is_a_permutation(size, seed, epoch):
    keys = round_keys(seed, 0, epoch)
    assert sorted(permuted(i, size, keys) for i in range(size)) == list(range(size))


def test_epochs_kinds_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(permuted(i, 50, round_keys(seed, kind, epoch)) for i in range(50))
        for seed in (1, 2)
        for kind in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 8


def test_the_order_never_changes_between_releases():
    # A checkpoint continues with the order of the release that wrote it: these numbers are fixed.
    order = [permuted(i, 10, round_keys(1, 2, 0)) for i in range(10)]
    assert order == [1, 5, 3, 7, 6, 2, 9, 0, 4, 8]


@pytest.mark.parametrize("weights", [(1, 1, 5), (0, 0, 1), (3, 0, 2), (1, 1, 1)])
def test_a_cycle_has_every_kind_as_often_as_it_weighs(weights):
    cycle = round_robin(weights)
    assert tuple(cycle.count(kind) for kind in range(3)) == weights


def test_steps_walk_through_every_sample_once_an_epoch():
    mixture = Mixture((6, 4, 30), (1, 1, 5), seed=7)
    draws = [draw for step in range(6) for draw in mixture.step(step, 7)]
    for kind, size in zip((Kind.TEXT, Kind.IMAGE, Kind.PAIR), (6, 4, 30), strict=True):
        first = [draw.index for draw in draws if draw.kind == kind and draw.epoch == 0]
        assert sorted(first) == list(range(size))
    assert {draw.epoch for draw in draws if draw.kind == Kind.IMAGE} == {0, 1}


def test_a_step_is_computed_without_the_steps_before_it():
    mixture = Mixture((6, 4, 30), (1, 1, 5), seed=7)
    far = Mixture((6, 4, 30), (1, 1, 5), seed=7).step(10**9, 5)
    [mixture.step(step, 5) for step in range(3)]
    assert mixture.step(10**9, 5) == far
