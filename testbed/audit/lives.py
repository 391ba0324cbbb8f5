"""How the processes of a run began and ended, by the run's word and their own journals, and what an end excuses.

The run starts each process, and may kill it; a process that ends otherwise says that it has stopped. What was under way
when it ended may be untold: so much an end excuses, and no more. Times are seconds of the machine's monotonic clock.
"""

from __future__ import annotations

import bisect
import collections
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from testbed.audit.evidence import OF_PROCESSES, Event, fact, lost_events

# What a process had begun so shortly before its last word may be untold; and what it sent may be under way so long
# after its end.
_CUT_OFF_S = 15.0
# A line is in the journal so soon after what it tells of.
_WRITTEN_S = 2.0
# A process that was killed so soon may not have come to write down that it started: its disk had no room.
_START_S = 60.0
# A kill is written down when it is done, and threads outlive their process's last word for a moment.
_ROUNDING_S = 1.0

_RUN = "the run"


@dataclass(slots=True)
class Word:
    """What the run says of a process: when it started it, when it was ready, when it killed it, from when until when
    it had it sleep.

    `failures`: when it had ended by itself, before it was ready.
    """

    starts: list[float] = field(default_factory=list)
    readies: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    sleeps: list[tuple[float, float]] = field(default_factory=list)


class _Life(NamedTuple):
    """When it ended, when the next one of the same process began, and when the journal told last what it had to.

    `cut_off_s`: what was begun so shortly before that may be untold.
    """

    end: float
    next: float
    last: float
    cut_off_s: float


@dataclass(slots=True)
class _Heard:
    """What the journal has of a life: how often it tells of a start, when last of anything, and when of its end first.

    `finished`: in peace, with nothing under way.
    """

    starts: int = 0
    last: float = -math.inf
    stop: float = math.inf
    finished: bool = False


class Lives:
    """The lives of a process, which findings call `where`: whole once its journal has been gone through.

    `finishes`: it says that it stopped when nothing is under way, or else that it cut this off.
    `findings`: lives of which the beginning or the end is not told, and what is told of none.
    """

    def __init__(self, where: str, word: Word, *, finishes: bool = False) -> None:
        self.findings: list[str] = []
        self._where = where
        self._word = word
        self._finishes = finishes
        self._lives: list[_Life] = []

    def read(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events of the process's journal, one after the other; Unreadable."""
        heard = [_Heard() for _ in self._word.starts]
        if not heard:
            self.findings.append(f"{self._where}: the run does not tell that it started")
        for event in events:
            self.findings += lost_events(event, self._where)
            number = self._number(fact(event, "mono", float, self._where))
            if number >= 0:
                _hear(heard[number], event)
            yield event
        bounds = itertools.pairwise([*self._word.starts, math.inf])
        self._lives = [self._life(*bound, of) for bound, of in zip(bounds, heard, strict=True)]

    def cut_off(self, after: float, before: float | None = None) -> bool:
        """Whether the process may not tell what came of what it began then, or between the two times: it ended."""
        return self._ended(lambda life: life.cut_off_s, after, before)

    def unwritten(self, after: float, before: float | None = None) -> bool:
        """Whether the process may not tell of what it did then, or between the two times: it ended at once."""
        return self._ended(lambda _: _WRITTEN_S, after, before)

    def cut_off_from(self, other: Word, after: float, before: float) -> bool:
        """Whether the process may not tell of what it had `other` do, which did it at some time between these."""
        return any(
            life.last - life.cut_off_s <= before and after <= _reached(life.end, other.sleeps) + life.cut_off_s
            for life in self._lives
        )

    def kills(self, after: float, before: float) -> int:
        """How often it was killed between these times."""
        return sum(after <= kill <= before for kill in self._word.kills)

    def end_of(self, mono: float) -> float:
        """The end of the life at that time."""
        number = self._number(mono)
        return self._lives[number].end if 0 <= number < len(self._lives) else mono

    def could_take(self, mono: float, before: float) -> bool:
        """Whether what was sent to it at the one time had reached it at the other: it was neither dead nor asleep."""
        return _reached(mono, [*(life[:2] for life in self._lives), *self._word.sleeps]) + _CUT_OFF_S < before

    def _ended(self, excused_s: Callable[[_Life], float], after: float, before: float | None) -> bool:
        """Whether a life ended between these times, or so many seconds later at most."""
        until = after if before is None else before
        return any(life.last - excused_s(life) <= until and after <= life.end + _ROUNDING_S for life in self._lives)

    def _number(self, mono: float) -> int:
        """Of the life at that time; -1 before the first."""
        return bisect.bisect_right(self._word.starts, mono) - 1

    def _life(self, begin: float, until: float, heard: _Heard) -> _Life:
        ends = [mono for mono in (*self._word.kills, *self._word.failures) if begin <= mono < until]
        # Who ended before that may have written something down, but not yet that it started.
        was_ready = not ends or any(begin <= ready < until for ready in self._word.readies)
        end = min([*ends, heard.stop])
        if end == math.inf:
            self._find("does not tell that it stopped, and the run did not kill it")
            end = max(begin, heard.last)
        if heard.starts > 1:
            self._find("tells twice that it started")
        if not heard.starts and was_ready and (heard.last > -math.inf or end > begin + _START_S):
            self._find("does not tell that it started")
        if heard.last > end + _ROUNDING_S:
            self._find("goes on after its end")
        in_peace = self._finishes and heard.finished and end == heard.stop
        # A journal may have waited for room on its disk when its process was killed, but not for long.
        last = min(end, max(heard.last, end - _CUT_OFF_S))
        return _Life(end, until, last, _WRITTEN_S if in_peace else _CUT_OFF_S)

    def _find(self, what: str) -> None:
        self.findings.append(f"{self._where}: the journal {what}")


def _reached(mono: float, away: Iterable[tuple[float, float]]) -> float:
    """When somebody who is away from time to time may first have had what was sent to him then."""
    for start, end in sorted(away):
        if start <= mono + _CUT_OFF_S and mono < end:
            mono = end
    return mono


def _hear(heard: _Heard, event: Event) -> None:
    heard.last = max(heard.last, event["mono"])
    if event["event"] == "started":
        heard.starts += 1
    elif event["event"] == "stopped":
        heard.stop = min(heard.stop, event["mono"])
        heard.finished = not event.get("cut_off")


def words(events: Iterable[Event] | None, findings: list[str]) -> Mapping[str, Word]:
    """What the run says of its processes, by name; Unreadable. That it says nothing goes to `findings`."""
    found: Mapping[str, Word] = collections.defaultdict(Word)
    if events is None:
        findings.append(f"{_RUN}: its journal of processes is missing")
    for event in events or ():
        findings += lost_events(event, _RUN)
        if event["event"] not in OF_PROCESSES:
            continue
        mono, word = fact(event, "mono", float, _RUN), found[fact(event, "process", str, _RUN)]
        if event["event"] == "begun":
            word.starts.append(mono)
        elif event["event"] == "ready":
            word.readies.append(mono)
        elif event["event"] == "killed":
            word.kills.append(mono)
        elif event["event"] == "failed":
            word.failures.append(mono)
        elif event["event"] == "paused":
            word.sleeps.append((mono, math.inf))
        elif word.sleeps:
            word.sleeps[-1] = word.sleeps[-1][0], mono
    return found
