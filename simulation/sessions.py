"""Key sessions in virtual time, what came of all of them, and who is told of it. PURE."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from decisions.admission import Refused
from decisions.calendar import Draw
from decisions.paths import Path, left_without
from decisions.ranges import Range, Shortage, allocate
from scenario.topology_description import Sae
from scenario.workload import Arrival
from simulation.qcs import QcState


class Session:
    """A key session, from its arrival on."""

    __slots__ = (
        "arrival", "down", "draws", "ended", "failed", "number", "path", "pool", "qcs", "requests", "sources", "tries"
    )  # fmt: skip

    def __init__(self, number: int, arrival: Arrival[Sae]) -> None:
        self.number = number
        self.arrival = arrival
        self.path: Path | None = None
        self.qcs: list[QcState] = []
        self.sources: dict[str, QcState] = {}
        self.tries: list[tuple[int, list[tuple[str, int]]]] = []  # how many keys to make at once, and what they take
        self.draws: list[Draw] = []
        self.pool: deque[float] = deque()  # when the keys that wait were made
        self.down: Sequence[str] = ()  # what its path lacks, where there is no other
        self.requests = self.failed = 0
        self.ended = False

    @property
    def key_bytes(self) -> int:
        """Of one of its keys."""
        return self.arrival.qos.key_size_bits // 8

    @property
    def hops(self) -> int:
        """Links on its path, on the longest one of several; 0 if it has none."""
        return 0 if self.path is None else max(len(path.qcs) for path in self.path.paths)

    @property
    def end_s(self) -> float:
        """When it ends by itself."""
        return math.inf if self.arrival.length_s is None else self.arrival.at_s + self.arrival.length_s

    def allocated(
        self, needs: Sequence[tuple[str, int]], enough: int
    ) -> tuple[dict[str, QcState], list[Range]] | Shortage:
        """What is made now of these needs; without paths that are short, if `enough` others are left."""
        found = first = allocate(self.sources, needs)
        left: Sequence[Path] = () if self.path is None else self.path.paths
        while isinstance(found, Shortage):
            left = left_without(left, found.qc, enough)
            if not left:
                return first
            qcs = {qc for path in left for qc in path.qcs}
            found = allocate(self.sources, [need for need in needs if need[0] in qcs])
        return found


class Witness:
    """Who is told of what happens, as it happens; what is not overridden is not heard."""

    def opened(self, session: Session, now_s: float) -> None:
        """On a path."""

    def refused(self, session: Session, now_s: float, why: Refused | None, paths: int) -> None:
        """None: there is no path; or there are so many node-disjoint `paths`, fewer than the mode needs."""

    def moved(self, session: Session, now_s: float, before: Path) -> None:
        """To another path."""

    def switched(self, qc: str, now_s: float, *, lit: bool) -> None:
        """A QC on demand is lit, or goes dark."""

    def intercepted(self, qc: str, now_s: float, eve: float) -> None:
        """From now on that part of the QC's pulses is; 0 if nobody listens any more."""

    def served(self, session: Session, now_s: float, ranges: Sequence[Range], number: int) -> None:
        """A key; `ranges` of those made for it and others, `number` in all. None were made if it waited."""

    def failed(self, session: Session, now_s: float, cause: str, short: Shortage | None) -> None:
        """A key error."""

    def ended(self, session: Session, now_s: float) -> None:
        """It is over."""


@dataclass(slots=True)
class Result:
    """What came of all sessions and requests."""

    sessions: list[Session] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)  # sessions, by cause
    errors: Counter[str] = field(default_factory=Counter)  # requests, by cause and QC
    from_pool: int = 0
    made: int = 0  # keys
    expired: int = 0  # keys made ahead that nobody asked for in time
    moves: int = 0
    lit: int = 0  # QCs on demand, each time
    policy_failures: Counter[str] = field(default_factory=Counter)  # what was wrong with a policy of the user's

    @property
    def offered(self) -> int:
        """Sessions."""
        return len(self.sessions)

    @property
    def requests(self) -> int:
        """For a key, of all sessions."""
        return sum(session.requests for session in self.sessions)

    @property
    def failed_requests(self) -> int:
        """Key errors."""
        return sum(session.failed for session in self.sessions)

    @property
    def with_errors(self) -> int:
        """Sessions that had a key error."""
        return sum(session.failed > 0 for session in self.sessions)

    @property
    def unbroken(self) -> int:
        """Sessions that were accepted, and had no key error."""
        return self.offered - self.refused.total() - self.with_errors
