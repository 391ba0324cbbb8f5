"""Applications that ask for an association (GS QKD 015, clause 5.2): told to the controller, answered by what it does.

The node sends sdqkdn_application_new. That the association comes to be, it learns from its configuration: a qkd_app of
that pair. A controller that knows our module says, besides, that the other side is awaited, or why it refuses.

What was taken back is told to the controller until it has confirmed it, or has dropped it by itself.
A word may go into a connection whose other side is gone. The controller would then go on having half a key session,
and whoever registers the other half would get one whose peer does not want it any more. A node that restarts tells of
none: it has forgotten who waited, too.
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from etsi import gs015
from etsi.gs004 import QoS
from etsi.sae_id import from_uri, to_uri
from ietf.yang import Refusal
from mtls import deadline
from mtls.serve import Problem
from node import limits
from node.associations.sessions import Association, Sessions
from node.limits import LOOK_S, MOST_PENDING, OPENING_S, STANDARD_OPENING_S
from node.tree.model import node_id
from node.tree.notifications import EXTENDED, Streams
from telemetry import trace

_Pair = tuple[str, str]  # master, slave


@dataclass(slots=True)
class _Withdrawn:
    """`name`: by which it is confirmed. `told`: when last, and to which of the controllers that came; None: not yet."""

    name: str
    since: float
    told: tuple[float, int] | None = None


class Withdrawals:
    """`say` tells the controller that a pair's registration is withdrawn, and under which name. Thread-safe.

    `now` gives seconds that only grow.
    """

    def __init__(
        self, streams: Streams, say: Callable[[str, str, str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._streams = streams
        self._say = say
        self._now = now
        self._lock = threading.Lock()
        self._withdrawn: dict[_Pair, _Withdrawn] = {}  # the oldest first
        streams.on_controller(self.tell)

    def add(self, pair: _Pair) -> None:
        """The pair's registration is taken back."""
        with self._lock:
            self._withdrawn.pop(pair, None)
            if len(self._withdrawn) >= limits.MOST_PENDING:
                del self._withdrawn[next(iter(self._withdrawn))]
            self._withdrawn[pair] = _Withdrawn(secrets.token_hex(8), self._now())
        self.tell()

    def forget(self, pair: _Pair) -> None:
        """The pair registers again: nothing is told of what was before."""
        with self._lock:
            self._withdrawn.pop(pair, None)

    def tell(self) -> None:
        """Whoever listens hears of what it has not confirmed, again and again."""
        with self._lock:
            now, who = self._now(), self._streams.controllers
            dropped = now - limits.HALF_OPEN_S
            self._withdrawn = {pair: w for pair, w in self._withdrawn.items() if w.since > dropped}
            if self._streams.controlled != EXTENDED:  # the standard has no such word
                return
            for (master, slave), withdrawn in self._withdrawn.items():
                told = withdrawn.told
                if told is None or told[1] != who or now - told[0] >= limits.SAID_AGAIN_S:
                    self._say(master, slave, withdrawn.name)
                    withdrawn.told = now, who

    def known(self, names: Collection[str]) -> None:
        """The controller knows of the withdrawals of these names."""
        with self._lock:
            self._withdrawn = {pair: w for pair, w in self._withdrawn.items() if w.name not in names}


Key = tuple[str, str, bool]  # master, slave, implicit


@dataclass(slots=True)
class _Pending:
    request: str = field(default_factory=lambda: secrets.token_hex(8))
    done: threading.Event = field(default_factory=threading.Event)
    waiting: bool = False
    refusal: Problem | None = None
    ksid: str | None = None


@dataclass(frozen=True, slots=True)
class _Word:
    """A controller's word on how the path of an association fares. `problem`: why there is none; None if there is.

    `version`: it is higher in a newer word, whenever that arrives. `listening`: how often that controller had begun to
    listen by then.
    """

    version: int
    problem: Problem | None
    controller: str
    listening: int


