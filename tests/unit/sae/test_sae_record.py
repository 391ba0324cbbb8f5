"""What an application's journal says of a key, and its sessions of keys that did not come."""

from __future__ import annotations

from documents.secret import Secret
from etsi.gs004 import QoS
from sae.client import Failed
from sae.sessions import MASTER, MOST_CAUSES, SLAVE, Record, Session
from telemetry import journal

ONE, OTHER = bytes(range(16)), bytes(range(1, 17))


def fingerprints(tmp_path, *keys):
    """Of keys under IDs of their own, at both sides in turn, and the journal's text."""
    path = tmp_path / "journal.jsonl"
    record = Record(journal.Journal(path, "sae:a"), Secret(b"s" * 32))
    for i, key in enumerate(keys):
        record.key(Session((MASTER, SLAVE)[i % 2], "peer", QoS()), "session", f"key {i}", Secret(key), 1.0)
    return [e["fingerprint"] for e in journal.read(path)], path.read_text()


def test_key_under_two_ids_has_one_fingerprint(tmp_path):
    """So that whoever compares the journals sees that it was used twice."""
    (first, again, other), text = fingerprints(tmp_path, ONE, ONE, OTHER)

    assert first == again != other
    assert ONE.hex() not in text


def test_session_says_beside_the_number_of_errors_what_the_last_of_each_cause_was(tmp_path):
    """A cause alone is seldom enough for people."""
    record = Record(journal.Journal(tmp_path / "journal.jsonl", "sae:a"), Secret(b"s" * 32))
    session = Session(MASTER, "peer", QoS())
    for cause, message in (("expired", "old"), ("kme_refused", "first"), ("kme_refused", "second")):
        record.key_error(session, Failed(503, cause, message))

    document = session.to_json()
    assert document["errors"] == {"expired": 1, "kme_refused": 2}
    assert document["errors_said"] == {"expired": "old", "kme_refused": "second"}


def test_peer_that_names_another_cause_each_time_does_not_fill_our_memory(tmp_path):
    """All are counted."""
    record = Record(journal.Journal(tmp_path / "journal.jsonl", "sae:a"), Secret(b"s" * 32))
    session = Session(MASTER, "peer", QoS())
    for i in range(1000):
        record.key_error(session, Failed(503, f"cause{i}", "no"))

    assert len(session.errors) == len(session.errors_said) == MOST_CAUSES + 1
    assert sum(session.errors.values()) == 1000
    assert session.errors["other"] == 1000 - MOST_CAUSES
