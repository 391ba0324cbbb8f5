"""One page with everything: figures, tables, what was run, what differs from the paper and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from testbed.experiments.experiment import Experiment
from testbed.experiments.results import Results

_TEMPLATE = "report.html.j2"


def keep(results: Results, experiment: Experiment, folder: Path) -> None:
    """Write what the page needs of an experiment beside its results."""
    document = results.to_json() | {"text": experiment.text, "remarks": experiment.remarks(results)}
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n")


def write(folder: Path, names: Sequence[str]) -> Path:
    """The page for those experiments of `names` that have results below `folder`, with its figures inside."""
    found = [_read(folder / name) for name in names if (folder / name / "results.json").is_file()]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template(_TEMPLATE).render(
        title="Experiments on an emulated QKD network", experiments=found
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "results.json").read_text())
    svg = (folder / "figure.svg").read_text(encoding="utf-8")
    document["svg"] = svg[svg.index("<svg") :]  # without the XML declaration, which has no place inside a page
    document["labels"] = list(dict.fromkeys(name for row in document["rows"] for name in row["labels"]))
    return document
