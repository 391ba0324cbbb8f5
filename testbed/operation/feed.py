"""What happens in a running network, as it happens: events for operators, out of the journals of its parts.

A journal is written by one part for whoever looks into that part. What operators are told is less, has names in place
of IDs, and stays the same when journals change. One thread reads on in all journals, and only while somebody follows.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telemetry import bugs, journal
from testbed.audit.evidence import STANDBY
from testbed.errors import UserError
from testbed.evidence.journals import Tail
from testbed.evidence.summary import relays_of
from testbed.operation import answers

Event = Mapping[str, Any]

_log = logging.getLogger(__name__)
_LOOK_S = 0.2
# Of events that wait for a follower to take them: a minute of a very busy network.
_MOST_WAITING = 20_000
NAMES = tuple(answers.EVENTS)
# By the name for operators, the name in a journal, where the two are not the same.
_INSIDE = {"session_opened": "session_open", "key_not_fetched": "key_failed", "relays_learned": "statement"}
_NAMES_INSIDE = frozenset(_INSIDE.get(name, name) for name in NAMES)


def facts_of(*names: str) -> list[str]:
    """What events of these names, or of all, may tell, in one list. PURE."""
    told = [facts for name, facts in answers.EVENTS.items() if name in (names or NAMES)]
    return list(dict.fromkeys(["event", "time", "master", "slave", *itertools.chain.from_iterable(told)]))


def told(event: Event, name_of: Callable[[str], str]) -> dict[str, Any] | None:
    """What operators are told of a journal's event; None if nothing. `name_of`: an SAE's, by its ID. PURE."""
    name = _name(event)
    if name is None:
        return None
    found: dict[str, Any] = {"event": name, "time": event["time"]}
    for side in ("master", "slave"):
        if f"{side}_sae" in event:
            found[side] = name_of(event[f"{side}_sae"])
    found |= {fact: event[fact] for fact in answers.EVENTS[name] if event.get(fact) is not None}
    if name == "key_delivered":
        found["node"] = event["who"].removeprefix("node:")
    elif name == "relays_learned":
        found |= {"number": len(event["key_ids"]), "learned": {one.node: one.what for one in relays_of(event)}}
    return found


def _name(event: Event) -> str | None:
    """The name for operators of a journal's event; None if they are told nothing of it. PURE."""
    name, of_slave = str(event["event"]), event.get("method") == "dec_keys"
    if name == "parameters" and event["who"] != "controller":
        return None  # a node has taken over what the controller has told already
    if name == "key_delivered" and of_slave:
        return None  # the master's delivery is told
    if name == "key_failed" and of_slave:
        return "key_not_fetched"
    if name == "statement":
        return "relays_learned" if relays_of(event) else None
    if name == "session_open":
        return "session_opened"
    return name if name in answers.EVENTS else None


def journals(run: Path, nodes: Sequence[str]) -> list[Path]:
    """Those that have the events, of a run in that directory with those nodes. PURE."""
    of_nodes = (f"{kind}/{node}" for node in nodes for kind in ("nodes", "saes", "gateways"))
    folders = ["controller", STANDBY, "faults", *of_nodes]
    return [run / folder / "journal.jsonl" for folder in folders]


@dataclass(slots=True, eq=False)
class _Follower:
    """Events that wait for it; whether it was so slow that some did not come."""

    waiting: queue.Queue[Event | None] = field(default_factory=queue.Queue)
    behind: bool = False


class Feed:
    """The events of the run in directory `run`, which has those `nodes`. Thread-safe."""

    def __init__(self, run: Path, nodes: Sequence[str], name_of: Callable[[str], str]) -> None:
        self._journals = journals(run, nodes)
        self._name_of = name_of
        self._lock = threading.Lock()
        self._followers: set[_Follower] = set()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def past(self, names: Sequence[str] | None, since: float) -> Iterator[Event]:
        """Events of the past, one journal after the other. UserError for a name that no event has."""
        wanted = _wanted(names)
        inside = {_INSIDE.get(name, name) for name in wanted}
        for path in self._journals:
            with contextlib.suppress(FileNotFoundError):
                yield from self._told(journal.events(path, *inside), wanted, since)

    def follow(self, names: Sequence[str] | None, since: float | None = None) -> Iterator[Event]:
        """Events until the run ends: from now on, or from a wall-clock time on, be it past. UserError to who does not
        keep up: nobody is held up by it.

        The first one is `answers.FOLLOWING`, which says that all later ones come. From a time on, each comes once, in
        the order of its journal; and there is no keeping up, because what was not taken yet waits in the journals.
        """
        wanted = _wanted(names)
        return self._follow(wanted) if since is None else self._follow_from(wanted, since)

    def _follow(self, wanted: frozenset[str]) -> Iterator[Event]:
        follower = _Follower()
        with self._lock:
            if self._over.is_set():
                return
            self._followers.add(follower)
            if self._thread is None:
                tail = Tail(self._journals, _NAMES_INSIDE)
                tail.skip()
                self._thread = bugs.watched_thread(self._run, tail, name="feed", stopped=lambda: True)
                self._thread.start()
        try:
            yield {"event": answers.FOLLOWING, "time": time.time()}
            while (event := follower.waiting.get()) is not None:
                if follower.behind:
                    raise UserError(f"too slow: {_MOST_WAITING} events wait to be read: follow fewer of them")
                if event["event"] in wanted:
                    yield event
        finally:
            with self._lock:
                self._followers.discard(follower)

    def _follow_from(self, wanted: frozenset[str], since: float) -> Iterator[Event]:
        """With a look of its own at the journals: it is elsewhere in them than who follows from now on."""
        tail = Tail(self._journals, {_INSIDE.get(name, name) for name in wanted})
        yield {"event": answers.FOLLOWING, "time": time.time()}
        while not self._over.is_set():
            yield from self._told(tail.new(), wanted, since)
            self._over.wait(_LOOK_S)

    def _told(self, events: Iterable[Event], wanted: frozenset[str], since: float) -> Iterator[Event]:
        for event in events:
            found = told(event, self._name_of) if event["time"] >= since else None
            if found is not None and found["event"] in wanted:
                yield found

    def close(self) -> None:
        """The run ends: nothing follows."""
        with self._lock:
            self._over.set()
            for follower in self._followers:
                follower.waiting.put(None)
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self, tail: Tail) -> None:
        while not self._over.wait(_LOOK_S):
            new = [found for event in tail.new() if (found := told(event, self._name_of)) is not None]
            with self._lock:
                for event in sorted(new, key=lambda event: float(event["time"])):
                    for follower in self._followers:
                        follower.behind |= follower.waiting.qsize() >= _MOST_WAITING
                        if not follower.behind:
                            follower.waiting.put(event)
                if not self._followers:  # nobody follows any more
                    self._thread = None
                    return


def _wanted(names: Sequence[str] | None) -> frozenset[str]:
    for name in names or ():
        if name not in NAMES:
            raise UserError(f"no event {name!r}: there are {', '.join(NAMES)}")
    return frozenset(names or NAMES)
