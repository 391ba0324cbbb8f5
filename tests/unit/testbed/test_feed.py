"""Events for operators, out of journals that are written meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from telemetry.journal import Journal
from testbed.errors import UserError
from testbed.operation.answers import FOLLOWING
from testbed.operation.feed import Feed, told
from tests.support.waiting import until

NAMES = {"1": "mail", "2": "bank"}


@pytest.fixture
def journals(tmp_path: Path) -> dict[str, Journal]:
    made = {}
    for folder, who in (("controller", "controller"), ("faults", "faults"), ("nodes/a", "node:a"), ("saes/a", "sae:a")):
        (tmp_path / folder).mkdir(parents=True)
        made[who] = Journal(tmp_path / folder / "journal.jsonl", who)
    return made


@pytest.fixture
def feed(tmp_path: Path, journals: dict[str, Journal]) -> Feed:
    return Feed(tmp_path, ["a", "b"], lambda sae: NAMES[sae])


def delivered(number: int) -> dict:
    return {"method": "enc_keys", "ksid": "k", "key_ids": [str(number)], "hops": 1, "duration_ms": 1.5,
            "master_sae": "1", "slave_sae": "2", "trace": "t"}  # fmt: skip


def test_event_has_names_for_ids_and_nothing_of_the_inside(journals, feed):
    journals["node:a"].event("key_delivered", **delivered(1))
    journals["node:a"].event("key_delivered", method="dec_keys", key_ids=["1"])
    journals["node:a"].event("statement", statement="allocate")

    (found,) = feed.past(None, 0.0)

    assert {k: v for k, v in found.items() if k != "time"} == {
        "event": "key_delivered", "master": "mail", "slave": "bank", "ksid": "k", "key_ids": ["1"], "hops": 1,
        "duration_ms": 1.5, "node": "a",
    }  # fmt: skip


def test_what_relays_learn_is_told_where_keys_are_made_over_relays(journals, feed):
    """Of an allocation over one hop, or of one that failed, there is nothing to tell."""
    made = {
        "statement": "allocate", "mode": "otp", "cipher": None, "path": list("abc"), "key_ids": ["1", "2"],
        "ranges": [["a-b/1", 0, 32, "pad"], ["b-c/1", 0, 32, "pad"]],
    }  # fmt: skip
    for facts in (made, made | {"path": list("ab")}, made | {"ranges": None}, made | {"statement": "deliver"}):
        journals["node:a"].event("statement", **facts)

    (found,) = feed.past(["relays_learned"], 0.0)

    assert {k: v for k, v in found.items() if k != "time"} == {
        "event": "relays_learned", "mode": "otp", "number": 2, "path": list("abc"), "learned": {"b": "the key"},
    }  # fmt: skip


def test_what_a_slave_does_not_get_is_told_by_another_name_than_what_a_master_does_not(journals, feed):
    """With all that there is to say of why."""
    pair = {"master_sae": "1", "slave_sae": "2"}
    why = {"cause": "expired", "qc": "a-b/1", "node": "a"}
    journals["node:a"].event("key_failed", method="enc_keys", **pair, **why)
    journals["node:a"].event("key_failed", method="dec_keys", key_ids=["k"], **pair, **why)

    master, slave = feed.past(None, 0.0)

    assert (master["event"], slave["event"], slave["key_ids"]) == ("key_failed", "key_not_fetched", ["k"])
    for found in (master, slave):
        assert {name: found[name] for name in why} == why
    assert [e["event"] for e in feed.past(["key_failed"], 0.0)] == ["key_failed"]


def test_past_is_of_the_names_and_times_asked_for(journals, feed):
    journals["faults"].event("fault", kind="cut", where=["a", "b"])
    opened = {"master_sae": "1", "slave_sae": "2", "ksid": "k", "path": ["a", "b"], "hops": 1, "total_ms": 9}
    journals["sae:a"].event("session_open", **opened)

    assert [e["event"] for e in feed.past(["fault"], 0.0)] == ["fault"]
    assert [e["event"] for e in feed.past(None, 0.0)] == ["fault", "session_opened"]
    assert list(feed.past(None, 4e9)) == []
    with pytest.raises(UserError, match="no event 'rain': there are session_opened,"):
        list(feed.past(["rain"], 0.0))


def test_who_follows_gets_what_comes_from_then_on(journals, feed):
    """And not what was before; until the run ends."""
    journals["faults"].event("fault", kind="node", where=["a"])
    events = feed.follow(["fault", "healed"])
    assert next(events)["event"] == FOLLOWING

    journals["node:a"].event("key_delivered", **delivered(1))
    journals["faults"].event("healed", kind="node", where=["a"])

    assert next(events)["event"] == "healed"
    feed.close()
    assert list(events) == []
    assert list(feed.follow(None)) == []


def test_who_follows_from_a_time_on_gets_what_was_and_what_comes_each_once(journals, feed):
    """However slow it is: what it has not taken waits in the journals. Until the run ends."""
    journals["faults"].event("fault", kind="node", where=["a"])
    (first,) = feed.past(None, 0.0)
    journals["node:a"].event("key_delivered", **delivered(1))
    journals["faults"].event("fault", kind="node", where=["b"])
    events, later = feed.follow(["fault", "healed"], 0.0), feed.follow(["fault", "healed"], first["time"] + 1e-6)

    assert next(events)["event"] == next(later)["event"] == FOLLOWING
    assert [next(events)["where"] for _ in range(2)] == [["a"], ["b"]]
    assert next(later)["where"] == ["b"]
    journals["faults"].event("healed", kind="node", where=["a"])
    journals["controller"].event("session_resumed", ksid="k")
    assert [next(e)["event"] for e in (events, later)] == ["healed"] * 2
    feed.close()
    assert list(events) == list(later) == []


def test_two_follow_at_once_and_one_comes_back(journals, feed):
    first, second = feed.follow(None), feed.follow(None)
    assert [next(e)["event"] for e in (first, second)] == [FOLLOWING] * 2

    journals["faults"].event("fault", kind="node", where=["a"])
    assert [next(e)["event"] for e in (first, second)] == ["fault"] * 2
    first.close()
    second.close()

    third = feed.follow(None)
    next(third)
    journals["faults"].event("healed", kind="node", where=["a"])
    assert next(third)["event"] == "healed"
    feed.close()


def test_who_does_not_keep_up_is_told_and_holds_up_nobody(journals, feed, monkeypatch):
    monkeypatch.setattr("testbed.operation.feed._MOST_WAITING", 5)
    slow, quick = feed.follow(None), feed.follow(None)
    next(slow), next(quick)
    came: list[str] = []
    reading = threading.Thread(target=lambda: came.extend(e["event"] for e in quick))
    reading.start()

    for number in range(8):
        journals["faults"].event("fault", kind="node", where=[str(number)])
        assert until(lambda number=number: len(came) > number)

    with pytest.raises(UserError, match="too slow: 5 events wait"):
        list(slow)
    feed.close()
    reading.join(20)


def test_parameters_are_told_by_the_controller_alone():
    event = {"event": "parameters", "time": 1.0, "mono": 2.0, "who": "controller", "mode": "qkp"}

    assert told(event, str) == {"event": "parameters", "time": 1.0, "mode": "qkp"}
    assert told({**event, "who": "node:a"}, str) is None
