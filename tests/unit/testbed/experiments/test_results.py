"""Results: nothing without error bars, seed or shaper; and what is written of them."""

from __future__ import annotations

import csv
import io
import json

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from testbed.experiments.evaluation import figures
from testbed.experiments.evaluation.results import Estimate, Results, Row, estimate, row

ROWS = [
    Row("delivery time", "ms", {"mode": mode, "hops": hops, "keys": "all keys"}, estimate([3.0, 5.0, 4.0]), 30, paper)
    for mode, hops, paper in (("BASIC", "one hop", 50), ("BASIC", "several hops", 240), ("QKP", "one hop", None))
]
GOOD = {
    "experiment": "fig7", "title": "A title", "quick": False, "rows": ROWS, "seed": 7, "shaper": "netem",
    "datapath": "kernel", "versions": {"python": "3"}, "settings": {"repeats": 3}, "failed": [], "missing": 0,
    "provenance": {"date": "2026-01-02", "commit": "abc", "machine": "a machine"}, "command": "run.py experiment fig7",
}  # fmt: skip
PANEL = figures.Panel(
    "delivery time, ms",
    {hops: {"hops": hops, "measure": "delivery time"} for hops in ("one hop", "several hops")},
    {mode: {"mode": mode, "keys": "all keys"} for mode in ("BASIC", "QKP")},
)
LINES = figures.Lines("hops", {"delivery time": "delivery time, ms"}, {"mode": "mode of keys"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": None}, "seed"),
        ({"shaper": ""}, "shaper"),
        ({"datapath": ""}, "datapath"),
        ({"versions": {}}, "versions"),
        ({"provenance": {}}, "provenance"),
        ({"command": ""}, "command"),
        ({"settings": {}}, "settings"),
        ({"rows": []}, "rows"),
        ({"rows": [Row("m", "ms", {}, Estimate(1.0, 1.0, 1.0, 1, 0.0), 1)]}, "interval"),
        ({"rows": [Row("m", "ms", {}, Estimate(1.0, 2.0, 3.0, 5, 0.9), 1)]}, "interval"),
        ({"rows": [Row("m", "ms", {}, Estimate(1.0, float("nan"), 2.0, 5, 0.9), 1)]}, "interval"),
    ],
)
def test_results_without_error_bars_seed_or_shaper_cannot_be_made(change, said):
    with pytest.raises(ValueError, match=said):
        Results(**GOOD | change)


def test_row_of_a_single_repeat_is_none():
    assert row("m", "ms", {}, [1.0], samples=100) == []


def test_csv_says_in_every_line_where_it_comes_from():
    lines = list(csv.DictReader(io.StringIO(Results(**GOOD).to_csv())))

    assert len(lines) == 3
    assert {(line["seed"], line["shaper"], line["repeats"], line["quick"]) for line in lines} == {
        ("7", "netem", "3", "false")
    }
    assert [float(lines[0][name]) for name in ("low", "median", "high", "coverage")] == [3, 4, 5, 0.75]
    assert [line["paper"] for line in lines] == ["50", "240", ""]


def test_json_holds_all_of_it():
    document = json.loads(json.dumps(Results(**GOOD).to_json()))

    assert {k: document[k] for k in ("seed", "shaper", "datapath", "quick", "failed")} == {
        "seed": 7, "shaper": "netem", "datapath": "kernel", "quick": False, "failed": [],
    }  # fmt: skip
    assert document["rows"][0]["labels"] == {"mode": "BASIC", "hops": "one hop", "keys": "all keys"}


def texts(figure):
    return [" ".join(t.get_text().split()) for t in figure.findobj(lambda o: hasattr(o, "get_text")) if t.get_text()]


DRAWN = pytest.mark.parametrize(
    "draw",
    [lambda results: figures.bars(results, [PANEL]), lambda results: figures.lines(results, LINES)],
    ids=["bars", "lines"],
)


