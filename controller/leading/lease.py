"""How it goes with a controller of two, as one value: it stands by, leads, is not sure, or its term is over. PURE.

    stands by --the database lets it lead--> leads --no answer for as long as the lease lasts--> unsure
        ^                                      ^  <------------- the database: it leads still ------'
        `----------------------- term over <---`-------- the database: another one leads ----------'

Who leads says so to the database again and again. As long as the database has answered lately, no other one can lead:
the lease is counted here from before the question was sent, and there from when it came. Who is unsure may lead still,
or another one may: it goes on to listen and to route, and keeps nothing, so nothing is opened, moved or ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum


class Standing(StrEnum):
    """What a controller is."""

    STANDS_BY = "standby"
    LEADS = "leader"
    UNSURE = "unsure"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, as the database has said, and in what term; of the first term nobody leads yet."""

    name: str
    term: int


@dataclass(frozen=True, slots=True)
class Lease:
    """What controller `name` knows. `term`: its own, None if it stands by. Times are monotonic seconds.

    `leader`: as the database said last, None if it has not said yet. `asked_at`: when the last question was sent that
    it has answered. `answers_since`: since when it has answered each time, infinity if it did not last time.
    `spoken`: the highest term that a node knew better than this controller's.
    """

    name: str
    lease_s: float
    asked_at: float
    term: int | None = None
    leader: Leader | None = None
    spoken: int = 0
    answers_since: float = -math.inf

    def answered(self, leader: Leader, asked_at: float) -> Lease:
        """The database has answered a question that was sent at that time."""
        mine = leader.name == self.name and (self.term is None or leader.term >= self.term)
        term = leader.term if mine else self.term
        since = asked_at if self.answers_since == math.inf else self.answers_since
        return replace(self, leader=leader, asked_at=asked_at, term=term, answers_since=since)

    def unanswered(self) -> Lease:
        """The database did not answer. As long as it never has, that says nothing."""
        return self if self.leader is None else replace(self, answers_since=math.inf)

    def may_take_over(self, now: float, after_s: float) -> bool:
        """Whether a stand-by is to lead if nobody else does.

        Where the database was away, the lease of a leader is over that could not say that it is there: it comes first.
        """
        return now >= self.answers_since + after_s

    def spoken_of(self, term: int) -> Lease:
        """A node has heard of that term, and goes by that."""
        return replace(self, spoken=max(self.spoken, term))

    @property
    def latest(self) -> int:
        """The latest term that this controller has heard of, its own or another one's."""
        return max(self.term or 0, self.spoken, 0 if self.leader is None else self.leader.term)

    def standing(self, now: float) -> Standing:
        """What it is."""
        if self.term is None:
            return Standing.STANDS_BY
        if self.leader is None or self.leader.name != self.name or self.leader.term < self.term:
            return Standing.OVER
        return Standing.LEADS if now < self.asked_at + self.lease_s else Standing.UNSURE

    def has_leader(self, now: float) -> bool:
        """Whether, as far as is known here, somebody leads."""
        return self.leader is not None and self.leader.term > 0 and now < self.asked_at + self.lease_s

    def routes(self, now: float, after_s: float) -> bool:
        """Whether it has switches forward: as leader, and where the database has not answered for `after_s` seconds.

        It may be that nobody else does, and that the way to the database is what has to be found.
        """
        return self.term is not None or now >= self.asked_at + after_s
