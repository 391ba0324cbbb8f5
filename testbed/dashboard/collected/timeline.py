"""What happened in the last minutes, for the page's timeline: out of the events that operators are told."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decisions.parameters import PARAMETERS
from documents.paths import in_words, paths_of
from testbed.planning.plan import Plan

KEPT_S = 600.0
_MOST = 2000
FAULT, HEALED, REFUSED, FAILED, MOVED, LOST, SET = "fault", "healed", "refused", "failed", "moved", "interrupted", "set"
# The events of which the timeline tells.
EVENTS = frozenset((
    "fault", "healed", "session_refused", "session_failed", "key_failed", "session_moved", "session_interrupted",
    "session_resumed", "parameters", "qc_lit", "qc_dark", "leads", "database_switch",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened at `time` (wall clock, s), in words.

    `nodes`: where. `qc`: that was short or broken. `story`: what `qkd story` takes, if there is something to tell.
    """

    time: float
    kind: str
    words: str
    nodes: tuple[str, ...] = ()
    qc: str = ""
    story: str = ""


class Timeline:
    """What happened in the network of `plan` in the last KEPT_S seconds, the latest _MOST of it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._kept: collections.deque[Happening] = collections.deque(maxlen=_MOST)
        self._parameters: Mapping[str, Any] = {}

    def take(self, told: Mapping[str, Any]) -> None:
        """An event, as operators are told it."""
        if told["event"] not in EVENTS:
            return
        if told["event"] == "parameters":
            before, self._parameters = self._parameters, told
            changed = [f"{n} is {told[n]} now" for n in PARAMETERS if n in before and before[n] != told.get(n)]
            if changed:
                self._kept.append(Happening(told["time"], SET, ", ".join(changed)))
            return
        self._kept.append(self._happening(told))

    def latest(self, now: float) -> tuple[Happening, ...]:
        """What is kept at that time, the oldest first. Journals are read one after another, so it is put in order."""
        self._kept = collections.deque(
            sorted((h for h in self._kept if h.time > now - KEPT_S), key=lambda h: h.time), _MOST
        )
        return tuple(self._kept)

    def _happening(self, told: Mapping[str, Any]) -> Happening:
        name, at_s, pair = told["event"], float(told["time"]), f"{told.get('master', '?')} → {told.get('slave', '?')}"
        if name in (FAULT, HEALED):
            where = tuple(str(node) for node in told.get("where", ()))
            words = " ".join(("broken:" if name == FAULT else "healed:", str(told.get("kind", "")), *where))
            return Happening(at_s, name, words, tuple(node for node in where if node in self._plan.nodes))
        if name == "database_switch":
            return Happening(at_s, MOVED, f"shared database: {told['host']} takes writes now, not {told['before']}")
        if name in ("qc_lit", "qc_dark"):
            past = f" past {', '.join(told['past'])}" if told.get("past") else ""
            return Happening(at_s, SET, f"{told['qc']} {'is lit' if name == 'qc_lit' else 'is dark'}{past}")
        if name == "leads":
            since = f", {told['silent_s']:.1f} s after the last word of a leader" if "silent_s" in told else ""
            return Happening(at_s, SET, f"controller {told['controller']} leads in term {told['term']}{since}")
        path = tuple(str(node) for node in told.get("path", ()))
        why = str(told.get("message") or _cause(told)).removesuffix(".")
        kind, words = {
            "session_moved": (MOVED, f"{pair} goes over {in_words(paths_of(told), ' – ')} now"),
            "session_interrupted": (LOST, f"{pair} interrupted: {why}"),
            "session_resumed": (HEALED, f"{pair} has a path again"),
            "key_failed": (FAILED, f"{pair}, no key: {why}"),
        }.get(name, (REFUSED, f"{pair} refused: {why}"))
        master = self._plan.sae(str(told.get("master")))
        at = path or (() if master is None else (master.node,))
        return Happening(at_s, kind, words, at, str(told.get("qc", "")), str(told.get("trace") or told.get("ksid", "")))


def _cause(told: Mapping[str, Any]) -> str:
    """Of what was said nothing about, in words for people."""
    if "short_bytes" in told:
        return f"{told.get('qc', 'a QC')} lacks {told['short_bytes']} bytes of key material that is young enough"
    return str(told.get("cause", "")).replace("_", " ")
