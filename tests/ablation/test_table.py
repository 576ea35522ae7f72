"""Tables and sentences say what known results say."""

import math

import pytest

from unimo_ds.ablation.findings import findings
from unimo_ds.ablation.page import (
    cost_text,
    html,
    less_text,
    markdown,
    setting_of,
    write_pages,
)
from unimo_ds.ablation.table import METRICS, difference, tables
from unimo_ds.config import RunConfig

BASE = {metric.name: 0.5 for metric in METRICS}


def result(size: str, variant: str, seed: int, **values: float) -> dict:
    return {
        "size": size,
        "variant": variant,
        "seed": seed,
        "values": BASE | values,
        "seconds": 100.0,
        "cpu_seconds": 90.0,
    }


def known(variant: str, scarce: list[float], plenty: list[float], name: str = "r1") -> list[dict]:
    return [
        result(size, variant, seed, **{name: value})
        for size, values in (("scarce", scarce), ("plenty", plenty))
        for seed, value in enumerate(values, start=1)
    ]


FULL = known("full", [0.50, 0.52, 0.54], [0.70, 0.72, 0.74])


def test_cells_hold_means_and_spreads_and_differences_go_seed_by_seed():
    # 10, 11, 12 points less than the full run of the same seed.
    scarce, plenty = tables([*FULL, *known("pairs-only", [0.40, 0.41, 0.42], [0.7, 0.7, 0.7])])
    assert (scarce.size, plenty.size) == ("scarce", "plenty")
    full, less = scarce.rows
    assert full.cells["r1"].mean == pytest.approx(0.52)
    assert full.cells["r1"].spread == pytest.approx(0.02)
    assert full.less == {}
    found = less.less["r1"]
    assert found.mean == pytest.approx(-0.11)
    # Student's t of 2 degrees of freedom at 97.5 %: 4.303; deviation 0.01 over root 3.
    assert found.high - found.mean == pytest.approx(4.303 * 0.01 / math.sqrt(3), rel=1e-3)
    assert found.is_clear
    assert less_text(less, "r1") == "-11.0 *"
    assert less_text(plenty.rows[1], "r1") == "-2.0"
    assert less_text(less, "mlm") == "+0.000"


def test_a_seed_that_one_of_both_lacks_is_left_out_of_the_difference():
    (scarce,) = tables([*FULL[:3], result("scarce", "no-cmcl", 2, r1=0.02)])
    assert scarce.rows[1].less["r1"].seeds == 1
    assert scarce.rows[1].less["r1"].mean == pytest.approx(-0.5)
    assert not scarce.rows[1].less["r1"].is_clear


def test_variants_come_in_their_order_whatever_the_order_of_results():
    results = [*known("pairs-only", [0.1], [0.1]), *known("no-cmcl", [0.1], [0.1]), *FULL]
    (table, _) = tables(results[::-1])[::-1]
    assert [row.name for row in table.rows] == ["full", "no-cmcl", "pairs-only"]


def test_differences_without_spread_have_no_width_and_single_ones_no_end():
    assert difference([0.25, 0.25]) == (0.25, 0.25, 0.25, 2)
    assert difference([0.25])[1:3] == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("less", "points", "told"),
    [(0.20, "+20.0", "no fewer than the 15 asked"), (0.10, "+10.0", "fewer than the 15 asked")],
)
def test_rewriting_is_held_against_what_was_asked_for(less, points, told):
    shares = [0.70, 0.72, 0.74]
    full = known("full", shares, [0.9] * 3, "word_jointly")
    without = known("no-rewriting", [s - less for s in shares], [0.9] * 3, "word_jointly")
    scarce, plenty = findings(tables([*full, *without])).rewriting
    assert "in 72.0% of cases" in scarce
    assert f"rewriting adds {points} ({points} to {points}) points, {told} for." in scarce
    assert plenty.startswith("Where pairs are plenty,")
    assert "rewriting adds +0.0" in plenty


def test_parts_are_told_with_the_metric_that_they_are_for():
    without = known("no-retrieved-texts", [0.40, 0.421, 0.44], [0.7, 0.74, 0.72])
    (told,) = findings(tables([*FULL, *without])).parts
    assert told.startswith("Without retrieved texts, R@1 of retrieval changes by -10.0 (-10.1 to")
    assert told.endswith(
        "+0.0 (-5.0 to +5.0) points where pairs are plenty: clear at 1 of 2 sizes."
    )


SUPPORT, CONTRADICT = "support this half", "contradict this half"


