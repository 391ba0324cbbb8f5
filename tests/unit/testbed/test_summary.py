"""What a run's journals add up to."""

from __future__ import annotations

import logging
import statistics
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.modes import MODES, NEW_KEYS, PAD
from telemetry import bugs
from telemetry.journal import Journal
from testbed.evidence.summary import Progress, bugs_told, compare_pairs, quantiles, summarise, why_no_keys


def key(key_id: str, side: str, fingerprint: str) -> dict[str, object]:
    """An SAE got a key."""
    return {"event": "key", "key_id": key_id, "side": side, "fingerprint": fingerprint}


def test_progress_is_counted_on_and_what_was_counted_is_not_read_again(tmp_path):
    """Journals of a day are long; they come into being when their processes start."""
    progress = Progress(tmp_path, ["a"])
    assert progress.line() == "0 keys over one hop, 0 over several, 0 key errors"

    path = tmp_path / "nodes" / "a" / "journal.jsonl"
    path.parent.mkdir(parents=True)
    (tmp_path / "saes" / "a").mkdir(parents=True)
    node, sae = Journal(path, "node:a"), Journal(tmp_path / "saes" / "a" / "journal.jsonl", "sae")

    def deliver(*key_ids: str, hops: int) -> None:
        node.event("key_delivered", method="enc_keys", key_ids=key_ids, hops=hops, duration_ms=1.0)

    deliver("1", "2", hops=1)
    node.event("key_delivered", method="dec_keys", key_ids=["1"], duration_ms=1.0)
    deliver("3", hops=4)
    for side in ("master", "slave"):
        sae.event("key_error", side=side, cause="path_down", message="it is down", facts={})
    assert progress.line() == "2 keys over one hop, 1 over several, 1 key errors"

    with path.open("r+b") as file:
        file.write(b"\n" * path.stat().st_size)  # whoever read it again would count nothing of this
    deliver("4", hops=1)
    assert progress.line() == "3 keys over one hop, 1 over several, 1 key errors"


def test_pairs_are_compared_where_both_sides_got_the_key():
    """A key that only the master got is no pair."""
    events = [key("1", "master", "x"), key("1", "slave", "x"), key("2", "master", "y")]

    assert compare_pairs(events) == {"compared": 1, "identical": 1}


def test_pair_with_different_keys_is_counted():
    """The one thing that must never happen shows in the numbers."""
    assert compare_pairs([key("1", "master", "x"), key("1", "slave", "y")]) == {"compared": 1, "identical": 0}


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_quantiles_are_measured_values_in_order(values):
    """p50 <= p95 <= max, and each of them was really measured."""
    found = quantiles(values)

    assert set(found.values()) <= set(values)
    assert found["p50"] <= found["p95"] <= found["max"] == max(values)
    assert found["p50"] == statistics.median_low(values)


def test_nothing_measured_has_no_quantiles():
    """None, not zero: zero would be a result."""
    assert quantiles([]) == {"p50": None, "p95": None, "max": None}


def test_summary_counts_sessions_keys_and_errors():
    """Requested, admitted and refused; keys that clients took, by number of hops; errors by cause, once each."""
    events = [
        {"event": "session_requested"}, {"event": "session_requested"}, {"event": "session_requested"},
        {"event": "session_open", "ask_connection_ms": 3.0, "total_ms": 9.0},
        {"event": "session_refused"},
        {"event": "key_delivered", "method": "enc_keys", "hops": 1, "key_ids": ["1"], "duration_ms": 5.0},
        {"event": "key_delivered", "method": "enc_keys", "hops": 2, "key_ids": ["2", "3"], "duration_ms": 7.0},
        {"event": "key_delivered", "method": "dec_keys", "hops": 2, "key_ids": ["2"], "duration_ms": 1.0},
        {"event": "key_error", "side": "master", "cause": "short_of_material", "facts": {"qc": "a-b/1"},
         "message": "QC a-b/1 is short"},
        {"event": "key_error", "side": "slave", "cause": "short_of_material"},
        {"event": "lost", "allocation": "r1", "cause": "relay_broken", "ranges": [["a-b/1", 0, 16, "shared key"],
         ["a-b/1", 16, 32, "new keys"], ["b-c/1", 5, 21, "pad"]]},
        {"event": "lost", "allocation": "r2", "cause": "database_unreachable", "ranges": []},
        {"event": "lost", "allocation": "r3", "cause": "expired", "ranges": [["b-c/1", 0, 64, "key"]]},
        {"event": "lost", "allocation": "r3", "cause": "expired", "ranges": [["b-c/1", 32, 64, "key"]]},
        {"event": "key_delivered", "method": "enc_keys", "hops": 1, "key_ids": ["4"], "duration_ms": 5.0},
        {"event": "lost", "method": "enc_keys", "cause": "answer_not_taken", "key_ids": ["4"], "ranges": []},
        {"event": "lost", "method": "dec_keys", "cause": "answer_not_taken", "key_ids": ["1"], "ranges": []},
    ]  # fmt: skip

    found = summarise(events)

    assert found["sessions"] == {"requested": 3, "admitted": 1, "refused": 1, "failed": 1}
    assert found["keys"] == {"single_hop": 1, "multi_hop": 2, "errors": {"short_of_material": 1},
                             "errors_where": {"short_of_material a-b/1": 1},
                             "errors_said": {"short_of_material": "QC a-b/1 is short"},
                             "lost_bytes": {"a-b/1": 32, "b-c/1": 80}}  # fmt: skip
    assert found["delivery_ms"]["multi_hop"] == {"p50": 7.0, "p95": 7.0, "max": 7.0}
    assert found["initialisation_ms"]["total"]["p50"] == 9.0


