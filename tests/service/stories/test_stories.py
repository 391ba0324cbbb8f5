"""Stories of real keys and sessions against the journals, the shared database and the nodes' own accounts."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import defaultdict
from typing import Any

import pytest

from node.material.shared_db import read_allocations
from testbed.stories import journals, svg, text
from testbed.stories.model import Message, Story
from tests.support.waiting import until

from .conftest import FOREIGN, LINKS, NODES, OURS, World

Said = list[tuple[str, str, str]]


def read(world: World, ident: str) -> Story:
    """The story of that key or session."""
    return journals.read(world.stack.directory, ident)


def calls(story: Story) -> Said:
    """Calls and statements of a story, without what each did alone. Capitals are nodes, small letters applications."""
    short = {f"sae:{sae}": n for saes in (OURS, FOREIGN) for n, sae in saes.items()}
    short |= {f"node:{n}": n.upper() for n in NODES}
    return [
        (short.get(m.sender, m.sender), short.get(m.receiver, m.receiver), m.what)
        for m in story.messages
        if m.sender != m.receiver
    ]


def check_events(world: World, story: Story) -> None:
    """Every journal line of the story's traces is told by one message, which says of it what the line says."""
    lines = [
        json.loads(line)
        for path in world.stack.directory.rglob("journal.jsonl")
        for line in path.read_text().splitlines()
    ]
    there = [e for e in lines if e.get("trace") in story.traces]
    told = [e for m in story.messages for e in m.events]
    assert sorted(told, key=str) == sorted(there, key=str)
    assert len(there) >= 10
    for message in story.messages:
        for event in message.events[:1]:
            _check_message(message, event)


def _check_message(message: Message, event: dict[str, Any]) -> None:
    if event["event"] == "call":
        assert message.receiver in (event["to"], event["to"].split(":")[0])
        assert message.sender == event.get("by", event["who"])
        assert (message.at_s, message.duration_ms) == (event["at"], event["duration_ms"])
        assert message.failed == (event.get("status", 503) >= 400 and event["method"] != "DELETE")
    elif event["event"] in ("statement", "used"):
        assert message.sender == event["who"]
        assert [[u.qc, u.start, u.end, u.purpose] for u in message.ranges] == event.get("ranges", [])


def check_ranges(world: World, story: Story, request: str) -> None:
    """The ranges told are those that the shared database allocated and that each node took out of its streams."""
    with world.stack.cluster.admin_url() as url:
        allocations, _ = read_allocations(url, world.stack.schema)
    told: dict[str, set[int]] = defaultdict(set)
    for use in story.material:
        told[use.qc] |= set(range(use.start, use.end))
    assert told == {qc: set(range(start, end)) for of, _, qc, _, start, end, _ in allocations if of == request}
    for node in {m.sender for m in story.messages if m.what.startswith("takes out of")}:
        used = {
            (u.qc, at) for m in story.messages if m.sender == node for u in m.ranges
            if m.what.startswith("takes out of") for at in range(u.start, u.end)
        }  # fmt: skip
        assert used == taken(world, node.removeprefix("node:"), request), node


def taken(world: World, node: str, request: str) -> set[tuple[str, int]]:
    """What that node's local database has lost to that request, in the node's own account, byte by byte."""
    path = world.stack.directory / node / "local.db"
    command = [sys.executable, "-P", "-m", "node.material.local_db_dump", str(path)]
    account = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {(qc, at) for qc, _, start, end, _, _, of in account["taken"] if of == request for at in range(start, end)}


def request_of(story: Story) -> str:
    """The allocation that the story tells of."""
    return next(e["allocation"] for m in story.messages for e in m.events if e.get("statement") == "allocate")


def test_single_hop_key_is_told_event_by_event(world):
    """Two statements to the shared database, and no word between the nodes."""
    world.set_mode("basic")
    _, key_ids = world.exchange("a", "b", keys=4)
    # Of a key that was asked for before its slave's node looked what there is, which it does once a slot.
    stories = [read(world, k) for k in key_ids]
    story = next(s for s in stories if not any("not asked for" in what for _, _, what in calls(s)))

    assert calls(story) == [
        ("a", "A", "Get key"), ("A", "database", "allocate ranges"), ("a", "b", "ask-key: fetch this key"),
        ("b", "B", "Get key with key IDs"), ("B", "database", "fetch the key's position"),
        ("a", "b", "a message under the key"),
    ]  # fmt: skip
    check_events(world, story)
    check_ranges(world, story, request_of(story))
    made_in = [e["made_in"] for m in story.messages for e in m.events if e.get("statement") == "deliver"]
    assert made_in == [list(story.traces)], "the slave's node learned the trace from the shared database"