@pytest.mark.parametrize(
    ("scarce", "plenty", "costs", "helps", "most"),
    [
        # It helps at both sizes, more where pairs are scarce.
        ([0.40, 0.421, 0.44], [0.69, 0.711, 0.73], (10, 1, 9), (2, 0, SUPPORT), (1, 0, SUPPORT)),
        # It hurts where pairs are scarce and helps where they are plenty.
        (
            [0.60, 0.621, 0.64],
            [0.60, 0.621, 0.64],
            (-10, 10, -20),
            (1, 1, "in part and contradict it in part"),
            (0, 1, CONTRADICT),
        ),
        # It hurts.
        (
            [0.60, 0.621, 0.64],
            [0.71, 0.731, 0.75],
            (-10, -1, -9),
            (0, 2, CONTRADICT),
            (0, 1, CONTRADICT),
        ),
        # Noise.
        ([0.50, 0.42, 0.64], [0.70, 0.80, 0.66], (0, 0, 0), (0, 0, "neither"), (0, 0, "neither")),
    ],
)
def test_the_claim_of_the_paper_is_told_as_it_comes_out(scarce, plenty, costs, helps, most):
    said = findings(tables([*FULL, *known("no-unpaired-texts", scarce, plenty)]))
    claim = said.claims[0]
    assert (claim.taken, claim.metric.name) == ("unpaired texts", "r1")
    found = (claim.costs["scarce"].mean, claim.costs["plenty"].mean, claim.more.mean)
    assert [round(100 * cost) for cost in found] == list(costs)
    # The two other metrics are 0.5 everywhere: 4 and 2 comparisons that settle nothing.
    first, second = said.verdicts
    assert f"in {helps[0]} of 6 comparisons the run without them is clearly worse" in first
    assert f"in {helps[1]} clearly better" in first
    assert helps[2] in first
    assert f"in {most[0]} of 3 comparisons clearly so, in {most[1]} clearly the other" in second
    assert most[2] in second


def test_a_loss_that_rises_without_the_data_is_a_cost():
    full = known("full", [1.0, 1.1, 1.2], [1.0, 1.1, 1.2], "mlm")
    worse = known("no-unpaired-texts", [1.2, 1.31, 1.4], [1.0, 1.1, 1.0], "mlm")
    claims = {claim.metric.name: claim for claim in findings(tables([*full, *worse])).claims}
    assert claims["mlm"].costs["scarce"].mean == pytest.approx(0.61 / 3)
    assert cost_text(claims["mlm"], "scarce") == "+0.203 (+0.189 to +0.218) *"
    assert cost_text(claims["r1"], "scarce") == "+0.0 (+0.0 to +0.0)"


def test_pages_hold_every_number_of_the_table(tmp_path):
    results = [*FULL, *known("pairs-only", [0.40, 0.41, 0.42], [0.7, 0.7, 0.7])]
    paths = write_pages(tmp_path, results, 78, RunConfig())
    assert [path.name for path in paths] == ["ablation.md", "ablation.html", "ablation.json"]
    text, page = paths[0].read_text(), paths[1].read_text()
    assert "| pairs only | 41.0 ± 1.0 |" in text
    assert "| pairs only | -11.0 * |" in text
    assert text.startswith("# ")
    assert "12 of 78 runs, 3 seeds" in text
    for part in ("<td>41.0 ± 1.0</td>", "<td>-11.0 *</td>", "12 of 78 runs, 3 seeds"):
        assert part in page
    assert page.count("<svg") == len(METRICS)
    assert "http" not in page.replace("http-equiv", "")
    said = findings(tables(results))
    assert said.verdicts
    for sentence in [*said.rewriting, *said.parts, *said.verdicts]:
        assert f"* {sentence}\n" in text
    assert "| both | R@1 of retrieval | +11.0 (+8.5 to +13.5) * |" in text
    assert tables_of(text) == [3, 2, 3, 2, 4]  # rows of each, the head included


def tables_of(text: str) -> list[int]:
    """Rows of each Markdown table, without the rule below its head."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [len(lines) - 1 for lines in blocks if all(li.startswith("|") for li in lines)]


def test_no_result_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="0 of 78 runs have ended"):
        write_pages(tmp_path, [], 78, RunConfig())


def test_the_page_can_be_written_with_one_variant_of_one_seed():
    found = tables([result("scarce", "full", 1)])
    setting = setting_of([result("scarce", "full", 1)], 2, RunConfig())
    assert "| full | 50.0 |" in markdown(found, setting)
    page = html(found, setting)
    assert "nan" not in page
    assert "paper's claim" not in page
