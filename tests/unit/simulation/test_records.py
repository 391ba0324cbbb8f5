"""What a simulation leaves behind: an audit finds it clean, and a summary counts what the simulation counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decisions.modes import NEW_KEYS, PAD, SHARED_KEY
from scenario.outages import Outage
from scenario.scenario import Scenario
from scenario.topology import load
from scenario.workload import arrivals
from scenario.workload import load as load_workload
from simulation.engine import Simulation
from simulation.records import Recorder
from testbed import audit
from testbed.evidence import summary
from testbed.stories import journals

ROOT = Path(__file__).resolve().parents[3]
POLIQI = load("poliqi", ROOT / "topologies")
OUTAGES = (Outage("fibre", "government-military", 20, 15), Outage("node", "finance", 40, 10))


def recorded(folder: Path, mode: str, seed: int = 1, outages: tuple[Outage, ...] = OUTAGES, **parameters: str):
    """The paper's load, and what came of it."""
    load_ = arrivals(load_workload("paper", ROOT / "workloads"), POLIQI.saes, seed)
    scenario = Scenario(POLIQI, load_, {"mode": mode, "admission": "eq1", **parameters}, outages=outages, seed=seed)
    simulation = Simulation(scenario)
    recorder = simulation.witness = Recorder(folder, scenario, simulation.qcs)
    result = simulation.run()
    recorder.close(simulation.now_s)
    return result


@pytest.mark.parametrize("paths", ["shortest", "widest-shortest"])
@pytest.mark.parametrize("mode", ["basic", "qkp", "otp", "parallel", "paths-2"])
def test_audit_of_what_is_recorded_is_clean_and_its_summary_is_that_of_the_simulation(tmp_path, mode, paths):
    """Sessions, keys, key errors, bytes; every key of both sides. Whichever end pays double."""
    result = recorded(tmp_path, mode, path_policy=paths)

    verdict = audit.load(tmp_path).to_json()
    found = summary.summarise(summary.read_run(tmp_path, *summary.SUMMARISED))

    assert verdict["findings"] == []
    assert found["sessions"]["requested"] == result.offered
    assert found["sessions"]["refused"] == result.refused.total()
    given = result.requests - result.failed_requests
    assert found["keys"]["single_hop"] + found["keys"]["multi_hop"] == given
    assert sum(found["keys"]["errors"].values()) == result.failed_requests
    assert found["pairs"] == {"compared": given, "identical": given}


def test_journal_of_the_qcs_tells_who_listens_and_when_no_key_is_made(tmp_path):
    """In the order of time, as the one of a real run does; the audit is clean all the same."""
    outages = tuple(
        Outage("eve", "telecom-finance", at_s, 20.0, fraction) for at_s, fraction in ((20.5, 0.1), (50.5, 0.5))
    )
    recorded(tmp_path, "basic", outages=outages)

    events = [json.loads(line) for line in (tmp_path / "qcs/journal.jsonl").read_text().splitlines()]
    told = [(e["event"], e.get("eve", e.get("qber_percent"))) for e in events if "eve" in e or "qber_percent" in e]
    one = [e for e in events if e["event"] == "no_key" or e.get("qc") == "telecom-finance/1"]
    silent = [e["n_bytes"] for e in one[next(i for i, e in enumerate(one) if e["event"] == "no_key") :][1:20]]

    assert told == [("eve", 0.1), ("eve", 0.0), ("eve", 0.5), ("no_key", 14.0), ("eve", 0.0), ("key_again", 2.0)]
    assert silent == [0] * 19
    assert [e["time"] for e in events] == sorted(e["time"] for e in events)
    assert audit.load(tmp_path).to_json()["findings"] == []


def test_story_of_a_simulated_key_tells_which_bytes_it_was_made_of_and_who_learned_it(tmp_path):
    """As that of a real one; here either end of the path may have paid double."""
    recorded(tmp_path, "basic", path_policy="widest-shortest")
    keys = [head.ident for head in journals.latest(tmp_path, 10_000) if head.what == "key, basic, 2 hops"]

    told = [journals.read(tmp_path, key) for key in keys[:40]]

    assert len(told) == 40
    for story in told:
        at_last = story.material[-1].purpose == NEW_KEYS
        assert [use.purpose for use in story.material] == (
            [SHARED_KEY, PAD, NEW_KEYS] if at_last else [SHARED_KEY, NEW_KEYS, PAD]
        )
        assert [entry.node for entry in story.learned] == list(story.path)
        assert f"its end of the {'last' if at_last else 'first'} QC holds the key's bytes" in story.learned[1].how
    assert len({story.material[-1].purpose for story in told}) == 2


def test_same_seed_leaves_the_same_files(tmp_path):
    """To the byte."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        recorded(folder, "qkp", seed=5)

    files = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders]
    assert files[0] == files[1]
    assert json.loads(files[0][Path("audit.json")])["keys"]
