"""What an operator may ask of a running network, whoever asks and by whatever way: requests with their arguments. PURE.

The command line, `qkd` in another terminal, the Python API, lessons and programs all make these requests and no others.
Arguments and answers are JSON; docs/operator.md describes them, and is held to this list by a test. What is asked for
and not done ends in one sentence for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from decisions.parameters import MOST_RATE
from decisions.tunnels import EVERY_S, KINDS, POLICIES
from documents.checks import Malformed, integer, mapping, number, text

_LONGEST = 256
MOST_KEYS, MOST_KEY_BITS = 128, 1 << 20
_MOST_S = 1e11


@dataclass(frozen=True, slots=True)
class Kind:
    """What an argument may be: in words, and how a value is checked; Malformed."""

    words: str
    check: Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class Argument:
    """One that a request takes. `optional`: it may be left out, or be null."""

    kind: Kind
    meaning: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """`meaning` and `answer`: for people. `streams`: events come before the answer."""

    meaning: str
    answer: str
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


TEXT = Kind("string", lambda value, field: text(value, field, longest=_LONGEST))
TEXTS = Kind("array of strings", _texts)
FLAG = Kind("boolean", _flag)
SECONDS = Kind("number of seconds", lambda value, field: number(value, field, low=0, high=_MOST_S))
KEYS = Kind("whole number", lambda value, field: integer(value, field, low=1, high=MOST_KEYS))
BITS = Kind("whole number of bits", lambda value, field: integer(value, field, low=8, high=MOST_KEY_BITS))
RATE = Kind("whole number of bytes a slot", lambda value, field: integer(value, field, low=0, high=MOST_RATE))
SHAPE = Kind(
    "object of delay_ms, jitter_ms, loss_percent, bandwidth_mbit", lambda value, field: dict(mapping(value, field))
)

_SAE = "name or ID of an SAE"
_QC = "name of a QC"
_FIBRE = "name of a fibre"
_TOWARDS = Argument(TEXT, "datacenter that the one direction meant leads to; else both", optional=True)
_FAULT = {
    "kind": Argument(TEXT, "cut, qc, device, eve, node, pause, database, standby or controller"),
    "where": Argument(TEXTS, "the datacenters that it names: two, one or none; behind the two of eve, a fraction"),
}

REQUESTS: Mapping[str, Request] = {
    "status": Request(
        "The run, its controller, what is broken, which processes do not serve.",
        "`run`, `topology`, `since`, `controller` (null if it does not answer, then `problem` says why), `exposed`,"
        " `broken`, `away`, `devices` (by QC of a device of yours, what is wrong with it)", {},
    ),
    "names": Request(
        "All names that other requests take.", "`nodes`, `fibres`, `qcs`, `saes`, `parameters`, arrays of strings", {}
    ),
    "topology": Request(
        "The network as it was built.",
        "`name`, `description`, `nodes` (`name`, `label`, `x`, `y`), `fibres` (`name`, `a`, `b`, `qcs`)", {},
    ),
    "qcs": Request(
        "The QCs as the controller sees them.",
        "an array: `qc`, `ends`, `status`, `enabled`, `rate` (`low` and `high`, bytes a slot), figures a slot", {},
    ),
    "sessions": Request(
        "The key sessions.", "an array: `ksid`, `master`, `slave` (names), `state`, `mode`, `path`, `implicit`", {}
    ),
    "refusals": Request(
        "The last key sessions that were refused, the oldest first.",
        "an array: `time`, `master`, `slave` (names), `message`", {},
    ),
    "saes": Request("The SAEs.", "an array: `name`, `node`, `id`, `external`", {}),
    "node": Request(
        "What a node tells of itself.", "`qcs` with stored bytes, `sessions`, `parameters`",
        {"name": Argument(TEXT, "name of a node")},
    ),
    "describe": Request(
        "Where certificate and key of somebody lie, and the URLs to call.", "an array of groups of [what, value]",
        {"name": Argument(TEXT, "name of an SAE or a node, ID of an SAE, or operator")},
    ),
    "open": Request(
        "Have one SAE open a key session with another one.", "`ksid`, `path`",
        {
            "master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE),
            "key_size_bits": Argument(BITS, "of its keys; default 128", optional=True),
            "interval_s": Argument(SECONDS, "between its keys; default 5", optional=True),
            "duration_s": Argument(SECONDS, "after which it ends; default: when it is closed", optional=True),
        },
    ),
    "close": Request("End a key session.", "null", {"ksid": Argument(TEXT, "its KSID")}),
    "ksid": Request(
        "Which key session two SAEs have.", "`ksid`", {"master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE)}
    ),
    "get_key": Request(
        "Ask the master's KME for keys, as the master itself does (GS QKD 014, 5.3).",
        "the KME's: `keys`, an array of `key_ID` and `key` (Base64)",
        {
            "master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE),
            "number": Argument(KEYS, "of keys; default 1", optional=True),
            "size": Argument(BITS, "of each; default: the KME's", optional=True),
        },
    ),
    "get_key_with_ids": Request(
        "Ask the slave's KME for the same keys, as the slave itself does (GS QKD 014, 5.4).",
        "the KME's: `keys`, an array of `key_ID` and `key` (Base64)",
        {
            "master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE), "key_ids": Argument(TEXTS, "of the keys"),
        },
    ),
    "parameters": Request("What can be set, and how it is set.", "an object: value by name", {}),
    "set": Request(
        "Set a parameter.", "`said`, one line",
        {"name": Argument(TEXT, "of the parameter"), "value": Argument(TEXT, "as one types it")},
    ),
    "set_rate": Request(
        "Have a QC make so much.", "`said`, one line",
        {"qc": Argument(TEXT, _QC), "low": Argument(RATE, "least"), "high": Argument(RATE, "most")},
    ),
    "set_generation": Request(
        "Have a QC generate, or not.", "`said`, one line",
        {"qc": Argument(TEXT, _QC), "enabled": Argument(FLAG, "whether it is to")},
    ),
    "fibres": Request(
        "The fibres, as they are shaped now.",
        "an array: `name`, `a`, `b`, `lit`, `directions` (`from`, `to` and a shape)", {},
    ),
    "change_fibre": Request(
        "Change the shape of a fibre; what is not named stays.", "the fibre, and `rtt`: configured and measured, ms",
        {"fibre": Argument(TEXT, _FIBRE), "shape": Argument(SHAPE, "what is to change"), "towards": _TOWARDS},
    ),
    "reset_fibre": Request(
        "Shape a fibre as the topology says.", "as of `change_fibre`", {"fibre": Argument(TEXT, _FIBRE)}
    ),
    "measure_fibre": Request(
        "What a fibre really does beside what is configured; takes seconds.",
        "an array: `from`, `to`, `figures` (`quantity`, `unit`, `configured`, `measured`, `low`, `high`)",
        {"fibre": Argument(TEXT, _FIBRE), "towards": _TOWARDS},
    ),
    "faults": Request("What is broken, the oldest first.", "an array: `name`, `kind`, `where`, `since`", {}),
    "break": Request("Break something.", "the fault", _FAULT),
    "heal": Request(
        "Heal something, or everything.", "an array of the faults that are healed",
        {name: Argument(of.kind, of.meaning, optional=True) for name, of in _FAULT.items()},
    ),
    "stories": Request(
        "The last keys and key sessions of which a story can be told.", "an array: `at_s`, `ident`, `what`, `outcome`,"
        " `kind`, `pair` (names)", {},
    ),
    "story": Request(
        "The story of a key, a key session or a trace.", "`ident`, `text`, `picture` (a file)",
        {"ident": Argument(TEXT, "key ID, KSID or trace ID")},
    ),
    "last_story": Request(
        "Of which key or key session two SAEs' last story is.", "`ident`",
        {
            "master": Argument(TEXT, _SAE), "slave": Argument(TEXT, _SAE),
            "kind": Argument(TEXT, "key or session; default key", optional=True),
        },
    ),
    "capture": Request(
        "Capture a fibre into the run directory.", "`file`",
        {"a": Argument(TEXT, "datacenter"), "b": Argument(TEXT, "datacenter")},
    ),
    "end_capture": Request(
        "End that.", "`file`", {"a": Argument(TEXT, "datacenter"), "b": Argument(TEXT, "datacenter")}
    ),
    "tunnels": Request(
        "The tunnels between datacenters, each at both ends.",
        "an array: `node`, `peer`, `from`, `to` (addresses), `leads`, `kind`, `every_s`, `policy`, `state`, `key_id`,"
        " `since`, `keys`, `problem`, `received_bytes`, `sent_bytes`, `data_path`", {},
    ),
    "open_tunnel": Request(
        "Open a tunnel between the hosts of two datacenters; it is up when the answer comes.",
        "its leading end, as in `tunnels`",
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
        "End a tunnel.", "null", {"a": Argument(TEXT, "datacenter"), "b": Argument(TEXT, "datacenter")}
    ),
    "summary": Request("What the run has come to so far.", "as in summary.json: `sessions`, `keys`, ...", {}),
    "events": Request(
        "Events of the past, journal by journal.", "`number` of events that came before it",
        {
            "names": Argument(TEXTS, "of events; default all", optional=True),
            "since": Argument(SECONDS, "wall clock; default the beginning of the run", optional=True),
        },
        streams=True,
    ),
    "follow": Request(
        "Events as they happen, until the connection is closed or the run ends.", "null, when the run ends",
        {"names": Argument(TEXTS, "of events; default all", optional=True)}, streams=True,
    ),
    "stop": Request("End the run, in order.", "null", {}),
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
