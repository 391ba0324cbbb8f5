"""How long silence may last before it means that something is over. PURE.

A key session that nobody registered may be idle for as long as its client's own rhythm needs.

Two VPN agents may take turns as masters and fetch one key every 120 s, so that each of them asks every 240 s. If their
key sessions ended after a minute, each key would pay for a session of its own: admission, a path, and two nodes that
are told. So the intervals between requests of a pair are looked at. An interval counts as a rhythm when one of about
the same length comes again: one pause is none. Requests that come close together, such as a status and a key, do not
hide the longer interval between them and the next ones. A rhythm that is not kept up any more is forgotten.

A QC counts as one that generates for as long as its device's own rhythm needs. Some devices bring key material each
slot, so one slot without any says that the device makes none. Others distil it in blocks, every minute or two, and
between two blocks all is well with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

_INTERVALS = 2.5  # for which a session waits: one request may be late, or fail
_ALIKE = 2.0  # how many times as long as the other one of two intervals may be that count as the same
_FORGOTTEN = 4.0  # intervals after which one that did not come again is no rhythm any more
_MOST = 20  # times the idle time that is set: no rhythm keeps a session longer
_GAPS = 4  # between a QC's blocks, that count


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Of the requests of one pair. `last_s`: when it asked last. All times in seconds, by a clock that only grows.

    `longest_s` is the longest interval lately, which ended at `at_s`; `kept_s`: one that came twice, 0 if none did.
    """

    last_s: float
    longest_s: float = 0.0
    at_s: float = 0.0
    kept_s: float = 0.0

    def asked(self, now_s: float) -> Rhythm:
        """The same when the pair has asked again."""
        interval_s = now_s - self.last_s
        if interval_s * _ALIKE >= self.longest_s:
            again = interval_s <= _ALIKE * self.longest_s
            kept_s = max(interval_s, self.longest_s) if again else self.kept_s
            return Rhythm(now_s, interval_s, now_s, kept_s)
        if now_s - self.at_s > _FORGOTTEN * self.longest_s:
            return Rhythm(now_s, interval_s, now_s)
        return Rhythm(now_s, self.longest_s, self.at_s, self.kept_s)

    def patience_s(self, idle_s: float) -> float:
        """Seconds without a request after which the pair's session ends, where `idle_s` is what is set for all."""
        return min(max(idle_s, _INTERVALS * self.kept_s), _MOST * idle_s)


def generates(silent_slots: int, gaps: Collection[int], ttl_slots: int) -> bool:
    """Whether a QC generates that has brought nothing for `silent_slots` slots.

    `gaps`: the slots from one block to the next, of its latest ones; empty when it has brought one block, or none yet.
    It may be late by half of the longest gap. But it never counts for longer than half of the TTL: whoever opens a key
    session over it then finds stock that lives for a while.
    """
    most = max(1, ttl_slots // 2)
    gap = max(gaps, default=most)
    return silent_slots < min(gap + gap // 2, most)


@dataclass(slots=True)
class Coming:
    """What has come of a QC: `silent_slots` since the last block that brought something, and its latest `gaps`.

    One block a slot comes of each QC, be it empty.
    """

    brought: bool = False
    silent_slots: int = 0
    gaps: deque[int] = field(default_factory=lambda: deque(maxlen=_GAPS))

    def add(self, n_bytes: int) -> None:
        """The next block."""
        if n_bytes and self.brought:
            self.gaps.append(self.silent_slots + 1)
        self.brought |= n_bytes > 0
        self.silent_slots = 0 if n_bytes else self.silent_slots + 1

    def generates(self, ttl_slots: int) -> bool:
        """Whether it does; once it has brought something."""
        return generates(self.silent_slots, self.gaps, ttl_slots)
