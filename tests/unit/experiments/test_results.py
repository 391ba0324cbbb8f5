"""Results: nothing without error bars, seed or shaper; and what is written of them."""

from __future__ import annotations

import csv
import io
import json

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from testbed.experiments import figures
from testbed.experiments.estimate import Estimate, estimate
from testbed.experiments.results import Results, Row, row

ROWS = [
    Row("delivery", "ms", {"mode": mode, "hops": hops}, estimate([3.0, 5.0, 4.0]), 30, paper=paper)
    for mode, hops, paper in (("BASIC", "one", 4.5), ("BASIC", "several", None), ("QKP", "one", None))
]
GOOD = {
    "experiment": "fig7", "title": "A title", "quick": False, "rows": ROWS, "seed": 7, "shaper": "netem",
    "datapath": "kernel", "versions": {"python": "3"}, "settings": {"repeats": 3}, "failed": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": None}, "seed"),
        ({"shaper": ""}, "shaper"),
        ({"datapath": ""}, "datapath"),
        ({"versions": {}}, "versions"),
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
    assert [line["paper"] for line in lines] == ["4.5", "", ""]


def test_json_holds_all_of_it():
    document = json.loads(json.dumps(Results(**GOOD).to_json()))

    assert {k: document[k] for k in ("seed", "shaper", "datapath", "quick", "failed")} == {
        "seed": 7, "shaper": "netem", "datapath": "kernel", "quick": False, "failed": [],
    }  # fmt: skip
    assert document["rows"][0]["labels"] == {"mode": "BASIC", "hops": "one"}


def texts(figure):
    return " ".join(" ".join(t.get_text().split()) for t in figure.findobj(lambda o: hasattr(o, "get_text")))


@pytest.mark.parametrize(
    "draw",
    [
        lambda results: figures.bars(results, groups=("hops",), series=("mode",), unit="ms"),
        lambda results: figures.lines(results, x="hops", panels=("delivery",), dashed=None, x_title="hops"),
    ],
    ids=["bars", "lines"],
)
def test_figure_says_seed_shaper_bars_and_that_a_quick_look_is_one(draw, tmp_path):
    usual, quick = draw(Results(**GOOD)), draw(Results(**GOOD | {"quick": True, "failed": [{"phase": "p"}]}))

    for figure in (usual, quick):
        assert "seed 7" in texts(figure)
        assert "netem" in texts(figure)
        assert "75 % intervals" in texts(figure)
    assert "QUICK LOOK" not in texts(usual)
    assert "QUICK LOOK, SMALL SAMPLES" in texts(quick)
    assert "1 failed phases left out" in texts(quick)
    files = figures.save(usual, tmp_path / "figure")
    assert [f.suffix for f in files] == [".png", ".svg"]
    assert all(f.stat().st_size > 5000 for f in files)


@pytest.mark.parametrize("groups", [("hops",), ("mode", "hops")])
def test_the_line_below_a_figure_lies_within_it(groups):
    """Its beginning says that a look is quick, its end what shaped the links."""
    long = {"quick": True, "failed": [{"phase": "p"}] * 12, "settings": {"speed": 5}}
    figure = figures.bars(Results(**GOOD | long), groups=groups, series=(), unit="ms")
    FigureCanvasAgg(figure).draw()
    (line,) = [t for t in figure.texts if "QUICK LOOK" in t.get_text()]
    box = line.get_window_extent()

    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= box.y0
    assert "failed phases left out" in " ".join(line.get_text().split())


def test_bars_show_medians_intervals_and_the_papers_value():
    figure = figures.bars(Results(**GOOD), groups=("hops",), series=("mode",), unit="ms")
    (axes,) = figure.axes

    assert sorted(bar.get_height() for bar in axes.patches) == [4, 4, 4]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D"] == [4.5]
    spans = {tuple(segment[:, 1]) for collection in axes.collections for segment in collection.get_segments()}
    assert spans == {(3, 5)}