@DRAWN
def test_figure_has_quantities_with_their_units_and_no_title(draw):
    figure = draw(Results(**GOOD))

    assert {axes.get_ylabel() for axes in figure.axes} == {"delivery time, ms"}
    assert figure.get_suptitle() == ""
    assert {axes.get_title() for axes in figure.axes} == {""}
    assert {axes.get_yscale() for axes in figure.axes} == {"linear"}
    assert "A title" not in texts(figure)


@DRAWN
def test_figure_says_of_a_quick_look_that_it_is_one_and_of_failed_phases_that_they_are_missing(draw):
    usual, quick = draw(Results(**GOOD)), draw(Results(**GOOD | {"quick": True, "failed": [{"phase": "p"}]}))

    assert not any("QUICK" in text for text in texts(usual))
    assert any("QUICK LOOK, SMALL SAMPLES; 1 failed phases left out" in text for text in texts(quick))


@DRAWN
def test_figure_is_saved_for_screen_and_print_the_same_each_time_and_with_its_text_as_text(draw, tmp_path):
    first, second = (figures.save(draw(Results(**GOOD)), tmp_path / name) for name in ("a", "b"))

    assert [f.suffix for f in first] == [".png", ".svg", ".pdf"]
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]
    assert "delivery time, ms</text>" in first[1].read_text()


def test_warning_below_a_figure_lies_within_it():
    long = {"quick": True, "failed": [{"phase": "p"}] * 12, "settings": {"speed": 5}}
    figure = figures.bars(Results(**GOOD | long), [PANEL])
    FigureCanvasAgg(figure).draw()
    (line,) = [t for t in figure.texts if "QUICK LOOK" in t.get_text()]
    box = line.get_window_extent()

    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= box.y0
    assert "failed phases left out" in " ".join(line.get_text().split())


def test_bars_show_medians_intervals_and_the_papers_values_and_one_that_was_not_measured_as_missing():
    """Of the paper's four values in this panel; QKP over several hops has none of ours."""
    figure = figures.bars(Results(**GOOD), [PANEL])
    (axes,) = figure.axes

    assert sorted(bar.get_height() for bar in axes.patches) == [4, 4, 4, 50, 80, 140, 240]
    spans = {tuple(segment[:, 1]) for collection in axes.collections for segment in collection.get_segments()}
    assert spans == {(3, 5)}
    (missing,) = [t for t in axes.texts if t.get_text() == "not measured"]
    assert missing.xy[0] == pytest.approx(1.43 - 0.86 / 8)


def test_categories_are_not_joined_and_numbers_are():
    def style(figure):
        return {line.get_linestyle() for axes in figure.axes for line in axes.lines if line.get_marker() in "osD^vP*X"}

    def numbered(row, number):
        return Row(row.measure, row.unit, {**row.labels, "hops": str(number)}, row.estimate, row.samples)

    numbers = [numbered(row, n) for n, row in enumerate(ROWS)]
    assert style(figures.lines(Results(**GOOD), LINES)) == {"None"}
    assert style(figures.lines(Results(**GOOD | {"rows": numbers}), LINES)) == {"-"}


def test_no_two_of_many_lines_look_alike_and_their_legend_covers_none():
    """Seven modes at two delays: a colour and a marker for each mode, and another stroke for the second delay."""
    rows = [
        Row("delivery time", "ms", {"delay": delay, "mode": mode, "hops": hops}, Estimate(4.0, 3.0, 5.0, 5, 0.9), 9)
        for delay in ("0", "20") for mode in "abcdefg" for hops in "12"
    ]  # fmt: skip
    figure = figures.lines(Results(**GOOD | {"rows": rows}), LINES)
    (axes,) = figure.axes
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() != "None"]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle(), line.get_fillstyle()) for line in drawn}

    assert len(looks) == len(drawn) == 14
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 7
    assert axes.get_legend() is None
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == [f"{delay}, {mode}" for delay in ("0", "20") for mode in "abcdefg"]


def test_legend_says_in_words_what_lines_are():
    (axes,) = figures.lines(Results(**GOOD), LINES).axes

    assert axes.get_legend().get_title().get_text() == "mode of keys, keys"
