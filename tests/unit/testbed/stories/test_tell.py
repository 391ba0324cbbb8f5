"""Stories told of recorded journals (tests/vectors/stories)."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from telemetry import journal
from testbed.stories import journals
from testbed.stories.model import NoStory, Story, Use
from testbed.stories.tell import tell

RUN = Path(__file__).resolve().parents[3] / "vectors" / "stories"
EVENTS = journal.read(RUN / "journal.jsonl")
SESSION = "ea35fa25-56ed-41fa-8a88-c94f4defdaaa"
SINGLE = "c2ab40f3-3b4b-4001-bcac-98e3692eedfd"
BASIC = "aa2837b4-0f9f-4053-8504-f1c5d7dfa82c"
REFILL, HIT = "b092a1a9-ff7e-4afb-916d-2064c2b723fb", "3a38a55e-f91d-4b6d-be7b-a43a4ebb64cd"
FAILED = "0bd868cb3a6241d34cd0f22d0ec29e25"
EVERYTHING = [SESSION, SINGLE, BASIC, REFILL, HIT, FAILED]


def said(story: Story) -> list[tuple[str, str, str]]:
    """Who said what to whom, by the names of people."""
    names = {p.id: p.name for p in story.participants}
    return [(names[m.sender], names[m.receiver], m.what) for m in story.messages]


def test_key_over_one_hop_is_told_as_the_paper_draws_it():
    """Neither node sends the other a word: the shared database tells the slave's where the key lies."""
    story = tell(EVENTS, SINGLE)

    assert [p.name for p in story.participants] == ["app-a", "a", "database", "b", "app-b"]
    assert said(story) == [
        ("app-a", "a", "Get key"),
        ("a", "database", "allocate ranges"),
        ("a", "a", "takes out of its stream"),
        ("app-a", "app-b", "ask-key: fetch this key"),
        ("app-b", "b", "Get key with key IDs"),
        ("b", "database", "fetch the key's position"),
        ("b", "b", "takes out of its stream"),
        ("app-b", "app-b", "has the key (128 bits)"),
        ("app-a", "app-a", "has the key (128 bits)"),
        ("app-a", "app-b", "a message under the key"),
        ("app-b", "app-b", "the message was read"),
        ("app-a", "app-a", "the message was read"),
    ]
    assert {use for m in story.messages for use in m.ranges} == {Use("a-b/1", 0, 16, "key")}


def test_relayed_key_shows_every_hop_and_every_range():
    """BASIC over three hops: which ranges were used at which node, and for what."""
    story = tell(EVENTS, BASIC)

    used = {m.sender: [(u.qc, u.purpose) for u in m.ranges] for m in story.messages if m.what.startswith("takes")}
    assert used == {
        "node:a": [("a-b/1", "shared key"), ("a-b/1", "new keys")],
        "node:b": [("a-b/1", "shared key"), ("a-b/1", "new keys"), ("b-c/1", "pad")],
        "node:c": [("b-c/1", "pad"), ("c-d/1", "pad")],
        "node:d": [("c-d/1", "pad")],
    }
    assert ("c", "d", "relay: the shared key under the pad") in said(story)
    assert ("a", "d", "the new key under the shared key") in said(story)
    assert [(e.node, e.what) for e in story.learned] == [
        ("a", "the key"), ("b", "the key"), ("c", "the shared key"), ("d", "the key"),
    ]  # fmt: skip


def test_key_from_the_pool_leads_to_the_refill():
    """Its own story has no relaying; that of the key with which it was made has."""
    hit, refill = tell(EVENTS, HIT), tell(EVENTS, REFILL)

    assert hit.refill == REFILL
    assert ("a", "a", "takes the key out of its pool") in said(hit)
    assert not any("relay" in what for _, _, what in said(hit))
    assert any("relay" in what for _, _, what in said(refill))
    assert hit.material == refill.material
    assert hit.learned == refill.learned
    assert sum(u.end - u.start for u in hit.material if u.purpose == "new keys") == 4 * 16


def test_session_is_told_from_asking_to_the_end():
    """The paper's Figure 4: ask_connection, both nodes to the controller, all agents, the KSID."""
    story = tell(EVENTS, SESSION)

    assert [p.name for p in story.participants][:3] == ["app-a", "a", "controller"]
    assert story.path == ["a", "b", "c", "d"]
    order = [said(story).index(step) for step in (
        ("app-a", "app-d", "ask_connection"), ("app-d", "d", "open_key_session"),
        ("d", "controller", "sdqkdn_application_new"), ("app-a", "a", "open_key_session"),
        ("a", "controller", "sdqkdn_application_new"), ("controller", "c", "configure the path"),
        ("controller", "controller", "path a - b - c - d, KSID"), ("app-a", "a", "close the key session"),
    )]  # fmt: skip
    assert order == sorted(order)


def test_failure_is_named_where_it_happened():
    """Not where it was noticed last: the node that could not be reached."""
    story = tell(EVENTS, FAILED)

    assert story.failure == "b to c, relay: the shared key under the pad: Connection refused"
    assert [m.receiver for m in story.messages if m.failed] == ["node:a", "node:b", "node:c"]
    assert "No application was given this key" in story.notes[0]
    assert story.learned == []


@pytest.mark.parametrize("ident", EVERYTHING)
def test_every_event_is_told_once(ident):
    """What the journals have of the story's traces is in one message each, and nothing else is."""
    story = tell(EVENTS, ident)

    told = [(e["who"], e["mono"]) for m in story.messages for e in m.events]
    there = [(e["who"], e["mono"]) for e in EVENTS if e.get("trace") in story.traces]
    assert sorted(told) == sorted(there)