@pytest.mark.parametrize(
    ("mode", "last", "relays"),
    [
        ("basic", PAD, {"b": (2, 0, 0), "c": (0, 2, 0)}),
        ("basic", NEW_KEYS, {"b": (0, 2, 0), "c": (2, 0, 0)}),
        ("otp", PAD, {"b": (2, 0, 0), "c": (2, 0, 0)}),
        ("parallel", PAD, {"b": (0, 0, 2), "c": (0, 0, 2)}),
    ],
)
def test_what_relays_learned_is_counted_by_mode(mode, last, relays):
    """Of how many keys the key, the shared key, or nothing. Over one hop there is no relay; of no bytes came no key."""
    made = {
        "event": "statement", "statement": "allocate", "mode": mode, "cipher": MODES[mode].cipher,
        "at_once": MODES[mode].at_once, "path": list("abcd"), "key_ids": ["1", "2"],
        "ranges": [["a-b/1", 0, 64, PAD], ["c-d/1", 0, 32, last]],
    }  # fmt: skip
    others = [made | {"path": list("ab")}, made | {"ranges": None}, {"event": "statement", "statement": "deliver"}]

    found = summarise([made, *others])["relays"]

    words = "the key", "the shared key", "nothing"
    assert found == {mode: {node: dict(zip(words, counts, strict=True)) for node, counts in relays.items()}}


def test_journals_of_earlier_runs_name_the_method_of_lost_keys_as_their_request():
    """A summary of theirs is right, too."""
    events = [
        {"event": "key_delivered", "method": "enc_keys", "hops": 1, "key_ids": ["1"], "duration_ms": 5.0},
        {"event": "lost", "method": "enc_keys", "cause": "answer_not_taken", "key_ids": ["1"], "ranges": []},
    ]

    assert summarise(events)["keys"]["single_hop"] == 0


ASKED = {"event": "session_requested"}
FAILED = {"event": "session_failed", "cause": "kme_unreachable", "message": "the KME cannot be reached"}
ERROR = {"event": "key_error", "side": "master", "cause": "path_down", "message": "QC a-b/1 is off"}


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([], None),
        ([ASKED, {"event": "session_refused"}], None),
        ([ASKED, {"event": "session_open"}, ERROR, {"event": "key_delivered"}], None),
        ([ASKED, FAILED], "the last session that failed: the KME cannot be reached (kme_unreachable)"),
        ([ASKED, {"event": "session_open"}, ERROR], "the last key error: QC a-b/1 is off (path_down)"),
        ([ASKED, {"event": "session_open"}], "none came before the end of the run"),
    ],
)
def test_run_without_a_key_says_why(events, why):
    """Unless nobody asked for one, or each session was refused, as admission does."""
    assert why_no_keys(events) == why


def test_bugs_are_found_in_the_logs(tmp_path, caplog):
    """As our processes tell of them, and as Python does; what is lost on the way is no bug."""
    bugs.report(logging.getLogger("x"), "counting", ValueError())
    (tmp_path / "node-a.log").write_text(caplog.text)
    (tmp_path / "qcs.log").write_text("Traceback (most recent call last):\n  ...\n")
    (tmp_path / "node-b.log").write_text("WARNING the controller is away\n")

    found = bugs_told(tmp_path)

    assert [line.partition(":")[0] for line in found] == ["node-a", "qcs"]
    assert "counting: a bug of ours" in found[0]


def test_log_of_one_line_without_an_end_is_looked_through_in_little_memory(tmp_path):
    """As a machine that is not ours may send it; what a terminal would obey is not repeated."""
    with (tmp_path / "node-a.log").open("wb") as log:
        for _ in range(32):
            log.write(b"x" * (1 << 20))
        log.write(b"\n\x1b[2Ja bug of ours\n")

    tracemalloc.start()
    try:
        (found,) = bugs_told(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert found.startswith("node-a: 1, the last: [2Ja bug of ours; see ")