def test_key_that_nobody_asked_for_yet_waits_at_the_slaves_node(world):
    """Within a slot that node fetches it, at nobody's request; the shared database says in whose trace it was made."""
    world.set_mode("basic")
    reply = until(lambda: (r := world.enc_keys("a", "b")).ok and r)
    key_id = reply.body["keys"][0]["key_ID"]
    story = until(lambda: len((s := read(world, key_id)).traces) == 2 and s)

    assert calls(story)[-1] == ("B", "database", "fetch positions not asked for")
    made_in = [e["made_in"] for m in story.messages for e in m.events if e.get("statement") == "collect"]
    assert len(made_in) == 1
    assert set(made_in[0]) < set(story.traces)
    assert world.dec_keys("b", "a", [key_id]).ok
    check_ranges(world, read(world, key_id), request_of(story))


@pytest.mark.parametrize(("mode", "what"), [("basic", "the shared key"), ("qkp", "the shared key"), ("otp", "the key")])
def test_relayed_key_is_told_event_by_event(world, mode, what):
    """Hop by hop, which ranges were used where, and in basic and qkp the new key behind it."""
    world.set_mode(mode)
    _, key_ids = world.exchange("a", "d", keys=5)  # in qkp the first or the last is made, whatever the pool held
    story = next(s for k in key_ids if (s := read(world, k)).refill is None)

    second = [] if mode == "otp" else [("A", "D", "the new key under the shared key")]
    first = "the key under the pad" if mode == "otp" else "where the shared key lies"
    check = ("A", "D", "the check value of the key")  # beside the relay: before it or after it
    assert (check in calls(story)) == (mode == "otp")
    assert [call for call in calls(story) if call != check] == [
        ("a", "A", "Get key"), ("A", "database", "allocate ranges"), ("A", "B", f"relay: {first}"),
        ("B", "C", f"relay: {what} under the pad"), ("C", "D", f"relay: {what} under the pad"), *second,
        ("a", "d", "ask-key: fetch this key"), ("d", "D", "Get key with key IDs"),
        ("a", "d", "a message under the key"),
    ]  # fmt: skip
    check_events(world, story)
    check_ranges(world, story, request_of(story))
    assert [e.what for e in story.learned] == ["the key", "the key", what, "the key"]


def test_key_that_was_relayed_at_once_is_told_event_by_event(world):
    """Whom the first node told, and who told the last one; in whatever order."""
    world.set_mode("parallel")
    _, key_ids = world.exchange("a", "d", keys=1)
    story = read(world, key_ids[0])

    told, difference = "send the last node the difference of your pads", "the difference of two pads"
    said = calls(story)
    assert said[:2] == [("a", "A", "Get key"), ("A", "database", "allocate ranges")]
    assert sorted(said[2:-3]) == sorted(
        [("A", "B", told), ("A", "C", told), ("B", "D", difference), ("C", "D", difference),
         ("A", "D", "the key under the first pad, and its check value")]
    )  # fmt: skip
    assert said.index(("A", "B", told)) + 1 == said.index(("B", "D", difference))
    check_ranges(world, story, request_of(story))
    assert [e.what for e in story.learned] == ["the key", "nothing", "nothing", "the key"]


def test_key_from_the_pool_is_told_event_by_event(world):
    """Nobody is asked for it but its own node; the story leads to the one with which it was made."""
    world.set_mode("qkp")
    _, key_ids = world.exchange("a", "d", keys=5)
    story = next(s for k in key_ids if (s := read(world, k)).refill is not None)

    assert calls(story) == [
        ("a", "A", "Get key"), ("a", "d", "ask-key: fetch this key"), ("d", "D", "Get key with key IDs"),
        ("a", "d", "a message under the key"),
    ]  # fmt: skip
    check_events(world, story)
    refill = read(world, story.refill)
    assert refill.refill is None
    assert story.material == refill.material
    check_ranges(world, refill, request_of(refill))