@pytest.mark.parametrize("ident", EVERYTHING)
def test_order_in_the_journals_does_not_matter(ident):
    """Nor which other stories are beside it."""
    shuffled = random.Random(1).sample(EVENTS, len(EVENTS))

    assert tell(shuffled, ident) == tell(EVENTS, ident)


@pytest.mark.parametrize(("by_s", "how"), [(-5.0, "behind"), (5.0, "ahead of")])
def test_clock_that_disagrees_is_noted_and_spoils_nothing(by_s, how):
    """Cause comes before effect, whatever a clock says."""
    wrong = [
        e | {"time": e["time"] + by_s} | ({"at": e["at"] + by_s} if "at" in e else {}) if e["who"] == "node:b" else e
        for e in EVENTS
    ]

    story = tell(wrong, BASIC)

    assert said(story) == said(tell(EVENTS, BASIC))
    assert "that of node:b is at least " in story.notes[0]
    assert how in story.notes[0]
    assert tell(EVENTS, BASIC).notes == []


def test_keys_made_together_are_told_apart():
    """Of a key made in the trace of another request its making is told, and not what became of the other."""
    other = {"trace": "e" * 32, "span": "e" * 16, "who": "node:a", "time": EVENTS[-1]["time"], "mono": 0.0}
    key = "0" * 8 + BASIC[8:]
    events = [
        e | {"key_ids": [*e["key_ids"], key]} if e.get("statement") == "allocate" and BASIC in e["key_ids"] else e
        for e in EVENTS
    ]
    events.append(other | {
        "event": "key_delivered", "method": "enc_keys", "key_ids": [key], "duration_ms": 3.0, "master_sae": "m",
        "slave_sae": "s", "hops": 3, "mode": "basic", "size_bits": 128, "source": "direct",
    })  # fmt: skip

    what = [m.what for m in tell(events, key).messages]

    assert "allocate ranges" in what
    assert "relay: the shared key under the pad" in what
    assert what.count("Get key") == 1
    assert "ask-key: fetch this key" not in what


@pytest.mark.parametrize("ident", ["00000000-0000-4000-8000-000000000000", "f" * 32, "key", "../../etc", "x" * 300])
def test_what_nobody_knows_has_no_story(ident):
    """One line that says so."""
    with pytest.raises(NoStory) as caught:
        journals.read(RUN, ident)
    assert len(str(caught.value).splitlines()) == 1


def test_latest_stories_are_those_that_can_be_told():
    """Keys by their ID, sessions by their KSID, failures by their trace."""
    headings = journals.latest(RUN)

    assert [h.ident for h in headings] == [SINGLE, SESSION, BASIC, REFILL, HIT, FAILED]
    assert all(journals.read(RUN, h.ident).messages for h in headings)
    assert headings[-1].outcome == "relay_broken"
    assert headings[0].pair == ("app-a", "app-b")


@pytest.mark.parametrize(("kind", "name"), [("key", "key_delivered"), ("session", "session_open")])
def test_last_story_of_a_pair_is_that_of_its_latest_event(kind, name):
    """Of the kind asked for, and of nobody else's."""
    of_all = [e for e in EVENTS if e["event"] == name and e.get("method", "enc_keys") == "enc_keys"]
    latest = max(of_all, key=lambda e: e["time"])

    found = journals.last(RUN, latest["master_sae"], latest["slave_sae"], kind)

    assert found is not None
    assert found.ident in (latest.get("ksid"), *latest.get("key_ids", ()))
    assert journals.last(RUN, latest["slave_sae"], latest["master_sae"], kind) is None


@pytest.mark.parametrize(("after_s", "said"), [(0.5, "0.5 s after it began"), (-3.0, "3.0 s before this began")])
def test_story_says_that_the_database_failed_over_about_then(after_s, said):
    """From which host to which one; of a fail-over at another time it says nothing."""
    begin = tell(EVENTS, SINGLE).begin_s
    switch = {"event": "database_switch", "who": "faults", "host": "db2", "before": "db"}

    near = tell([*EVENTS, switch | {"time": begin + after_s}], SINGLE)
    far = tell([*EVENTS, switch | {"time": begin - 60.0}], SINGLE)

    assert f"The shared database failed over from db to db2, {said}." in near.notes
    assert not any("failed over" in note for note in far.notes)


def test_spans_that_are_parts_of_each_other_make_a_story_all_the_same():
    """A journal of another machine may say so of any span. What is above it is let go where it is below it, too."""
    spans = sorted({e["span"] for e in EVENTS if "span" in e and SINGLE in str(e)})
    trace = next(e["trace"] for e in EVENTS if "trace" in e and SINGLE in str(e))
    facts = {"time": 1.0, "mono": 1.0, "who": "node:b", "event": "stopped", "trace": trace}
    ring = [*spans, "f" * 16, *spans]
    liar = [{**facts, "span": below, "parent": above} for below, above in pairwise(ring)]

    assert tell([*liar, *EVENTS], SINGLE).messages


def test_spans_that_are_parts_of_parts_without_end_make_a_story_all_the_same():
    """So many are told below each other as an honest story has, and no more."""
    trace = "e" * 32
    facts = {"time": 1.0, "mono": 1.0, "who": "node:b", "event": "stopped", "trace": trace}
    liar = [{**facts, "span": f"{n + 1:016x}", "parent": f"{n:016x}"} for n in range(5000)]

    assert len(tell(liar, trace).messages) > 0
