"""What a story is: values only, for whoever draws them. PURE.

A participant is "sae:UUID", "node:NAME", "controller" or "database". Times are by the clock of the sender of a
message, and stand in the order of cause and effect, whatever the clocks of different machines say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from decisions.exposure import Learned

Event = Mapping[str, Any]

OK = "ok"
SESSION, KEY = "session", "key"
DATABASE, CONTROLLER = "database", "controller"
# Events that say that what was wanted did not come.
FAILURES = frozenset(("key_failed", "key_error", "session_failed", "session_refused", "application_refused"))


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes [start, end) of a QC's stream, and what for: "key", "shared key", "new keys", "pad"."""

    qc: str
    start: int
    end: int
    purpose: str


@dataclass(frozen=True, slots=True)
class Message:
    """One said to another; or, if both are the same, what one did.

    `duration_ms` is from the first byte of the request to the last one of the answer; None for what has no answer.
    `outcome` is OK, or the cause of the failure. `depth`: how many messages this one is a part of. `events`: the
    journal lines told by it.
    """

    sender: str
    receiver: str
    what: str
    at_s: float
    duration_ms: float | None
    outcome: str = OK
    ranges: Sequence[Use] = ()
    depth: int = 0
    events: Sequence[Event] = field(default=(), compare=False, repr=False)

    @property
    def failed(self) -> bool:
        """Whether it did not bring what it was for."""
        return self.outcome != OK


@dataclass(frozen=True, slots=True)
class Participant:
    """One with a lifeline: its ID and its name for people."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Story:
    """The story of a key or of a key session.

    `ident`: what it was asked for by; `figure`: the paper's one in whose arrangement it is told; `refill`: ID of a key
    that was handed out when this one was made ahead; `failure`: where it failed and why, None if it did not; `notes`:
    what else to know, in sentences; `paths`: each of several, of which `path` has all nodes; `captures`: files of link
    captures that cover it.
    """

    ident: str
    kind: str
    title: str
    figure: int
    participants: Sequence[Participant]
    messages: Sequence[Message]
    ksid: str | None = None
    mode: str | None = None
    path: Sequence[str] = ()
    paths: Sequence[Sequence[str]] = ()
    material: Sequence[Use] = ()
    learned: Sequence[Learned] = ()
    refill: str | None = None
    failure: str | None = None
    notes: Sequence[str] = ()
    captures: Sequence[str] = ()
    traces: Sequence[str] = ()
    begin_s: float = 0.0
    end_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Heading:
    """A story that could be told: when it began (wall clock, s), by what ID, what it is of, how it went, which kind.

    `pair`: the names of master and slave, or their IDs where those are not known.
    """

    at_s: float
    ident: str
    what: str
    outcome: str
    kind: str
    pair: tuple[str, str] = ("?", "?")


class NoStory(LookupError):
    """There is nothing to tell about that ID."""