def test_session_is_told_event_by_event(world):
    """From ask_connection to the KSID, all agents of the path among it, and to its end."""
    world.set_mode("basic")
    ksid, _ = world.exchange("b", "d")
    until(lambda: any(e["event"] == "ksid_released" and e["ksid"] == ksid for e in world.journal("ctl")))
    until(lambda: len(read(world, ksid).traces) > 1)
    story = read(world, ksid)
    opening = [c for c in calls(story) if c[2] not in ("remove the session", "the end of the session")]

    assert opening[:6] == [
        ("b", "d", "ask_connection"), ("d", "D", "open_key_session"), ("D", "controller", "sdqkdn_application_new"),
        ("controller", "D", "application_answer"), ("b", "B", "open_key_session"),
        ("B", "controller", "sdqkdn_application_new"),
    ]  # fmt: skip
    told = [c for c in opening if c[0] == "controller" and "configure" in c[2]]
    assert sorted(told) == [
        ("controller", "B", "configure the path"), ("controller", "B", "configure the path and the session"),
        ("controller", "C", "configure the path"), ("controller", "D", "configure the path and the session"),
    ]  # fmt: skip
    assert told[-1] == ("controller", "B", "configure the path and the session"), "the KSID comes last"
    assert story.path == ["b", "c", "d"]
    check_events(world, story)


def test_client_without_traces_has_its_keys_story_told(world):
    """Its requests begin traces at the KMEs; the key's ID joins the master's half and the slave's."""
    world.set_mode("basic")
    reply = until(lambda: (r := world.enc_keys("a", "d", number=2)).ok and r)
    first, second = (k["key_ID"] for k in reply.body["keys"])
    assert world.dec_keys("d", "a", [first]).ok
    story = read(world, first)

    assert calls(story)[-2:] == [("A", "D", "the new key under the shared key"), ("d", "D", "Get key with key IDs")]
    assert len(story.traces) == 2
    check_events(world, story)
    assert len(read(world, second).traces) == 1, "nobody has fetched that one yet"


def test_first_request_of_a_client_tells_how_its_session_was_opened(world):
    """Registered by both nodes, admitted by the controller, and only then a key."""
    world.set_mode("basic")
    reply = until(lambda: (r := world.enc_keys("b", "c")).ok and r)
    story = read(world, reply.body["keys"][0]["key_ID"])

    assert calls(story)[:4] == [
        ("b", "B", "Get key"), ("B", "C", "register the slave's side"), ("C", "controller", "sdqkdn_application_new"),
        ("B", "controller", "sdqkdn_application_new"),
    ] or ("B", "controller", "sdqkdn_application_new") in calls(story)  # fmt: skip
    check_events(world, story)


def test_failed_key_is_told_up_to_where_it_failed(world):
    """Found in the list of the latest stories, as no application knows an ID of it."""
    world.set_mode("basic")
    until(lambda: world.enc_keys("a", "d").ok)
    world.stack.nodes["c"].kill()
    assert not world.enc_keys("a", "d").ok
    heading = journals.latest(world.stack.directory)[-1]
    story = read(world, heading.ident)
    world.stack.start_node("c").wait_ready()

    assert heading.outcome == "relay_broken"
    assert calls(story)[-1] == ("B", "C", "relay: the shared key under the pad")
    assert str(story.failure).startswith("b to c, relay")
    assert [m.receiver for m in story.messages if m.failed] == ["node:a", "node:b", "node:c"]
    assert {u.qc for m in story.messages for u in m.ranges if m.sender == "node:b"} == {LINKS[0][0], LINKS[1][0]}


def test_no_byte_of_a_key_is_in_any_story_or_journal(world):
    """Neither raw nor in hexadecimal digits nor in base64: of every key that the test ever got."""
    world.set_mode("otp")
    assert until(lambda: world.enc_keys("a", "d").ok)
    everything = b"".join(p.read_bytes() for p in world.stack.directory.rglob("journal.jsonl"))
    for heading in journals.latest(world.stack.directory, 1000):
        story = read(world, heading.ident)
        everything += svg.draw(story).encode() + text.draw(story).encode() + repr(story).encode()

    assert len(world.keys) >= 3
    assert b"key_delivered" in everything
    for key in world.keys:
        for piece in (key[:8], key[8:]):
            assert piece not in everything
            assert piece.hex().encode() not in everything.lower()
            assert base64.b64encode(piece).rstrip(b"=")[:10] not in everything
