"""What is counted out of events, and how journals are read on."""

from __future__ import annotations

import json

from telemetry.journal import Journal
from testbed.dashboard.collected.snapshot import Tally
from testbed.evidence.journals import Tail


def delivered(time_s: float, *, hops: int = 1, keys: int = 1, ms: float = 5.0, ksid: str = "k") -> dict[str, object]:
    return {
        "event": "key_delivered", "node": "a", "time": time_s, "hops": hops, "ksid": ksid,
        "duration_ms": ms, "key_ids": [f"{time_s}-{i}" for i in range(keys)],
    }  # fmt: skip


def test_keys_are_counted_by_hops_session_and_node():
    """Keys, not deliveries: a request may bring several."""
    tally = Tally()
    for event in (delivered(1), delivered(2, hops=3, keys=4), delivered(3, ksid="other")):
        tally.take(event)
    found = tally.figures()

    assert (found.single_hop, found.multi_hop) == (2, 4)
    assert found.by_session == {"k": (5, 0), "other": (1, 0)}
    assert found.by_node == {"a": 6}


def test_what_relays_learn_is_counted_by_mode():
    """Of how many keys."""
    tally = Tally()
    made = {"event": "relays_learned", "mode": "otp", "number": 2, "path": list("abc"), "learned": {"b": "the key"}}
    for event in (made, made, made | {"mode": "parallel", "learned": {"b": "nothing"}}):
        tally.take(event)

    assert tally.figures().by_relay == {"b": {("otp", "the key"): 4, ("parallel", "nothing"): 2}}


def test_failed_requests_count_for_their_session():
    """Also those that fail before there is one, and those of slaves."""
    tally = Tally()
    tally.take({"event": "key_failed", "time": 1.0, "cause": "no_session"})
    tally.take({"event": "key_not_fetched", "time": 2.0, "cause": "expired", "ksid": "k"})

    assert tally.figures().failed == 2
    assert tally.figures().by_session == {"k": (0, 1)}


def test_delivery_times_are_those_of_the_last_minutes():
    """What was slow an hour ago does not colour what one sees now."""
    tally = Tally()
    for event in (delivered(0, ms=900), delivered(1000, ms=3), delivered(1001, ms=70, hops=2)):
        tally.take(event)
    found = tally.figures()

    assert found.durations_ms(1010, several_hops=False) == [3]
    assert found.durations_ms(1010, several_hops=True) == [70]


def test_journal_is_read_on_from_where_it_ended(tmp_path):
    """Each wanted event once, whole lines only, and a journal may begin later."""
    path = tmp_path / "journal.jsonl"
    tail = Tail([path], {"wanted"})
    assert tail.new() == []

    events = [{"event": name, "n": n} for n, name in enumerate(["wanted", "other"] * 2)]
    lines = [json.dumps(event, separators=(",", ":")) for event in events]
    path.write_text("\n".join(lines[:3])[:-5])
    assert [e["n"] for e in tail.new()] == [0]

    path.write_text("\n".join(lines) + "\n")
    assert [e["n"] for e in tail.new()] == [2]
    assert tail.new() == []


def test_journal_is_read_on_over_its_files(tmp_path):
    """Whole, in order, however many of them are begun between two looks, and compressed or not."""
    path = tmp_path / "journal.jsonl"
    written, tail, found = Journal(path, "a", file_bytes=300), Tail([path], {"wanted"}), []
    for n in range(60):
        written.event("wanted", n=n)
        if n % 7 == 0:
            found += tail.new()
    written.close()

    assert [e["n"] for e in found + tail.new()] == list(range(60))
    assert tail.new() == []