class Registrations:
    """Applications of node `name` that wait for an answer. Thread-safe."""

    def __init__(self, name: str, sessions: Sessions, streams: Streams) -> None:
        self._name = name
        self._sessions = sessions
        self._streams = streams
        self._lock = threading.Lock()
        self._pending: dict[Key, list[_Pending]] = {}
        # Pairs whose implicit association was asked for in vain: if it comes still, it is implicit and ends when idle.
        self._given_up: set[tuple[str, str]] = set()
        self._words: dict[str, _Word] = {}  # by KSID
        self._on_end_known: Callable[[str], None] = lambda _: None
        self.withdrawals = Withdrawals(streams, self._say_withdrawn)

    def on_end_known(self, step: Callable[[str], None]) -> None:
        """Call `step` with the KSID of which the controller confirms that it knows of its end."""
        self._on_end_known = step

    def ask(
        self, master: str, slave: str, side: str, wanted: QoS, *, implicit: bool = False,
        duration_s: float | None = None,
    ) -> Association | None:  # fmt: skip
        """Register one side: the association once it is there, None if the other side is awaited; or Problem.

        An implicit one is waited for in any case. `duration_s`: how long it is to last; None if nobody knows.
        """
        stream = self._streams.controlled
        if stream is None:
            raise Problem(503, "no controller listens to this node", cause="controller_unreachable")
        entry, key = _Pending(), (master, slave, implicit)
        if not implicit:
            self.withdrawals.forget((master, slave))
        with self._lock:
            if sum(map(len, self._pending.values())) >= MOST_PENDING:
                raise Problem(503, "too many applications wait for the controller: try again", cause="opening")
            self._pending.setdefault(key, []).append(entry)
            self._given_up.discard((master, slave))
        try:
            self._notify(
                master, slave, side, wanted, implicit=implicit, request=entry.request, duration_s=duration_s
            )
            patience_s = deadline.left_for_others(OPENING_S if implicit or stream == EXTENDED else STANDARD_OPENING_S)
            until = time.monotonic() + patience_s
            # A controller that dies meanwhile has forgotten that we asked.
            while not entry.done.wait(min(LOOK_S, max(0.0, until - time.monotonic()))):
                if time.monotonic() >= until or self._streams.controlled is None:
                    break
        finally:
            with self._lock:
                self._pending[key].remove(entry)
                if not self._pending[key]:
                    del self._pending[key]
                if implicit and not entry.done.is_set():
                    self._given_up.add((master, slave))
        if entry.refusal is not None:
            raise entry.refusal
        if entry.ksid is not None:
            return self._sessions.get(entry.ksid)
        if entry.waiting or (stream != EXTENDED and not implicit):
            return None
        raise Problem(503, "the controller gave no answer", cause="controller_unreachable")

    def announce(self, master: str, slave: str, wanted: QoS) -> None:
        """Register the slave's side of an implicit association, for which the master's node waits."""
        if self._streams.controlled is None:
            raise Problem(503, "no controller listens to this node", cause="controller_unreachable")
        self._notify(master, slave, "slave", wanted, implicit=True)

    def withdraw(self, master: str, slave: str) -> None:
        """The slave's side does not wait for its master any more."""
        self.withdrawals.add((master, slave))

    def ended(self, ksid: str) -> None:
        """An application is over, as this node has it."""
        self._streams.notify("sdqkdn_application_disconnected", {"qkd_application": {"app_id": ksid}})

    def on_association(self, found: Association) -> None:
        """It was configured: whoever asked for it need not wait. A registered one satisfies those who asked, too."""
        with self._lock:
            self._given_up.discard(found.pair)
            for implicit in (False, True):
                for entry in self._pending.get((*found.pair, implicit), []):
                    entry.ksid = found.ksid
                    entry.done.set()

    def asked_implicitly(self, pair: tuple[str, str]) -> bool:
        """Whether an implicit association of that pair, and no registered one, is or was last being asked for."""
        with self._lock:
            asked = (*pair, True) in self._pending or pair in self._given_up
            return asked and (*pair, False) not in self._pending

    def interruption(self, master: str, slave: str) -> Problem | None:
        """Why the pair's association has no path, as long as the controller that said so listens."""
        found = self._sessions.of_pair(master, slave)
        with self._lock:
            word = self._words.get("" if found is None else found.ksid)
        if word is None or not word.listening or self._streams.listening(word.controller) != word.listening:
            return None
        return word.problem

    def may_be_led(self, master: str, slave: str) -> bool:
        """Whether the controller may yet lead the pair's association another way: it listens, and names no obstacle."""
        return self._streams.controlled == EXTENDED and self.interruption(master, slave) is None

    def on_answer(self, answer: Mapping[str, Any], controller: str) -> int:
        """That controller's word (operation application_answer): the version of that which counts. Refusal.

        One that is older than what is known changes nothing, nor does one that fits nothing here.
        """
        version = int(answer.get("version", "0"))
        if answer.get("state") == "withdrawn":
            self.withdrawals.known(answer.get("request", []))
            return version
        if answer.get("state") in ("resumed", "interrupted", "ended"):
            if "app_id" not in answer:
                raise Refusal("missing-element", "expected app_id")
            if answer["state"] == "ended":
                self._on_end_known(answer["app_id"])
                return version
            problem = _problem(answer) if answer["state"] == "interrupted" else None
            word = _Word(version, problem, controller, self._streams.listening(controller))
            return self._on_word(answer["app_id"], word)
        self._on_registration(answer)
        return version

    def _on_word(self, ksid: str, word: _Word) -> int:
        known = {session.ksid for session in self._sessions.all()}
        with self._lock:
            self._words = {k: w for k, w in self._words.items() if k in known}
            before = self._words.get(ksid)
            if before is not None and before.version > word.version:
                return before.version
            if ksid in known:
                self._words[ksid] = word
            return word.version

    def _on_registration(self, answer: Mapping[str, Any]) -> None:
        clients = answer.get("client_app_id", [])
        if "server_app_id" not in answer or len(clients) != 1 or "state" not in answer:
            raise Refusal("missing-element", "expected server_app_id, one client_app_id, and state")
        key = from_uri(answer["server_app_id"]), from_uri(clients[0]), bool(answer.get("implicit", False))
        with self._lock:
            # An answer that comes late is none to those who have asked since then.
            entries = [e for e in self._pending.get(key, []) if e.request in answer.get("request", [e.request])]
        for entry in entries:
            if answer["state"] == "refused":
                entry.refusal = _problem(answer)
                entry.done.set()
            elif not key[2]:
                entry.waiting = True
                entry.done.set()

    def _say_withdrawn(self, master: str, slave: str, request: str) -> None:
        self._streams.notify_own(
            "application_withdrawn",
            {
                "server_app_id": to_uri(master), "client_app_id": [to_uri(slave)],
                "local_qkdn_id": node_id(self._name), "request": request,
            },
        )  # fmt: skip

    def _notify(
        self, master: str, slave: str, side: str, wanted: QoS, *, implicit: bool, request: str | None = None,
        duration_s: float | None = None,
    ) -> None:  # fmt: skip
        content = {
            "app_type": gs015.CLIENT,
            "server_app_id": to_uri(master),
            "client_app_id": [to_uri(slave)],
            "local_qkdn_id": node_id(self._name),
            "app_qos": {"min_bandwidth": gs015.clamped(math.ceil(wanted.max_bps))},
        }
        extra: dict[str, Any] = {
            "qkd-testbed:side": side,
            "qkd-testbed:implicit": implicit,
            "qkd-testbed:key_size": wanted.key_size_bits,
            "qkd-testbed:interval": gs015.decimal3(wanted.interval_s),
        }
        if request is not None:
            extra["qkd-testbed:request"] = request
        if duration_s is not None:
            extra["qkd-testbed:duration"] = gs015.decimal3(duration_s)
        span = trace.current()
        if span is not None:
            extra["qkd-testbed:traceparent"] = trace.to_header(span)
        self._streams.notify(
            "sdqkdn_application_new", {"qkd_application": content}, extended={"qkd_application": content | extra}
        )


def _problem(answer: Mapping[str, Any]) -> Problem:
    facts: dict[str, Any] = {}
    for fact in answer.get("fact", []):
        try:
            facts[fact["name"]] = json.loads(fact.get("value", "null"))
        except (ValueError, RecursionError):
            facts[fact["name"]] = fact.get("value")
    status = answer.get("status", 503)
    facts.setdefault("cause", "refused")
    # `status` and `message` of Problem are its own.
    facts = {k: v for k, v in facts.items() if k not in ("status", "message")}
    return Problem(status if status in (400, 409, 503) else 503, answer.get("message", "refused"), **facts)
