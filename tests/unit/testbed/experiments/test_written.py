"""From what phases showed to everything that is written of it, for each experiment."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
from dataclasses import replace

import pytest

from testbed import api
from testbed.errors import UserError
from testbed.experiments import command, report
from testbed.experiments.evaluation import results
from testbed.experiments.evaluation.outcome import initialisations
from testbed.experiments.kinds import fig8
from tests.unit.testbed.experiments.test_series import SETTINGS

QUICK = replace(SETTINGS, quick=True, speed=5, repeats=2)
SWEEP = replace(QUICK, over={"mode": ["basic", "qkp"], "ttl": ["3", "5"]})
HOSTS = ("a", "b", "c", "ctl", "db")
RTTS = [[x, y, 10.0] for i, x in enumerate(HOSTS) for y in HOSTS[i + 1 :]]


def shown(run, phase):
    """What a phase of two sessions may show: one over one hop, one over two, a key refused in the second."""
    events = []
    for number, path in enumerate((["a", "b"], ["a", "b", "c"])):
        ksid, pair = f"k{number}", {"master_sae": "m", "slave_sae": f"s{number}"}
        at = {"time": 1.0 + number, "mono": 1.0 + number, "who": "x"}
        later = {**at, "mono": 1.001 + number}
        ahead = phase.parameters["mode"] == "qkp"
        sources = ("refill", "pool") if ahead else ("direct", "direct")
        events += [
            {**at, "event": "session_requested", **pair},
            {**at, "event": "new_app_answered", "side": "slave", "duration_ms": 3.0, **pair},
            {**at, "event": "open_key_session", "duration_ms": 5.0, **pair},
            {**at, "event": "new_app_answered", "side": "master", "duration_ms": 10.0, **pair},
            {**later, "event": "session_open", "ksid": ksid, "path": path, "hops": len(path) - 1,
             "ask_connection_ms": 8.0, "open_key_session_ms": 12.0 + run.repeat, "total_ms": 20.0 + run.repeat, **pair},
            {**later, "event": "statement", "statement": "allocate", "cipher": None, "path": path, "key_ids": ["1"],
             "ranges": [[f"{a}-{b}", 0, 16, "pad"] for a, b in itertools.pairwise(path)]},
            *({**later, "event": "key_delivered", "method": "enc_keys", "ksid": ksid, "hops": len(path) - 1,
               "source": source, "duration_ms": 4.0 * len(path) + run.repeat} for source in sources),
            {**later, "event": "key", "ksid": ksid, "side": "master"},
        ]  # fmt: skip
    events.append({**later, "event": "key_error", "ksid": "k1", "side": "master", "cause": "insufficient"})
    return {
        "repeat": run.repeat, "delay_ms": run.delay_ms, "qc_rate": run.qc_rate, "labels": dict(phase.labels),
        "parameters": dict(phase.parameters), "workload": phase.workload.to_json(), "seed": phase.seed,
        "shaper": "netem", "datapath": "kernel", "versions": {"python": "3"}, "rtts_ms": RTTS,
        "provenance": {"date": "2026-01-02", "commit": "abc", "machine": "a machine"},
        "made": [[qc.name, -1.0, 100_000] for link in QUICK.topology.links for qc in link.qcs], "events": events,
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(command.EXPERIMENTS))
def test_every_experiment_writes_tables_figures_and_its_part_of_the_report(name, tmp_path):
    settings = SWEEP if name == "sweep" else QUICK
    experiment = command.EXPERIMENTS[name]
    documents = [json.loads(json.dumps(shown(run, p))) for run in experiment.runs(settings) for p in run.phases]
    out = tmp_path / name
    out.mkdir()

    command._write(experiment, settings, settings.to_json(), documents, failed=[], missing=0, out=out)
    page = report.write(tmp_path, [name]).read_text()

    drawn = [] if name == "table1" else ["figure.pdf", "figure.png", "figure.svg"]
    assert sorted(p.name for p in out.iterdir()) == ["events.csv", *drawn, "results.csv", "results.json"]
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert rows
    assert all(row["repeats"] == 2 and row["low"] <= row["median"] <= row["high"] for row in rows)
    with (out / "results.csv").open() as file:
        assert [float(line["median"]) for line in csv.DictReader(file)] == pytest.approx(
            [r["median"] for r in rows], rel=1e-5
        )
    assert api.results(out)["median"].tolist() == pytest.approx([r["median"] for r in rows], rel=1e-5)
    assert experiment.title in page
    assert "netem" in page
    assert page.count("<svg") == (0 if name == "table1" else 1)
    with (out / "events.csv").open() as file:
        columns = next(csv.reader(file))
    assert len(columns) == len(set(columns))


def written(name, out, change=lambda document: document):
    """What an experiment writes into `out`, of documents that are changed first."""
    settings, experiment = QUICK, command.EXPERIMENTS[name]
    documents = [change(json.loads(json.dumps(shown(r, p)))) for r in experiment.runs(settings) for p in r.phases]
    command._write(experiment, settings, settings.to_json(), documents, failed=[], missing=0, out=out)
    return experiment, documents


def found_rows(name, change=lambda event: event):
    """The rows of a quick look whose events are changed first, or left out."""
    settings, experiment = SWEEP if name == "sweep" else QUICK, command.EXPERIMENTS[name]
    documents = [shown(run, p) for run in experiment.runs(settings) for p in run.phases]
    for document in documents:
        document["events"] = [e for e in map(change, document["events"]) if e is not None]
    return experiment.rows([command.Seen(d) for d in documents], settings)


def rows_of(name, measure, **labels):
    return [row.estimate for row in found_rows(name) if row.measure == measure and labels.items() <= row.labels.items()]


@pytest.mark.parametrize("whose", [results.PAPER, results.SOFTWARE])
def test_every_value_of_the_paper_and_of_its_software_stands_beside_one_of_ours(whose):
    """Whole experiments, not quick looks: each value has a row of ours with its labels."""
    known = {name: found for name, found in results.read()[whose].items() if name != "cite"}
    beside: dict[str, list[float]] = {}
    for name in known:
        experiment = command.EXPERIMENTS[name]
        seen = [command.Seen(shown(run, p)) for run in experiment.runs(SETTINGS) for p in run.phases]
        beside[name] = [v for row in experiment.rows(seen, SETTINGS) if (v := getattr(row, whose)) is not None]

    assert {name: sorted(entry["value"] for entry in found) for name, found in known.items()} == {
        name: sorted(values) for name, values in beside.items()
    }


def test_the_papers_22_values_are_all_there():
    """Table I has four, Figure 7 six, Figure 8 twelve; each says where it stands."""
    known = {name: found for name, found in results.read()[results.PAPER].items() if name != "cite"}

    assert {name: len(found) for name, found in known.items()} == {"table1": 4, "fig7": 6, "fig8": 12}
    assert {e["source"] for found in known.values() for e in found} == {"Table I", "Figure 7", "Figure 8"}
    assert [e["value"] for e in known["table1"]] == [60, 30, 170, 140]
    assert [e["value"] for e in known["fig7"]] == [50, 240, 160, 80, 140, 110]
    assert [e["value"] for e in known["fig8"]] == [0, 25.4, 4.4, 0, 1.9, 0.1, 16.2, 16.6, 3.1, 13.5, 0, 0]


def test_results_are_kept_without_events_and_their_pages_are_made_of_them_alone(tmp_path):
    """Those of another sitting, which are in the kept folder already, stay on its pages."""
    measured, kept = tmp_path / "results", tmp_path / "kept"
    for name in ("table1", "fig7"):
        (measured / name).mkdir(parents=True)
        written(name, measured / name)
        page = report.publish(measured, list(command.EXPERIMENTS), kept)
        shutil.rmtree(measured)

    assert sorted(str(p.relative_to(kept)) for p in kept.rglob("*.*")) == [
        "README.md", "fig7/figure.pdf", "fig7/figure.svg", "fig7/results.csv", "fig7/results.json", "report.html",
        "table1/results.csv", "table1/results.json",
    ]  # fmt: skip
    told = page.read_text()
    assert told.index("Table I") < told.index("Figure 7")
    assert "| Slave SAE | t1 = 5 ms (the paper: 60 ms) | t2 = 3 ms (the paper: 30 ms) |" in told
    assert "sudo python testbed/run.py experiment table1 --quick --seed" in told
    for said in ("2026-01-02", "a machine", "abc"):
        assert said in told


def test_report_has_contents_and_neither_raw_json_nor_backticks(tmp_path):
    (tmp_path / "fig8").mkdir()
    written("fig8", tmp_path / "fig8")
    page = report.write(tmp_path, list(command.EXPERIMENTS)).read_text()
    text = page[: page.index("<svg")] + page[page.index("</svg>") :]

    assert '<a href="#fig8">' in text
    assert "2026-01-02" in text
    assert "a machine" in text
    assert "`" not in text
    assert "{&#34;" not in text
    assert not re.search(r"\d\.\d{4}", text)


def test_table_1_has_the_means_of_its_repeats():
    (t3,) = rows_of("table1", "initialisation", step="t3")

    assert (t3.low, t3.median, t3.high) == (13, 13.5, 14)


def test_figure_7_tells_refills_from_pool_hits_only_where_there_are_pools():
    assert len(rows_of("fig7", "delivery time", mode="QKP", hops="one hop")) == 3
    assert len(rows_of("fig7", "delivery time", mode="BASIC", hops="one hop")) == 1


def test_latency_stands_beside_its_floor():
    """Over one hop the shared database; over two hops also both links and the way to the last node."""
    (one,) = {e.median for e in rows_of("latency", "floor of delivery", hops="one hop")}
    (two,) = {e.median for e in rows_of("latency", "floor of delivery", hops="several hops")}

    assert (one, two) == (10, 40)


def test_figure_8_counts_shares_of_sessions_and_of_requests():
    (connections,) = rows_of("fig8", "connections with an error", scenario="BASIC")
    (requests,) = rows_of("fig8", "key requests failed", scenario="BASIC")

    assert connections.median == 50
    assert requests.median == pytest.approx(100 / 3)


def test_figure_8_counts_the_sessions_and_requests_behind_its_shares():
    """Two repeats of two sessions, three requests each."""
    samples = {row.measure: row.samples for row in found_rows("fig8") if row.labels["scenario"] == "BASIC"}

    assert samples == {"applications refused": 4, "connections with an error": 4, "key requests failed": 6}


def test_a_share_of_no_requests_is_none():
    """It is not 0 %: nothing was tried."""
    rows = found_rows("fig8", change=lambda event: None if event["event"] in ("key", "key_error") else event)

    assert "key requests failed" not in {row.measure for row in rows}


def test_sessions_that_failed_without_a_refusal_are_not_passed_over():
    def change(event):
        refused = event["event"] == "session_open" and event["ksid"] == "k1"
        return {**event, "event": "session_failed"} if refused else event

    (row,) = [
        row for row in found_rows("fig8", change=change)
        if row.measure == fig8.FAILED and row.labels["scenario"] == "BASIC"
    ]  # fmt: skip
    assert row.estimate.median == 50
    assert not [row for row in found_rows("fig8") if row.measure == fig8.FAILED]


def test_a_quick_figure_8_says_what_else_it_changes(tmp_path):
    """It rushes and cuts the sessions, and leaves two scenarios out."""
    _, documents = written("fig8", tmp_path)
    remarks = " ".join(json.loads((tmp_path / "results.json").read_text())["remarks"])

    assert len({d["labels"]["scenario"] for d in documents}) == 4
    assert "arrive twice as fast" in remarks
    assert "BASIC+RESERVE and OTP+REJ are left out" in remarks


def test_all_scenarios_are_in_a_figure_8_to_rely_on():
    scenarios = {phase.labels["scenario"] for run in command.EXPERIMENTS["fig8"].runs(SETTINGS) for phase in run.phases}

    assert scenarios == {"BASIC", "QKP", "BASIC+REJ", "QKP+REJ", "BASIC+RESERVE", "OTP+REJ"}


def test_events_hold_what_figures_are_made_of(tmp_path):
    """Table I can be made anew from the lines of events.csv alone."""
    written("table1", tmp_path)
    with (tmp_path / "events.csv").open() as file:
        events = [{k: v for k, v in line.items() if v} for line in csv.DictReader(file)]
    for event in events:
        if "path" in event:
            event["path"] = json.loads(event["path"])
    found = [i for n in "12" for i in initialisations([e for e in events if e["repeat"] == n])]

    assert len(found) == 4
    assert [(i.t1, i.t2, i.t3, i.t4) for i in found] == [(5, 3, 13, 10)] * 2 + [(5, 3, 14, 10)] * 2


def test_a_series_made_under_several_shapers_names_them_all(tmp_path):
    """One that was interrupted may go on after an upgrade."""

    def change(document):
        other = {"shaper": "user space", "versions": {"python": "4"}}
        return document | other if document["repeat"] == 2 else document

    written("table1", tmp_path, change=change)
    document = json.loads((tmp_path / "results.json").read_text())

    assert (document["shaper"], document["versions"]) == ("netem and user space", {"python": "3 and 4"})


def test_results_that_are_not_there_are_named_with_their_place():
    with pytest.raises(UserError, match=r"no results of fig99: No such file .*fig99/results.csv"):
        api.results("fig99")


@pytest.mark.parametrize("name", sorted(command.EXPERIMENTS))
def test_results_of_a_series_that_is_not_at_its_end_say_so_wherever_they_are_read(name, tmp_path):
    """In figure, page and kept table; what is there is two of four repeats, and the third one's first phase."""
    settings = replace(SWEEP if name == "sweep" else QUICK, repeats=4)
    experiment = command.EXPERIMENTS[name]
    phases = [(run, phase) for run in experiment.runs(settings) for phase in run.phases]
    there = [run.repeat < 3 for run, _ in phases]
    there[there.index(False)] = True
    documents = [json.loads(json.dumps(shown(*each))) for each, is_there in zip(phases, there, strict=True) if is_there]
    out = tmp_path / name
    out.mkdir()
    missing = len(phases) - len(documents)

    command._write(experiment, settings, settings.to_json(), documents, failed=[], missing=missing, out=out)

    said = f"phases still to be run: {missing}"
    assert said in report.write(tmp_path, [name]).read_text()
    assert said in report.publish(tmp_path, [name], tmp_path / "kept").read_text()
    if experiment.draw is not None:
        assert said in (out / "figure.svg").read_text()


def test_experiment_without_results_leaves_the_others_theirs(tmp_path, monkeypatch):
    """Of all that were asked for; which one has none, and why, is said at the end."""

    def run(one, _):
        for each in one.runs:
            for name, phase in zip(each.names(), each.phases, strict=True):
                if one.experiment.name == "table1":
                    one.store.fail(name, "a node died", tmp_path)
                else:
                    one.store.keep(name, shown(each, phase))

    monkeypatch.setattr(command, "_run", run)
    with pytest.raises(UserError, match=r"^table1: no results: .*: a node died$"):
        command.main(["all", "--quick", "--out", str(tmp_path)], lambda: None)

    assert [path.parent.name for path in sorted(tmp_path.glob("*/results.json"))] == ["fig7", "fig8", "latency"]
    assert "Figure 8" in (tmp_path / "report.html").read_text()
