"""What an application's journal says of a key."""

from __future__ import annotations

from etsi.gs004 import QoS
from etsi.secret import Secret
from sae.sessions import MASTER, SLAVE, Record, Session
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
