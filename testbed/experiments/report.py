"""What is read of results: one page with everything, and the same as Markdown for a folder that is kept.

Both are made of the `results.json` of experiments alone, so that they can be made again where nothing was measured.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from scenario.workload import parse
from testbed.experiments.evaluation import results
from testbed.experiments.evaluation.results import Results
from testbed.experiments.experiment import Experiment
from testbed.experiments.kinds import table1

_TITLE = "Experiments on an emulated QKD network"
_DOCUMENT = "results.json"
# What is kept of an experiment: all but the events.
_KEPT = (_DOCUMENT, "results.csv", "figure.svg", "figure.pdf")


def keep(results: Results, experiment: Experiment, folder: Path) -> None:
    """Write what the page needs of an experiment beside its results."""
    document = results.to_json() | {
        "text": experiment.text,
        "remarks": experiment.remarks(results),
        "words": dict(experiment.words),
        "what_was_run": dict(_what_was_run(results)),
    }
    (folder / _DOCUMENT).write_text(json.dumps(document, indent=1) + "\n")


def write(folder: Path, names: Sequence[str]) -> Path:
    """The page for those experiments that have results below `folder`, in the order of `names`; figures inside."""
    return _render("report.html.j2", folder, names, folder / "report.html")


def publish(folder: Path, names: Sequence[str], target: Path) -> Path:
    """Copy figures and tables, without events, to `target`, where earlier ones stay; and write its pages anew."""
    for path in folder.glob(f"*/{_DOCUMENT}"):
        into = target / path.parent.name
        into.mkdir(parents=True, exist_ok=True)
        for name in _KEPT:
            if (path.parent / name).is_file():
                shutil.copyfile(path.parent / name, into / name)
    write(target, names)
    return _render("results.md.j2", target, names, target / "README.md")


def _render(template: str, folder: Path, names: Sequence[str], path: Path) -> Path:
    found = [_read(file.parent) for file in folder.glob(f"*/{_DOCUMENT}")]
    found.sort(key=lambda one: (names.index(one["experiment"]), one["folder"]))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["rounded"] = rounded
    page = environment.get_template(template).render(
        title=_TITLE, experiments=found, paper=results.cite(), software=results.cite(results.SOFTWARE)
    )
    path.write_text(page, encoding="utf-8")
    return path


def rounded(value: float | None, unit: str = "") -> str:
    """With as many digits as mean something: three, or all that are before the point; "" of nothing."""
    if value is None:
        return ""
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def _read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / _DOCUMENT).read_text())
    figure = folder / "figure.svg"
    svg = figure.read_text(encoding="utf-8") if figure.is_file() else ""
    document["svg"] = svg[svg.index("<svg") :] if svg else ""  # a page takes no XML declaration
    document["folder"] = folder.name
    document.setdefault("missing", 0)  # results that were kept before series could be unfinished
    document["columns"] = list(dict.fromkeys(name for row in document["rows"] for name in row["labels"]))
    document["measures"] = list(dict.fromkeys(row["measure"] for row in document["rows"]))
    document["arranged"] = _arranged(document) if document["experiment"] == table1.NAME else []
    return document


def _arranged(document: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Table I as the paper has it: its rows, with the rows of ours that belong into its columns."""
    by_step = {row["labels"]["step"]: row for row in document["rows"]}
    return [
        (side, [by_step[step] for step in steps if step in by_step]) for side, steps in table1.ARRANGED.items()
    ]


def _what_was_run(results: Results) -> Iterator[tuple[str, str]]:
    """Names and texts."""
    settings = results.settings
    yield "command", results.command
    yield from results.provenance.items()
    yield "seed", str(results.seed)
    yield "repeats", str(settings.get("repeats"))
    yield "topology", str(settings.get("topology"))
    yield "links shaped by", results.shaper
    yield "Open vSwitch datapath", results.datapath
    phases = settings.get("phases", [])
    loads = list(dict.fromkeys(parse(phase["workload"], "series").said() for phase in phases))
    for load in loads:
        yield ("load" if len(loads) == 1 else f"load {loads.index(load) + 1}"), load
    for phase in phases:
        given = phase["parameters"]
        yield ", ".join(phase["labels"].values()), (
            f"mode {given['mode']}, admission {given['admission']}, TTL {given['ttl_slots']} slots,"
            f" {given['keys_ahead']} keys ahead; {phase['settle_s']:g} s of rest before"
        )
    yield "versions", ", ".join(f"{name} {version}" for name, version in results.versions.items())
