"""What a run left behind for an audit: read, typed, and refused where it is not of the form that it must have.

Each thing is taken from whoever is the one to know it. What the run was meant to be comes from its plan; what QCs made
from the journal of the QC emulators, and of devices of the user's from those of the nodes; the TTL from the
controller's; what a node took from its local database; what was allocated, and for which keys, from the shared one;
which keys SAEs got from theirs; which processes were killed, from the journal of the run that started them.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

from telemetry import journal

RECORDS = "audit.json"
OF_PROCESSES = ("begun", "ready", "failed", "killed", "paused", "woken")  # events of the run's journal
# Events of gateways: a tunnel's end goes by a key from now on, has no key, goes on under an old one, is there no more.
OF_TUNNELS = KEYED, CLOSED, HELD, ENDED = ("tunnel_keyed", "tunnel_closed", "tunnel_held", "tunnel_ended")
STANDBY = "controller-ctl2"  # process and folder of the second controller
_EVENTS_LOST = "events_lost"  # see telemetry.journal
_MOST = (1 << 63) - 1  # of any whole number: what SQLite and PostgreSQL hold

Event = Mapping[str, Any]
Row = TypeVar("Row", bound="tuple[Any, ...]")


class Unreadable(ValueError):
    """A record is missing or not of the form that it must have; the text says which, and what was expected."""


class Qc(NamedTuple):
    """A QC as it was meant to be: the nodes at its ends, and its slot in seconds."""

    a: str
    b: str
    slot_s: float


class Sae(NamedTuple):
    """An SAE as it was meant to be: its node, and 1 if it is one of the run's own applications, which keep journals."""

    node: str
    ours: int


class Balance(NamedTuple):
    """A QC's stream at one of its ends: where its newest block ends, and how many bytes came to what."""

    qc: str
    epoch: int
    head: int
    generated: int
    used: int
    expired: int
    stored: int
    differing: int


class Take(NamedTuple):
    """Bytes [start, end) that a node took out of its local database `at` that time for the allocation `request`.

    Times are seconds of CLOCK_BOOTTIME; `made` is when the node believes that the oldest of the bytes was made.
    """

    qc: str
    epoch: int
    start: int
    end: int
    made: float
    at: float
    request: str


class Allocation(NamedTuple):
    """Bytes [start, end) that the shared database gave to `node` on link number `position`, from 1, of a path."""

    request: str
    position: int
    qc: str
    epoch: int
    start: int
    end: int
    node: str


class Key(NamedTuple):
    """A key that the allocation `request` was made for."""

    key_id: str
    request: str
    master_sae: str
    slave_sae: str


class Switch(NamedTuple):
    """When another server took over."""

    mono: float


@dataclass(frozen=True, slots=True)
class Meant:
    """What the run was meant to be: its nodes, its QCs by name, its SAEs by ID, and the TTL at its start in slots.

    `gateways`: by node, the IDs of the SAEs that key its tunnels. `switches`: when another server took over from the
    shared database for which commits had not waited, by the monotonic clock.
    """

    nodes: frozenset[str]
    qcs: Mapping[str, Qc]
    saes: Mapping[str, Sae]
    ttl_slots: int
    gateways: Mapping[str, str] = field(default_factory=dict)
    switches: Sequence[float] = ()

    @property
    def hosts(self) -> list[str]:
        """The nodes with applications of the run's own."""
        return sorted({sae.node for sae in self.saes.values() if sae.ours})


@dataclass(frozen=True, slots=True)
class Account:
    """What a node's local database says."""

    streams: Sequence[Balance]
    taken: Sequence[Take]


@dataclass(frozen=True, slots=True)
class Records:
    """What was collected when the run had ended. `lacking`: why a node's account is not there."""

    meant: Meant
    accounts: Mapping[str, Account]
    lacking: Mapping[str, str]
    allocations: Sequence[Allocation]
    keys: Sequence[Key]


@dataclass(frozen=True, slots=True)
class Journals:
    """Events as they were written, each gone through once; of nodes, SAEs and gateways by the node. None: no journal.

    `run`: what the run says of its processes. `devices`: what nodes say of what they had from devices.
    """

    run: Iterable[Event] | None
    qcs: Iterable[Event] | None
    controller: Iterable[Event] | None
    nodes: Mapping[str, Iterable[Event] | None]
    saes: Mapping[str, Iterable[Event] | None]
    gateways: Mapping[str, Iterable[Event] | None] = field(default_factory=dict)
    devices: Mapping[str, Iterable[Event] | None] = field(default_factory=dict)
    standby: Iterable[Event] | None = None  # of the second controller, where there is one


