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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telemetry import bugs, journal
from testbed.audit.evidence import STANDBY
from testbed.errors import UserError
from testbed.evidence.journals import Tail
from testbed.operation import answers

Event = Mapping[str, Any]

_log = logging.getLogger(__name__)
_LOOK_S = 0.2
# Of events that wait for a follower to take them: a minute of a very busy network.
_MOST_WAITING = 20_000
# By the name in a journal, the name for operators. `answers.EVENTS` has what is told of each.
_TOLD = {"session_open" if name == "session_opened" else name: name for name in answers.EVENTS}
NAMES = tuple(answers.EVENTS)


def facts_of(*names: str) -> list[str]:
    """What events of these names, or of all, may tell, in one list. PURE."""
    told = [facts for name, facts in answers.EVENTS.items() if name in (names or NAMES)]
    return list(dict.fromkeys(["event", "time", "master", "slave", *itertools.chain.from_iterable(told)]))


def told(event: Event, name_of: Callable[[str], str]) -> dict[str, Any] | None:
    """What operators are told of a journal's event; None if nothing. `name_of`: an SAE's, by its ID. PURE."""
    if event["event"] not in _TOLD or (event["event"].startswith("key_") and event.get("method") != "enc_keys"):
        return None
    if event["event"] == "parameters" and event["who"] != "controller":
        return None  # a node has taken over what the controller has told already
    name = _TOLD[event["event"]]
    found: dict[str, Any] = {"event": name, "time": event["time"]}
    for side in ("master", "slave"):
        if f"{side}_sae" in event:
            found[side] = name_of(event[f"{side}_sae"])
    return found | {fact: event[fact] for fact in answers.EVENTS[name] if event.get(fact) is not None}


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
        inside = [inner for inner, name in _TOLD.items() if name in wanted]
        for path in self._journals:
            with contextlib.suppress(FileNotFoundError):
                for event in journal.events(path, *inside):
                    if event["time"] >= since and (found := told(event, self._name_of)) is not None:
                        yield found

    def follow(self, names: Sequence[str] | None) -> Iterator[Event]:
        """Events from now on, until the run ends. UserError to who does not keep up: nobody is held up by it.

        The first one is `answers.FOLLOWING`, which says that all later ones come.
        """
        wanted = _wanted(names)
        follower = _Follower()
        with self._lock:
            if self._over.is_set():
                return
            self._followers.add(follower)
            if self._thread is None:
                tail = Tail(self._journals, _TOLD)
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
