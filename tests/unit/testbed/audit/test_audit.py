"""What the audit says of sound records, and of those that are not there."""

from __future__ import annotations

import json

import pytest

from testbed.audit import RECORDS, Unreadable, load
from testbed.audit.__main__ import main
from testbed.audit.evidence import STANDBY
from tests.support.played_run import played, verdict
from tests.unit.testbed.audit.test_falsified import (
    allocation_untold_long_after_a_crash,
    crash_of_qcs,
    pair_without_a_journal,
)

KINDS = ("nodes", "saes", "gateways")


@pytest.fixture
def run(tmp_path):
    """A function that writes a run down where the audit looks for it; the folder."""

    def write(document):
        (tmp_path / RECORDS).write_text(json.dumps(document["records"]))
        journals = {f"{kind}/{node}": events for kind in KINDS for node, events in document[kind].items()}
        journals |= {"logs": document["run"], "qcs": document["qcs"], "controller": document["controller"]}
        for place, events in journals.items():
            (tmp_path / place).mkdir(parents=True)
            lines = [json.dumps(event, separators=(",", ":")) + "\n" for event in events]
            (tmp_path / place / "journal.jsonl").write_text("".join(lines))
        return tmp_path

    return write


def test_sound_records_are_clean():
    """With everything in them that is legal, failures too; what was lost is counted by QC."""
    found = verdict(played())

    assert list(found.findings) == []
    assert found.counted == {
        "bytes_generated": 49600, "allocations": 18, "ranges_taken": 48, "keys": 25, "pairs": 6, "tunnel_keys": 3,
    }  # fmt: skip
    assert found.lost_bytes == {"a-b/1": 96, "b-c/1": 64}


@pytest.mark.parametrize("told", [True, False])
def test_second_controller_tells_which_sessions_it_opened_and_what_it_changed(run, told):
    """Both journals count, in the order of time; and so does that the run started it."""
    document = played()
    second = [e for e in document["controller"] if e.get("ttl_slots") == 10 or e.get("ksid") == "sae-a sae-b"]
    begun = [{**e, "process": STANDBY} for e in document["run"] if e["process"] == "controller"]
    started, *rest = document["controller"]
    document["controller"] = [started, *(e for e in rest if e not in second)]
    document["run"] += begun if told else []
    folder = run(document)
    (folder / STANDBY).mkdir()
    lines = [json.dumps(e, separators=(",", ":")) for e in (started, *second, rest[-1])]
    (folder / STANDBY / "journal.jsonl").write_text("\n".join(lines) + "\n")

    found = load(folder)

    assert list(found.findings) == ([] if told else ["the second controller: the run does not tell that it started"])


@pytest.mark.parametrize("was_killed", [True, False])
def test_master_that_was_killed_while_its_slave_fetched_the_key_has_none_to_tell_of(was_killed):
    """One that lived on would have had to tell."""
    document = played()
    started, *others = document["saes"]["a"]
    key = next(e for e in others if e["event"] == "key")
    document["saes"]["a"] = [started, *(e for e in others if e.get("key_id") != key["key_id"])]
    if was_killed:
        document["saes"]["a"].insert(1, started | {"mono": key["mono"] + 0.1})
        facts = {"process": "sae-a", "mono": key["mono"] + 0.05}
        document["run"] += [{"event": "killed", **facts}, {"event": "begun", **facts}]
    found = [f for f in verdict(document).findings if key["key_id"] in f]

    assert bool(found) is not was_killed


@pytest.mark.parametrize("was_away", [True, False])
def test_what_a_device_had_for_an_end_that_slept_is_lost_when_it_crashes(was_away):
    """One that was awake got it."""
    document = played()
    crash_of_qcs(document)
    if was_away:
        document["run"].append({"event": "paused", "process": "node-c", "mono": 55.5})

    assert bool(verdict(document).findings) is not was_away


def test_client_under_the_certificate_of_an_application_keeps_no_journal():
    """Nor a trace of its requests, by which it is known."""
    document = played()
    pair_without_a_journal(document)
    for delivered in (e for node in "ab" for e in document["nodes"][node] if e["event"] == "key_delivered"):
        delivered.pop("parent", None)

    assert list(verdict(document).findings) == []


def test_run_that_ends_while_a_node_lies_dead_is_clean():
    """It was killed, and need not say that it stopped."""
    document = played()
    document["run"].append({"event": "killed", "process": "node-c", "mono": 58.0})
    document["nodes"]["c"].pop()

    assert list(verdict(document).findings) == []


