"""What the audit says of sound records, and of those that are not there."""

from __future__ import annotations

import json

import pytest

from testbed.audit import RECORDS, Unreadable, load
from testbed.audit.__main__ import main
from tests.unit.audit.played import played, verdict


@pytest.fixture
def run(tmp_path):
    """A function that writes a run down where the audit looks for it; the folder."""

    def write(document):
        (tmp_path / RECORDS).write_text(json.dumps(document["records"]))
        journals = {f"{kind}/{node}": events for kind in ("nodes", "saes") for node, events in document[kind].items()}
        for place, events in (journals | {place: document[place] for place in ("qcs", "controller")}).items():
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
        "bytes_generated": 49600, "allocations": 14, "ranges_taken": 40, "keys": 21, "pairs": 6,
    }  # fmt: skip
    assert found.lost_bytes == {"a-b/1": 80, "b-c/1": 48}


@pytest.mark.parametrize(("began_again_s", "findings"), [(3.0, 0), (None, 1)])
def test_master_that_died_while_its_slave_fetched_the_key_has_none_to_tell_of(began_again_s, findings):
    """And began anew. One that lived on would have had to tell."""
    document = played()
    mine, (key,) = document["saes"]["a"], [e for e in document["saes"]["a"] if e["event"] == "key"][:1]
    others = [e for e in mine if e["event"] == "started" or e["mono"] > key["mono"] + 30]
    document["saes"]["a"] = [*others[:1], {"event": "call", "mono": key["mono"] - 0.01}]
    if began_again_s is not None:
        document["saes"]["a"].append({**others[0], "mono": key["mono"] + began_again_s})
    document["saes"]["a"] += [{"event": "call", "mono": key["mono"] + 60.0}]
    found = [f for f in verdict(document).findings if key["key_id"] in f and "its master's journal" in f]

    assert len(found) == findings


def test_records_of_a_folder_are_those_of_its_own_journals(run):
    """What a node writes into its journal in the name of a QC or of the controller is nobody's word."""
    document = played()
    facts = {"mono": 1.0, "time": 1.0}
    document["nodes"]["b"] += [{"event": "parameters", "ttl_slots": 1, **facts}, document["qcs"][0]]
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