def read_records(path: Path) -> Records:
    """The records in a file; Unreadable."""
    try:
        document = json.loads(path.read_text(), object_pairs_hook=_no_member_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: {_why(error)}: only a run that came to its end can be audited") from None
    return records(document)


def read_journals(run: Path, meant: Meant) -> Journals:
    """The journals of the run in folder `run`, which are read as they are gone through."""

    def of(folder: str, *names: str) -> Iterator[Event] | None:
        path = run / folder / "journal.jsonl"
        return _lines(path, (*names, _EVENTS_LOST)) if path.exists() else None

    of_controller = ("started", "stopped", "parameters", "ksid_assigned")
    of_node = ("started", "stopped", "statement", "used", "lost", "block_differs", "key_delivered")
    of_host = ("started", "stopped", "session_open", "key", "key_error", "message")
    of_gateway = ("started", "stopped", "key", "key_error", *OF_TUNNELS)
    return Journals(
        run=of("logs", *OF_PROCESSES),
        qcs=of("qcs", "started", "stopped", "block", "block_lost"),
        controller=of("controller", *of_controller),
        standby=of(STANDBY, *of_controller),
        nodes={node: of(f"nodes/{node}", *of_node) for node in sorted(meant.nodes)},
        saes={node: of(f"saes/{node}", *of_host) for node in meant.hosts},
        devices={node: of(f"nodes/{node}", "device_block", "device_gap") for node in sorted(meant.nodes)},
        gateways={node: of(f"gateways/{node}", *of_gateway) for node in sorted(meant.gateways)},
    )


def records(document: Any) -> Records:
    """The records in a document, every value of them checked; Unreadable. PURE."""
    meant, accounts = _member(document, "meant", dict, RECORDS), _member(document, "nodes", dict, RECORDS)
    return Records(
        meant=Meant(
            frozenset(_member(meant, "nodes", list, "meant")),
            {qc: _row(Qc, row, f"meant.qcs.{qc}") for qc, row in _member(meant, "qcs", dict, "meant").items()},
            {sae: _row(Sae, row, f"meant.saes.{sae}") for sae, row in _member(meant, "saes", dict, "meant").items()},
            _member(meant, "ttl_slots", int, "meant"),
            {node: str(sae) for node, sae in _member(meant, "gateways", dict, "meant").items()},
            [at for (at,) in _rows(Switch, meant, "switches", "meant")] if "switches" in meant else (),
        ),
        accounts={node: _account(account, f"nodes.{node}") for node, account in accounts.items()},
        lacking=_member(document, "lacking", dict, RECORDS),
        allocations=_rows(Allocation, document, "allocations", RECORDS),
        keys=_rows(Key, document, "keys", RECORDS),
    )


def _lines(path: Path, names: Sequence[str]) -> Iterator[Event]:
    try:
        for event in journal.events(path, *names):
            if isinstance(event, dict) and event.get("event") in names:
                yield event
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {_why(error)}") from None


def _why(error: Exception) -> str:
    """Without the name of the file, which an OSError's own text has, too."""
    return getattr(error, "strerror", None) or str(error)


def fact(event: Event, name: str, kind: type, where: str) -> Any:
    """A member of an event in the journal of `where`; Unreadable unless it is of that kind."""
    return _member(event, name, kind, f"journal of {where}, event {event.get('event')}")


def lost_events(event: Event, where: str) -> list[str]:
    """The finding that a journal lacks events, for which there was no room on the disk; empty for all other events."""
    if event["event"] != _EVENTS_LOST:
        return []
    return [f"{where}: the journal lacks {fact(event, 'number', int, where)} events, for which there was no room"]


def rows_of(event: Event, name: str, kind: type[Row], where: str) -> list[Row]:
    """A member of an event that is an array of rows; Unreadable."""
    return _rows(kind, event, name, f"journal of {where}, event {event.get('event')}")


def _account(document: Any, where: str) -> Account:
    streams = []
    for i, stream in enumerate(_member(document, "streams", list, where)):
        values = [_member(stream, name, kind, f"{where}.streams[{i}]") for name, kind in _kinds(Balance).items()]
        streams.append(Balance(*values))
    return Account(streams, _rows(Take, document, "taken", where))


_EXPECTED = {
    int: "a whole number from 0", float: "a number", str: "a text", list: "an array", dict: "an object",
}  # fmt: skip


def _member(document: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(document, Mapping) or name not in document or not _fits(document[name], kind):
        raise Unreadable(f"{where}: {name}: expected {_EXPECTED[kind]}")
    return document[name]


def _rows(kind: type[Row], document: Any, name: str, where: str) -> list[Row]:
    return [_row(kind, row, f"{where}: {name}[{i}]") for i, row in enumerate(_member(document, name, list, where))]


def _row(kind: type[Row], values: Any, where: str) -> Row:
    kinds = _kinds(kind)
    if not isinstance(values, list) or len(values) != len(kinds):
        raise Unreadable(f"{where}: expected [{', '.join(kinds)}]")
    for (name, of), value in zip(kinds.items(), values, strict=True):
        if not _fits(value, of):
            raise Unreadable(f"{where}: {name}: expected {_EXPECTED[of]}")
    return kind(*values)


@functools.cache
def _kinds(kind: type[Row]) -> dict[str, type]:
    return get_type_hints(kind)


def _fits(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if kind is int:
        return isinstance(value, int) and 0 <= value <= _MOST
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _no_member_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a member is there twice")
    return document
