"""What journals of nodes and applications say is held to a form where it comes from another machine."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from documents.checks import Malformed
from testbed.evidence import events

ROOT = Path(__file__).resolve().parents[3]
TRACE, SPAN = "0123456789abcdef" * 2, "0123456789abcdef"
DELIVERED = {
    "time": 1.8e9, "mono": 10.5, "who": "node:a", "event": "key_delivered", "method": "enc_keys", "key_ids": ["k"],
    "duration_ms": 3.5, "master_sae": "m", "slave_sae": "s", "ksid": "i", "hops": 2, "mode": "basic",
    "size_bits": 256, "source": "direct", "trace": TRACE, "span": SPAN,
}  # fmt: skip
GIVEN = {
    "time": 1.8e9, "mono": 10.5, "who": "node:a", "event": "statement", "statement": "allocate", "at": 1.8e9,
    "duration_ms": 1.5, "allocation": "r", "ksid": "i", "key_ids": ["k"], "mode": "otp", "cipher": None,
    "path": ["a", "b"], "at_once": False, "ranges": [["a-b/1", 0, 32, "pad"]],
}  # fmt: skip


def line(event: object) -> bytes:
    """As a journal has it."""
    return json.dumps(event).encode()


def without(event: dict[str, Any], member: str) -> dict[str, Any]:
    """The same, and not that."""
    return {name: value for name, value in event.items() if name != member}


@pytest.mark.parametrize("event", [
    DELIVERED, GIVEN, without(GIVEN, "at_once"), {**GIVEN, "later": [{"new": 1}]},
    {**without(GIVEN, "ranges"), "error": "database_unreachable"}, {**GIVEN, "ranges": []},
    {**DELIVERED, "event": "key_failed", "cause": "too_many_sessions", "who": "node b", "most": 3000},
])  # fmt: skip
def test_what_a_node_writes_is_taken(event):
    """With members that are new, and with what a refusal leaves out."""
    events.check(line(event), "nodes", "a")


@pytest.mark.parametrize(("event", "why"), [
    ([], "line: expected an object"), (7, "line: expected an object"), ("x", "line: expected an object"),
    ({}, "event: expected one that a node writes"), ({**DELIVERED, "event": ["x"]}, "event: expected one"),
    ({**DELIVERED, "event": "leads"}, "event: expected one"), ({**DELIVERED, "event": "database_switch"}, "event: ex"),
    ({**DELIVERED, "event": "key"}, "event: expected one"), ({**DELIVERED, "method": "x"}, "event: expected one"),
    ({**DELIVERED, "who": "node:b"}, "key_delivered enc_keys: who: expected node:a"),
    ({**DELIVERED, "who": "controller"}, "who: expected node:a"), (without(DELIVERED, "who"), "who: expected node:a"),
    (without(DELIVERED, "time"), "time: expected to be there"), ({**DELIVERED, "time": "now"}, "time: exp"),
    ({**DELIVERED, "time": -1}, "time: expected a number"), ({**DELIVERED, "mono": 1e300}, "mono: expected a number"),
    (without(DELIVERED, "hops"), "hops: expected to be there"), ({**DELIVERED, "hops": True}, "hops: expected an int"),
    ({**DELIVERED, "hops": 1e99}, "hops: expected an integer"), ({**DELIVERED, "key_ids": "k"}, "key_ids: exp"),
    ({**DELIVERED, "key_ids": [{}]}, "key_ids: expected a text"), ({**DELIVERED, "duration_ms": -3}, "duration_ms: e"),
    ({**DELIVERED, "duration_ms": 10**400}, "duration_ms: expected a number"),
    ({**DELIVERED, "duration_ms": float("nan")}, "line: expected JSON"), ({**DELIVERED, "x": float("inf")}, "line:"),
    ({**DELIVERED, "mode": "\ud800"}, "line: expected JSON"), ({**DELIVERED, "trace": "x"}, "trace: expected 16 or 32"),
    (without(DELIVERED, "trace"), "trace: expected to be there beside span"),
    ({**DELIVERED, "above": SPAN}, "parent: expected to be there beside above"),
    ({**DELIVERED, "x": [[[[[[[]]]]]]]}, "a member: expected no more than 6 lists and objects"),
    (without(GIVEN, "path"), "allocate given: path: expected to be there"),
    ({**GIVEN, "path": ["a"]}, "path: expected an array of at least 2 entries"),
    ({**GIVEN, "ranges": [["a-b/1", 0, 32]]}, "ranges: expected rows of QC, start, end and purpose"),
    ({**GIVEN, "ranges": [["a-b/1", -1, 32, "pad"]]}, "ranges: expected an integer from 0"),
    ({**GIVEN, "ranges": 7}, "ranges: expected an array"), ({**GIVEN, "cipher": 7}, "cipher: expected a text"),
])  # fmt: skip
def test_what_no_node_writes_is_told_by_its_member_in_one_line(event, why):
    """Types, ranges, members that readers take for granted, events of other parties, and other parties' names."""
    with pytest.raises(Malformed, match=rf"^[^\n]*{why}[^\n]*$"):
        events.check(line(event), "nodes", "a")


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_001, b"\xff", b"[" * 2000 + b"]" * 2000, b"{} {}"])
def test_line_that_is_no_json_is_no_event(text):
    """However deep or long."""
    with pytest.raises(Malformed, match=r"^line: expected (JSON|an object)$"):
        events.check(text, "nodes", "a")


def test_name_of_a_member_that_is_a_strangers_is_not_repeated():
    """It may hold anything; the line goes to terminals and logs."""
    with pytest.raises(Malformed) as found:
        events.check(line({**DELIVERED, "\x1b[2J\n": [[[[[[[]]]]]]]}), "nodes", "a")

    assert str(found.value).isprintable()


def test_every_event_that_nodes_and_applications_write_has_a_form_and_no_other_has():
    """By their sources: an event that is new needs one, else a worker that writes it is given up."""
    shared = {"call", "events_lost", "bug", "machine_refused"}  # of mtls/ and telemetry/
    by_name = {"nodes": {"statement"}, "saes": {"session_refused", "session_failed"}}  # given to a function by name

    for kind, room in (("nodes", "node"), ("saes", "sae")):
        paths = [path for path in (ROOT / room).rglob("*.py") if "vpn" not in path.parts]
        calls = [node for path in paths for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        written = {
            call.args[0].value for call in calls
            if isinstance(call.func, ast.Attribute) and call.func.attr == "event" and call.args
            and isinstance(call.args[0], ast.Constant)
        }  # fmt: skip
        assert {form.partition(" ")[0] for form in events.BY_KIND[kind]} == written | shared | by_name[kind]
