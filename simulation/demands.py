"""What key sessions of a scenario take of the QCs on their paths. PURE."""

from __future__ import annotations

import math

from decisions.admission import Demand
from decisions.calendar import Draw
from decisions.modes import MODES, ahead
from decisions.paths import Path
from decisions.ranges import promised_slots
from scenario.scenario import Scenario
from simulation.sessions import Session

_MOST_AT_ONCE = 128  # keys a request that a KME serves, unless its topology says otherwise


class Demands:
    """By the scenario's mode and other parameters."""

    def __init__(self, scenario: Scenario) -> None:
        self._mode = MODES[scenario.parameter("mode")]
        self._keys_ahead: int = scenario.parameter("keys_ahead")
        self._ttl_slots: int = scenario.parameter("ttl_slots")
        self._promised_s = promised_slots(self._ttl_slots)

    def of(self, session: Session, path: Path, now_s: float) -> Demand:
        """What the session declares."""
        return Demand(
            session.key_bytes, session.arrival.qos.interval_s, self.costs(session, path),
            self.from_now_on(session, path, now_s), math.floor(self._promised_s),
        )  # fmt: skip

    def draws(self, session: Session, path: Path, first_s: float, end_s: float) -> list[Draw]:
        """What it takes of each QC of a path."""
        return self._mode.draws(
            path.qcs, session.key_bytes, interval_s=session.arrival.qos.interval_s, keys_ahead=self._ahead(session),
            waits_s=self._promised_s, when=Draw(0, 1.0, first_s, end_s), double_at_last=path.double_at_last,
        )  # fmt: skip

    def from_now_on(self, session: Session, path: Path, now_s: float) -> list[Draw]:
        """The same, in seconds after the beginning of the present slot."""
        slot_s = math.floor(now_s)
        return self.draws(session, path, now_s - slot_s, session.end_s - slot_s)

    def costs(self, session: Session, path: Path) -> list[float]:
        """What a key of the session costs on each QC of a path, in bytes."""
        return self._mode.per_key(
            len(path.qcs), session.key_bytes, self._ahead(session), double_at_last=path.double_at_last
        )

    def tries(self, session: Session, path: Path) -> list[tuple[int, list[tuple[str, int]]]]:
        """How many keys it makes at once, the most first, and what they take of each QC."""
        return [
            (number, self._mode.needs(path.qcs, session.key_bytes, number, double_at_last=path.double_at_last))
            for number in self._mode.tries(1, self._ahead(session), _MOST_AT_ONCE)
        ]

    def _ahead(self, session: Session) -> int:
        return ahead(self._keys_ahead, session.arrival.qos.interval_s, self._ttl_slots)
