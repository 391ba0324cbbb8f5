"""What an operator may ask of a running network, whoever asks and by whatever way: requests with their arguments. PURE.

The command line, `qkd` in another terminal, the Python API, lessons and programs all make these requests and no others.
Arguments and answers are JSON, with a JSON Schema each. docs/operator.md and docs/operator.schema.json are written out
of this list (`make interface`), and tests hold both and a live network to it. What is asked for and not done ends in
one sentence for people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decisions.parameters import MOST_RATE
from decisions.tunnels import EVERY_S, KINDS, POLICIES
from documents.checks import Malformed, integer, mapping, number, text
from scenario import shape
from testbed.operation import answers
from testbed.operation.answers import Schema

_LONGEST = 256
MOST_KEYS, MOST_KEY_BITS = 128, 1 << 20
_MOST_S = 1e11


@dataclass(frozen=True, slots=True)
class Kind:
    """What an argument may be: in words, in JSON Schema, and how a value is checked; Malformed."""

    words: str
    schema: Schema
    check: Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class Argument:
    """One that a request takes. `optional`: it may be left out, or be null."""

    kind: Kind
    meaning: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """`meaning`: for people. `answer`: its schema. `streams`: events come before the answer."""

    meaning: str
    answer: Schema
    arguments: Mapping[str, Argument]
    streams: bool = False


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise Malformed(field, "true or false")
    return value


def _texts(value: Any, field: str) -> list[str]:
    if not isinstance(value, list) or len(value) > MOST_KEYS:
        raise Malformed(field, f"an array of at most {MOST_KEYS} strings")
    return [text(one, field, longest=_LONGEST) for one in value]


_TEXT = {"type": "string", "minLength": 1, "maxLength": _LONGEST}
TEXT = Kind("string", _TEXT, lambda value, field: text(value, field, longest=_LONGEST))
TEXTS = Kind("array of strings", {"type": "array", "maxItems": MOST_KEYS, "items": _TEXT}, _texts)
FLAG = Kind("boolean", {"type": "boolean"}, _flag)
SECONDS = Kind(
    "number of seconds", {"type": "number", "minimum": 0, "maximum": _MOST_S},
    lambda value, field: number(value, field, low=0, high=_MOST_S),
)  # fmt: skip
SHAPE = Kind(
    f"object of {', '.join(shape.MEMBERS)}",
    {"type": "object", "properties": answers.SHAPE, "additionalProperties": False},
    lambda value, field: dict(mapping(value, field)),
)
VALUES = Kind("object of values by name", {"type": "object"}, lambda value, field: dict(mapping(value, field)))


def _whole(words: str, low: int, high: int) -> Kind:
    """Whole numbers between these."""
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Kind(words, schema, lambda value, field: integer(value, field, low=low, high=high))


KEYS = _whole("whole number", 1, MOST_KEYS)
BITS = _whole("whole number of bits", 8, MOST_KEY_BITS)
RATE = _whole("whole number of bytes a slot", 0, MOST_RATE)

_SAE = "name or ID of an SAE"
_QC = "name of a QC"
_FIBRE = "name of a fibre"
_TOWARDS = Argument(TEXT, "datacenter that the one direction meant leads to; else both", optional=True)
_MEASURE = Argument(FLAG, "whether the round trip is measured then; default true", optional=True)
_FAULT = {
    "kind": Argument(TEXT, "cut, qc, device, eve, node, pause, database, standby, partition or controller"),
    "where": Argument(
        TEXTS, "the datacenters that it names: two, one or none; behind the two of eve, a fraction. Of partition, and"
        " of database where it fails over, a host of the database",
    ),
}

REQUESTS: Mapping[str, Request] = {
    "status": Request(
        "The run, its controller, what is broken, which processes do not serve.",
        answers.STATUS, {},
    ),
    "names": Request(
        "All names that other requests take.", answers.NAMES, {}
    ),
    "controller": Request("What the controller tells of itself.", answers.CONTROLLER, {}),
    "processes": Request("Which processes do not serve.", answers.AWAY, {}),
    "topology": Request(
        "The network as it was built.",
        answers.TOPOLOGY, {},
    ),
    "qcs": Request(
        "The QCs as the controller sees them.",
        answers.QCS, {},
    ),
    "sessions": Request(
        "The key sessions.", answers.SESSIONS, {}
    ),
    "refusals": Request(
        "The last key sessions that were refused, the oldest first.",
        answers.REFUSALS, {},
    ),
    "saes": Request("The SAEs.", answers.SAES, {}),
    "sae": Request(
        "What an SAE that the testbed runs tells of itself.", answers.SAE, {"name": Argument(TEXT, _SAE)}
    ),
    "node": Request(
        "What a node tells of itself.", answers.NODE,
        {"name": Argument(TEXT, "name of a node")},
    ),
    "describe": Request(
        "Where certificate and key of somebody lie, and the URLs to call.", answers.DESCRIBED,
        {"name": Argument(TEXT, "name of an SAE or a node, ID of an SAE, or operator")},
    ),
    "open": Request(
        "Have one SAE open a key session with another one.", answers.OPENED,
        {
            "master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE),
            "key_size_bits": Argument(BITS, "of its keys; default 128", optional=True),
            "interval_s": Argument(SECONDS, "between its keys; default 5", optional=True),
            "duration_s": Argument(SECONDS, "after which it ends; default: when it is closed", optional=True),
        },
    ),
    "close": Request("End a key session.", answers.NULL, {"ksid": Argument(TEXT, "its KSID")}),
    "ksid": Request(
        "Which key session two SAEs have.", answers.KSID,
        {"master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE)},
    ),
    "get_key": Request(
        "Ask the master's KME for keys, as the master itself does (GS QKD 014, 5.3).",
        answers.KEYS,
        {
            "master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE),
            "number": Argument(KEYS, "of keys; default 1", optional=True),
            "size": Argument(BITS, "of each; default: the KME's", optional=True),
        },
    ),
    "get_key_with_ids": Request(
        "Ask the slave's KME for the same keys, as the slave itself does (GS QKD 014, 5.4).",
        answers.KEYS,
        {
            "master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE), "key_ids": Argument(TEXTS, "of the keys"),
        },
    ),
    "parameters": Request("What can be set, and how it is set.", answers.PARAMETERS_SET, {}),
    "set": Request(
        "Set a parameter.", answers.SAID,
        {"name": Argument(TEXT, "of the parameter"), "value": Argument(TEXT, "as one types it")},
    ),
    "set_parameters": Request(
        "Set several parameters at once.", answers.PARAMETERS_NOW, {"values": Argument(VALUES, "value by name")}
    ),
    "set_rate": Request(
        "Have a QC make so much.", answers.SAID,
        {"qc": Argument(TEXT, _QC), "low": Argument(RATE, "least"), "high": Argument(RATE, "most")},
    ),
    "set_generation": Request(
        "Have a QC generate, or not.", answers.SAID,
        {"qc": Argument(TEXT, _QC), "enabled": Argument(FLAG, "whether it is to")},
    ),
    "fibres": Request(
        "The fibres, as they are shaped now.",
        answers.FIBRES, {},
    ),
    "change_fibre": Request(
        "Change the shape of a fibre; what is not named stays.", answers.FIBRE,
        {
            "fibre": Argument(TEXT, _FIBRE), "shape": Argument(SHAPE, "what is to change"), "towards": _TOWARDS,
            "measure": _MEASURE,
        },
    ),
    "reset_fibre": Request(
        "Shape a fibre as the topology says.", answers.FIBRE,
        {"fibre": Argument(TEXT, _FIBRE), "measure": _MEASURE},
    ),
    "measure_fibre": Request(
        "What a fibre really does beside what is configured; takes seconds.",
        answers.MEASURED,
        {"fibre": Argument(TEXT, _FIBRE), "towards": _TOWARDS},
    ),
    "faults": Request("What is broken, the oldest first.", answers.FAULTS, {}),
    "break": Request("Break something.", answers.FAULT, _FAULT),
    "heal": Request(
        "Heal something, or everything.", answers.FAULTS,
        {name: Argument(of.kind, of.meaning, optional=True) for name, of in _FAULT.items()},
    ),
    "stories": Request(
        "The last keys and key sessions of which a story can be told.", answers.STORIES, {},
    ),
    "story": Request(
        "The story of a key, a key session or a trace.", answers.STORY,
        {"ident": Argument(TEXT, "key ID, KSID or trace ID")},
    ),
    "last_story": Request(
        "Of which key or key session two SAEs' last story is.", answers.IDENT,
        {
            "master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE),
            "kind": Argument(TEXT, "key or session; default key", optional=True),
        },
    ),
    "capture": Request(
        "Capture a fibre into the run directory.", answers.CAPTURED,
        {"a": Argument(TEXT, "datacenter"), "b": Argument(TEXT, "datacenter")},
    ),
    "end_capture": Request(
        "End that.", answers.CAPTURE_ENDED, {"a": Argument(TEXT, "datacenter"), "b": Argument(TEXT, "datacenter")}
    ),
    "tunnels": Request(
        "The tunnels between datacenters, each at both ends.",
        answers.TUNNELS, {},
    ),
    "open_tunnel": Request(
        "Open a tunnel between the hosts of two datacenters; it is up when the answer comes.",
        answers.TUNNEL,
        {
            "a": Argument(TEXT, "datacenter that leads"), "b": Argument(TEXT, "datacenter"),
            "kind": Argument(TEXT, f"{' or '.join(KINDS)}; default {KINDS[0]}", optional=True),
            "every_s": Argument(SECONDS, f"between two keys; default {EVERY_S:g}", optional=True),
            "policy": Argument(
                TEXT, f"when no key comes: {' or '.join(POLICIES)}; default {POLICIES[0]}", optional=True
            ),
        },
    ),
    "close_tunnel": Request(
        "End a tunnel.", answers.NULL, {"a": Argument(TEXT, "datacenter"), "b": Argument(TEXT, "datacenter")}
    ),
    "summary": Request("What the run has come to so far.", answers.SUMMARY, {}),
    "events": Request(
        "Events of the past, journal by journal.", answers.COUNTED,
        {
            "names": Argument(TEXTS, "of events; default all", optional=True),
            "since": Argument(SECONDS, "wall clock; default the beginning of the run", optional=True),
        },
        streams=True,
    ),
    "follow": Request(
        "Events as they happen, until the connection is closed or the run ends.", answers.NULL,
        {
            "names": Argument(TEXTS, "of events; default all", optional=True),
            "since": Argument(
                SECONDS, "wall clock, from which on what happened comes first, each event once; default now",
                optional=True,
            ),
        },
        streams=True,
    ),
    "stop": Request("End the run, in order.", answers.NULL, {}),
}  # fmt: skip


def checked(name: str, arguments: Any) -> dict[str, Any]:
    """The arguments of that request, as they are to be passed on; Malformed names what is wrong."""
    if name not in REQUESTS:
        raise Malformed("do", f"one of {', '.join(REQUESTS)}")
    wanted, given = REQUESTS[name].arguments, mapping(arguments, "arguments")
    for member in given:
        if member not in wanted:
            raise Malformed(f"arguments of {name}", f"only {', '.join(wanted)}" if wanted else "none")
    found = {}
    for member, argument in wanted.items():
        value = given.get(member)
        if value is not None:
            found[member] = argument.kind.check(value, member)
        elif not argument.optional:
            raise Malformed(member, f"a {argument.kind.words}: {argument.meaning}")
    return found


def arguments_schema(name: str) -> Schema:
    """The JSON Schema of that request's arguments. PURE."""
    wanted = REQUESTS[name].arguments
    members = {
        member: argument.kind.schema
        | ({"type": [argument.kind.schema["type"], "null"]} if argument.optional else {})
        | {"description": argument.meaning}
        for member, argument in wanted.items()
    }
    required = [member for member, argument in wanted.items() if not argument.optional]
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}


def schemas() -> Schema:
    """The interface for programs: by request, the schemas of its arguments, its events and its answer. PURE."""
    return {
        name: {"description": request.meaning, "arguments": arguments_schema(name)}
        | ({"event": answers.EVENT} if request.streams else {})
        | {"answer": request.answer}
        for name, request in REQUESTS.items()
    }


def in_page(page: str) -> str:
    """The page with its table of requests as it is to be. PURE."""
    head = "| request | arguments | what it does | answer |\n|---|---|---|---|\n"
    rows = []
    for name, request in REQUESTS.items():
        given = ", ".join(f"`{n}`{' (optional)' if a.optional else ''}" for n, a in request.arguments.items())
        rows.append(f"| `{name}` | {given} | {request.meaning} | {answers.in_words(request.answer)} |\n")
    return re.sub(rf"{re.escape(head)}(?:\|.*\n)*", lambda _: head + "".join(rows), page)


def _write(folder: Path) -> None:
    """Both pages of the interface anew."""
    page = folder / "operator.md"
    page.write_text(in_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "operator.schema.json").write_text(json.dumps(schemas(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write(Path(__file__).resolve().parents[2] / "docs")
