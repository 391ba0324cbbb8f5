"""Optical bypass on PoliQI: QCs are lit past datacenters, which learn nothing."""

from __future__ import annotations

import json

from decisions.exposure import NOTHING
from telemetry import journal
from testbed.stories import journals
from testbed.stories.model import KEY
from tests.support.running import finished


def test_keys_go_past_a_datacenter_that_learns_nothing(tmp_path):
    """Every session has one QC from end to end; the audit is clean, and no more modules are taken than there are."""
    run = tmp_path / "run"

    done = finished("--topology", "poliqi-bypass", "--mechanism", "bypass", "--sessions", 8, "--seed", 1,
                    "--duration", 8, "--no-cli", "--run-dir", run)  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["sessions"] == {"requested": 8, "admitted": 8, "refused": 0, "failed": 0}
    assert (summary["keys"]["multi_hop"], summary["keys"]["errors"]) == (0, {})
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 0
    assert summary["audit"]["verdict"] == "clean"
    lit = {e["qc"] for e in journal.read(run / "controller/journal.jsonl") if e["event"] == "qc_lit"}
    assert lit >= {"government~telecom/1", "government~finance/1"}
    key = next(h.ident for h in reversed(journals.latest(run, 1000)) if h.kind == KEY)
    story = journals.read(run, key)
    between = {(one.node, one.what) for one in story.learned if one.node not in story.path}
    assert {what for _, what in between} <= {NOTHING}
    assert bool(between) == any("~" in use.qc for use in story.material)
    ends = {node for qc in lit for node in qc.partition("/")[0].split("~")}
    used = {
        node: {r[0] for e in journal.read(run / f"nodes/{node}/journal.jsonl") if e["event"] == "used"
               for r in e["ranges"] if "~" in r[0]}
        for node in ("government", "military", "telecom", "finance", "university")
    }  # fmt: skip
    assert {node for node, qcs in used.items() if qcs} == ends
    assert all(node in qc.partition("/")[0].split("~") for node, qcs in used.items() for qc in qcs)
