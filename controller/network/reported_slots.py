"""What one reporter says of a QC, slot by slot: of the last slots each report, of earlier ones several together.

A TTL may be a day, and admission looks back over one. Of each second of a day a report would be kept; so the longer
ago slots are, the more of them are kept as one. Sums over the last k slots are exact up to 2 * FINE_SLOTS of them. Of
more, the oldest k / FINE_SLOTS slots count as if each had had an equal part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import takewhile

from controller import limits
from decisions.admission import Claim


@dataclass(frozen=True, slots=True)
class Entry:
    """Bytes of the slots behind `since` up to `slot`; and what the reporter's sessions had declared by then."""

    since: int
    slot: int
    generated: int
    requested: int
    used: int
    declared: int
    at_once: int

    def and_then(self, later: Entry) -> Entry:
        """Both as one. What was declared at once counts once."""
        return Entry(
            self.since, later.slot, self.generated + later.generated, self.requested + later.requested,
            self.used + later.used, self.declared + later.declared, max(self.at_once, later.at_once),
        )  # fmt: skip


@dataclass(slots=True)
class Window:
    """One reporter's reports of the last slots, and the stock it has now. Each counts slots in its own way."""

    stored_bytes: int = 0
    heard: float = 0.0  # when, in seconds that only grow
    _entries: deque[Entry] = field(default_factory=deque)
    _loose: int = 0  # reports since those of long ago were put together

    def take(self, entry: Entry, now: float) -> None:
        """Another report. What it says of slots that were reported before counts in place of what was said then."""
        entries = self._entries
        if entries and entry.slot < entries[-1].slot:  # the reporter counts from the beginning again
            entries.clear()
        while entries and entries[-1].slot > entry.since:
            entries.pop()
        entries.append(entry)
        while entries[0].slot <= entry.slot - limits.REPORTED_SLOTS:
            entries.popleft()
        self._loose += 1
        if self._loose >= limits.FINE_SLOTS:
            self._entries, self._loose = deque(together(entries)), 0
        self.heard = now

    def recent(self, slots: int, now: float) -> Recent:
        """The last `slots` slots of it."""
        newest = self._entries[-1].slot + max(0, int(now - self.heard - limits.STALE_S))
        oldest = newest - slots
        reported = newest - max(self._entries[0].since, oldest)
        found = takewhile(lambda entry: entry.slot > oldest, reversed(self._entries))
        return Recent(oldest, reported, list(found))


def together(entries: Iterable[Entry]) -> list[Entry]:
    """The same, oldest first, with those of long ago put together. PURE."""
    given = list(entries)
    found: list[Entry] = []
    for entry in given:
        may_have = (given[-1].slot - entry.slot) // limits.FINE_SLOTS
        if found and entry.slot - found[-1].since <= may_have:
            found[-1] = found[-1].and_then(entry)
        else:
            found.append(entry)
    return found


@dataclass(frozen=True, slots=True)
class Recent:
    """Reports of slots behind `oldest`, the newest first; `reported`: of how many slots there are any."""

    oldest: int
    reported: int
    entries: Sequence[Entry]

    def total(self, of: Callable[[Entry], int]) -> Fraction:
        """A figure's sum: of a report the part that is of these slots, for a node may not have been heard for long."""
        shares = (
            Fraction(e.slot - max(e.since, self.oldest), e.slot - e.since) * of(e) for e in self.entries
        )
        return sum(shares, start=Fraction(0))

    def by_slot(self) -> list[int]:
        """What was generated in each slot, the newest last; of a report of several slots, an equal part in each."""
        newest = max((entry.slot for entry in self.entries), default=self.oldest)
        found = [0] * (newest - self.oldest)
        for entry in self.entries:
            length = entry.slot - entry.since
            for slot in range(max(entry.since, self.oldest) + 1, entry.slot + 1):
                until = slot - entry.since
                part = entry.generated * until // length - entry.generated * (until - 1) // length
                found[slot - self.oldest - 1] += part
        return found[len(found) - self.reported :] if self.reported < len(found) else found

    def claim(self) -> Claim:
        """What a node says that it asked of a QC of others."""
        at_once = max((e.at_once for e in self.entries), default=0)
        return Claim(self.total(lambda e: e.requested), self.total(lambda e: e.declared) + at_once)