@pytest.mark.parametrize("has_failed", [True, False])
def test_start_that_failed_need_not_tell_how_it_began_and_ended(has_failed):
    """A controller that found its disk full ends with a word or two, and is started again; the run knows of it."""
    document = played()
    started, first, *others = document["controller"]
    document["controller"] = [started, started | {"event": "stopped", "mono": 0.1}]
    document["controller"] += [first | {"mono": 0.3}, started | {"mono": 0.6}, first | {"mono": 0.7}, *others]
    events = [("begun", 0.2), *([("failed", 0.4)] if has_failed else []), ("begun", 0.5)]
    document["run"] += [{"event": name, "process": "controller", "mono": at} for name, at in events]

    assert bool(verdict(document).findings) is not has_failed


@pytest.mark.parametrize("was_ready", [True, False])
def test_life_that_was_killed_before_it_was_ready_need_not_tell_how_it_began(was_ready):
    """A controller writes its parameters down first, and then that it started."""
    document = played()
    started, first, *others = document["controller"]
    document["controller"] = [first | {"mono": 0.3}, started | {"mono": 0.6}, first | {"mono": 0.7}, *others]
    events = [*([("ready", 0.35)] if was_ready else []), ("killed", 0.4), ("begun", 0.5)]
    run = [e for e in document["run"] if (e["event"], e["process"]) != ("ready", "controller")]
    document["run"] = [*run, *({"event": name, "process": "controller", "mono": at} for name, at in events)]

    assert bool(verdict(document).findings) is was_ready


def test_what_the_database_did_late_for_a_node_that_died_may_be_untold():
    """It slept meanwhile."""
    document = played()
    allocation_untold_long_after_a_crash(document)
    assert len(verdict(document).findings) == 1

    document["run"] += [
        {"event": name, "process": "postgres", "mono": at} for name, at in (("paused", 31.0), ("woken", 60.0))
    ]

    assert list(verdict(document).findings) == []


def test_records_of_a_folder_are_those_of_its_own_journals(run):
    """What a node writes into its journal in the name of a QC or of the controller is nobody's word."""
    document = played()
    facts = {"mono": 1.0, "time": 1.0}
    document["nodes"]["b"] += [{"event": "parameters", "ttl_slots": 1, **facts}, document["qcs"][1]]
    folder = run(document)

    assert load(folder).to_json() == verdict(played()).to_json()


def test_ttl_is_the_controllers_word(run):
    """A smaller one, said there, counts."""
    document = played()
    document["controller"].insert(0, {"event": "parameters", "ttl_slots": 1, "mono": -100.0})
    document["records"]["meant"]["ttl_slots"] = 1

    assert any("more than 1 slots" in finding for finding in load(run(document)).findings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "only a run that came to its end can be audited"),
        ("[]", "audit.json: meant: expected an object"),
        ('{"nodes": {}, "nodes": {}}', "a member is there twice"),
        ('{"meant": {"qcs": {"q": ["a", "b", "1"]}, "nodes": []}, "nodes": {}}', "meant.qcs.q: slot_s: expected"),
        ("[" * 100_000, "only a run that came to its end"),
    ],
)
def test_records_that_are_none_are_named(tmp_path, text, said):
    """And what was expected of them."""
    (tmp_path / RECORDS).write_text(text)

    with pytest.raises(Unreadable, match=said):
        load(tmp_path)


def test_line_that_is_no_event_is_named(run):
    """In the middle of a journal, where no crash leaves it."""
    folder = run(played())
    path = folder / "nodes" / "a" / "journal.jsonl"
    path.write_text(path.read_text().replace('"event":"used"', '"event":"used" oops', 1))

    with pytest.raises(Unreadable, match=r"nodes/a/journal\.jsonl"):
        load(folder)


def test_clean_run_ends_with_0_and_a_violated_one_with_1(run, capsys):
    """The last line says it."""
    document = played()
    folder = run(document)
    assert main(folder) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: clean"

    (folder / RECORDS).write_text(json.dumps(document["records"] | {"keys": []}))

    assert main(folder) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("verdict: ")


def test_audit_that_is_not_possible_ends_with_1(tmp_path, capsys):
    """It is no success; what is missing is named once."""
    assert main(tmp_path) == 1
    said = f"audit: not possible: {tmp_path}/audit.json: No such file or directory: only a run that came to its end"
    assert capsys.readouterr().err == f"{said} can be audited\n"
