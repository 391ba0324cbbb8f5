"""What key sessions that hold a path have declared to need of each QC: a rate, and when they will take how much."""

from __future__ import annotations

import math
import time

from controller.network.settings import Parameters
from controller.sessions.key_session import KeySession
from controller.sessions.registry import Book
from decisions.calendar import Agenda, Draw
from decisions.modes import MODES, ahead
from decisions.ranges import promised_slots

_Terms = tuple[str, int, int]  # mode, keys ahead, TTL
_Shares = dict[str, tuple[float, Draw]]  # by QC: bytes a slot, and what is taken when


class Agendas:
    """One agenda a QC, which follow the book of sessions. For one thread at a time: whoever holds the graph's lock."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._followed: tuple[object, ...] = ()  # what they are up to date with
        self._agendas: dict[str, Agenda] = {}
        self._rates: dict[str, dict[str, float]] = {}  # by QC and KSID, bytes a slot
        self._held: dict[str, tuple[tuple[object, ...], _Shares]] = {}  # by KSID

    def follow(self, parameters: Parameters, now_s: float) -> None:
        """Take up what has changed: sessions that hold a path now, or no longer, or another one."""
        terms: _Terms = parameters.mode, parameters.keys_ahead, parameters.ttl_slots
        state = self._book.version, terms
        if state == self._followed:
            return
        there = {s.ksid: s for s in self._book.all() if s.path is not None}
        keys = {ksid: (s.path, s.target, s.qos, s.opened_at, terms) for ksid, s in there.items()}
        for ksid in [ksid for ksid, (key, _) in self._held.items() if keys.get(ksid) != key]:
            for qc, (_, draw) in self._held.pop(ksid)[1].items():
                self._agendas[qc].remove(draw, now_s)
                del self._rates[qc][ksid]
        for ksid in keys.keys() - self._held.keys():
            shares = _shares(there[ksid], parameters, now_s)
            self._held[ksid] = keys[ksid], shares
            for qc, (rate, draw) in shares.items():
                self._agendas.setdefault(qc, Agenda()).add(draw, now_s)
                self._rates.setdefault(qc, {})[ksid] = rate
        self._followed = state

    def reserved_per_slot(self, qc: str, besides: KeySession | None) -> float:
        """Bytes of that QC that all but one have declared to need in a slot."""
        rates = self._rates.get(qc, {})
        own = None if besides is None else besides.ksid
        return sum(rates.values()) if own not in rates else sum(r for ksid, r in rates.items() if ksid != own)

    def endless_per_slot(self, qc: str, besides: KeySession | None) -> float:
        """Bytes of that QC a slot that all but one of the sessions take that do not say when they end."""
        whole = self._agendas[qc].endless_per_slot if qc in self._agendas else 0.0
        _, own = self._held.get("" if besides is None else besides.ksid, ((), {}))
        draw = own[qc][1] if qc in own else None
        return whole - (draw.n_bytes / draw.period_s if draw is not None and draw.end_s == math.inf else 0.0)

    def planned(self, qc: str, besides: KeySession | None, first: int, slots: int) -> list[int]:
        """Bytes of that QC that all but one have declared to take in slot `first` and those after it."""
        found = self._agendas[qc].planned(first, slots) if qc in self._agendas else [0] * slots
        _, own = self._held.get("" if besides is None else besides.ksid, ((), {}))
        if qc in own:
            draw = own[qc][1]
            for slot in draw.slots(first, first + slots):
                found[slot - first] -= draw.n_bytes
        return found


def _shares(session: KeySession, parameters: Parameters, now_s: float) -> _Shares:
    """What a session needs of the QCs of its path; of both while it moves. It began as it was opened, or begins now."""
    age_s = 0.0 if session.opened_at is None else max(0.0, time.time() - session.opened_at)
    end_s = math.inf if session.duration_s is None else now_s - age_s + session.duration_s
    when = Draw(0, 1.0, now_s - age_s, end_s)
    found: _Shares = {}
    mode, key_bytes = MODES[parameters.mode], session.qos.key_size_bits // 8
    promised = promised_slots(parameters.ttl_slots)
    number = ahead(parameters.keys_ahead, session.qos.interval_s, parameters.ttl_slots)
    for path in (session.path, session.target):
        if path is not None:
            costs = mode.per_key(len(path.qcs), key_bytes, number, double_at_last=path.double_at_last)
            draws = mode.draws(
                path.qcs, key_bytes, interval_s=session.qos.interval_s, keys_ahead=number, waits_s=promised, when=when,
                double_at_last=path.double_at_last,
            )  # fmt: skip
            rates = [cost / session.qos.interval_s for cost in costs]
            found |= dict(zip(path.qcs, zip(rates, draws, strict=True), strict=True))
    return found
