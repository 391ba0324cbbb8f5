"""What a check is: a claim about a pair of KMEs, the clause that it comes from, and whether that clause demands it."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar


class Level(enum.Enum):
    """How much a claim weighs."""

    REQUIRED = "required"  # the standard says it, or it follows from what it says
    ADVISED = "advised"  # the standard leaves it open; clients in use expect it


class Outcome(enum.Enum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"  # a required claim does not hold
    NOT_AS_ADVISED = "not as advised"
    NOT_RUN = "not run"


class Failed(Exception):
    """The claim does not hold; one line that says what was found. It quotes no key."""


class NotRun(Exception):
    """Whether the claim holds could not be found out; one line that says why."""


FindOut = TypeVar("FindOut", bound=Callable[[Any], None])


@dataclass(frozen=True, slots=True)
class Check:
    """A claim, the clauses it comes from, and the code that finds out of a pair; that one raises Failed or NotRun."""

    claim: str
    clauses: str
    level: Level
    find_out: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A check, what became of it, and what was found if it did not pass."""

    check: Check
    outcome: Outcome
    says: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """Checks that belong together, under a title."""

    title: str
    checks: list[Check] = field(default_factory=list)

    def claims(self, clauses: str, level: Level) -> Callable[[FindOut], FindOut]:
        """Make a check of a function; the claim is its docstring."""

        def add(find_out: FindOut) -> FindOut:
            claim = inspect.cleandoc(find_out.__doc__ or "").removesuffix(".")
            self.checks.append(Check(" ".join(claim.split()), clauses, level, find_out))
            return find_out

        return add


def expect(holds: object, else_say: str) -> None:
    """Failed, unless that holds."""
    if not holds:
        raise Failed(else_say)


def find_out(check: Check, pair: object) -> Finding:
    """Run one check on a pair of KMEs, a `conformance.pair.Pair`."""
    try:
        check.find_out(pair)
    except Failed as failed:
        wrong = Outcome.FAILED if check.level is Level.REQUIRED else Outcome.NOT_AS_ADVISED
        return Finding(check, wrong, str(failed))
    except NotRun as reason:
        return Finding(check, Outcome.NOT_RUN, str(reason))
    return Finding(check, Outcome.PASSED, "")
