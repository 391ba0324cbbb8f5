"""Values out of a topology file, each with its place in it, and the checks that any of them may have to pass.

A check returns the value with its type or raises TopologyError. Text ends up on terminals, so neither values nor errors
keep control characters.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from documents.errors import Malformed
from etsi.sae_id import LONGEST, sae_id

NAME_LENGTH = 31
# Names of nodes become host names, and a DNS label may not end in a hyphen.
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


class TopologyError(ValueError):
    """A topology that cannot be used: one line made of `parts`, which are the file, the field if any, the problem."""

    def __init__(self, *parts: str) -> None:
        super().__init__(one_line(": ".join(part for part in parts if part)))


@dataclass(frozen=True, slots=True)
class Field:
    """A value and where it stands: `path` reads like `links[2].b` (counted from 0) and is empty for the whole file."""

    source: str
    path: str
    value: object

    def error(self, problem: str) -> TopologyError:
        return TopologyError(self.source, self.path, problem)

    def expected(self, what: str) -> TopologyError:
        return self.error(f"expected {what}, got {_shown(self.value)}")

    def members(self, *required: str, **optional: object) -> dict[str, Field]:
        """The members of a mapping by name: those that the file gives and those with a default other than None."""
        allowed = [*required, *optional]
        if not isinstance(self.value, dict):
            raise self.expected(f"a mapping with the members {', '.join(allowed)}")
        for name in self.value:
            if name not in allowed:
                raise self.error(f"unknown member {_shown(name)}; {choice(name, allowed, 'allowed')}")
        for name in required:
            if name not in self.value:
                raise self._inner(f".{name}", None).error("missing, and it is required")
        found = {name: default for name, default in optional.items() if default is not None} | self.value
        return {name: self._inner(f".{name}", value) for name, value in found.items()}

    def items(self) -> list[Field]:
        if not isinstance(self.value, list):
            raise self.expected("a list")
        return [self._inner(f"[{index}]", item) for index, item in enumerate(self.value)]

    def text(self) -> str:
        """Text for people, made one line."""
        if not isinstance(self.value, str):
            raise self.expected("text (in quotes, if it looks like something else)")
        return one_line(self.value)

    def name(self, longest: int = NAME_LENGTH) -> str:
        if not isinstance(self.value, str) or len(self.value) > longest or not _NAME.fullmatch(self.value):
            rule = "characters a-z, 0-9 and inner hyphens that starts with a letter"
            raise self.expected(f"a name of 1 to {longest} {rule}")
        return self.value

    def sae_id(self) -> str:
        """An SAE's ID, in whatever letters it is written."""
        try:
            return sae_id(self.value, self.path)
        except Malformed:
            what = f"1 to {LONGEST} printable characters (in quotes, if they look like a number)"
            raise self.expected(what) from None

    def one_of(self, names: Collection[str]) -> str:
        """A reference to a node."""
        if not isinstance(self.value, str) or self.value not in names:
            raise self.error(f"unknown node {_shown(self.value)}; {choice(self.value, names, 'nodes')}")
        return self.value

    def number(self, maximum: float, minimum: float = 0) -> float:
        # bool is a subclass of int in Python, but `true` is no number in anyone's file. NaN fails the comparison.
        number = None if isinstance(self.value, bool) or not isinstance(self.value, int | float) else self.value
        if number is None or not minimum <= number <= maximum:
            raise self.expected(f"a plain number from {minimum:.0f} to {maximum:.0f}")
        return float(number) + 0.0  # the sum makes 0.0 of -0.0

    def whole(self, maximum: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not 0 <= self.value <= maximum:
            raise self.expected(f"a whole number from 0 to {maximum}")
        return self.value

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.expected("true or false")
        return self.value

    def _inner(self, step: str, value: object) -> Field:
        return Field(self.source, f"{self.path}{step}".removeprefix("."), value)


def check_distinct(fields: Iterable[Field]) -> None:
    """Refuses a text that stands in two of the fields."""
    first: dict[str, str] = {}
    for field in fields:
        other = first.setdefault(str(field.value), field.path)
        if other != field.path:
            raise field.error(f"duplicate {_shown(field.value)}, already used by {other}")


def free_name(base: str, taken: Collection[str]) -> str:
    """`base`, or the first of `base-2`, `base-3`, ... that is free."""
    names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def choice(wrong: object, allowed: Collection[str], label: str) -> str:
    """What might have been meant, and what there is to choose from."""
    close = difflib.get_close_matches(wrong[:80], allowed, n=1) if isinstance(wrong, str) else []
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}{label}: {', '.join(list(allowed)[:20])}{', ...' if len(allowed) > 20 else ''}"


def one_line(text: str) -> str:
    """The text with every run of blanks and unprintable characters made one blank."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _shown(value: object) -> str:
    """A value as an error shows it: in the words of YAML, and short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a truth value (as YAML reads true, yes and on, false, no and off, unless in quotes)"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**18:  # Python refuses to print thousands of digits
        return "a huge number"
    return repr(value[:40] + "..." if isinstance(value, str) and len(value) > 40 else value)[:60]
