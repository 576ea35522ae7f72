"""Charts as SVG."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from unimo_ds.report.charts import (
    MOST_POINTS,
    Curve,
    line_chart,
    linear_axis,
    percent,
    running_mean,
    short_number,
    thin,
)


@pytest.mark.parametrize(
    "values", [[1.0], [2.0, 2.0], [0.0, 0.0], [5, 1e-7], [-3, float("nan"), 4]]
)
@pytest.mark.parametrize("log", [False, True])
def test_a_chart_is_well_formed_and_finite(values, log):
    svg = line_chart([Curve("a", range(len(values)), values)], description='<"a">', log=log)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == '<"a">'
    assert "nan" not in svg and "inf" not in svg


def test_ticks_are_round_and_enclose_the_values():
    axis = linear_axis(0.13, 0.87, 0, 100, ticks=4)
    assert axis.ticks == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert axis.pixels(np.array([0.5])) == pytest.approx([50])


def test_a_long_curve_is_thinned_to_means():
    (values,) = thin(np.arange(1000.0))
    assert len(values) == MOST_POINTS
    assert np.average(values, weights=np.diff(np.linspace(0, 1000, 301).astype(int))) == 499.5


def test_running_mean_keeps_the_ends_and_the_straight_line():
    line = np.arange(100.0)
    assert running_mean(line) == pytest.approx(line)
    assert running_mean(np.array([3.0])) == pytest.approx([3.0])


def test_numbers_are_short():
    found = [short_number(x) for x in (0, 0.25, 1234, 12_000, 3e6, 1e-5, 2.5e-4)]
    assert found == ["0", "0.25", "1234", "12k", "3M", "1e-5", "2.5e-4"]
    assert percent(0.0333333) == "3.33 %"
