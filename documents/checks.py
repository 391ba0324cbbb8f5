"""Checks of single JSON values that all standards share: integers that are no booleans, canonical UUIDs.

What is wrong is told by `Malformed`: which member, which clause, and what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


class Malformed(ValueError):
    """A received document is wrong. `field` names the member, `clause` the rule; the text is safe to send back."""

    def __init__(self, field: str, expected: str, *, clause: str = "", message: str | None = None) -> None:
        super().__init__(message or f"{field}: expected {expected}")
        self.field = field
        self.expected = expected
        self.clause = clause

    @property
    def details(self) -> dict[str, str]:
        """What the error body's `details` says."""
        facts = {"field": self.field, "expected": self.expected}
        return facts | ({"clause": self.clause} if self.clause else {})


_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def integer(value: Any, field: str, *, low: int, high: int) -> int:
    """`value` as an integer in low..high. JSON true, 3.0 and "3" are none."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Malformed(field, f"an integer from {low} to {high}")
    return value


def number(value: Any, field: str, *, low: float, high: float) -> float:
    """`value` as a finite number in low..high."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Malformed(field, f"a number from {low:g} to {high:g}")
    return float(value)


def uuid_text(value: Any, field: str) -> str:
    """`value` as a UUID in RFC 4122 text form, lower case."""
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise Malformed(field, "a UUID in text form")
    return value.lower()


def text(value: Any, field: str, *, longest: int = 256) -> str:
    """`value` as a non-empty printable string that is valid Unicode (a lone surrogate is not)."""
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
        raise Malformed(field, f"a printable string of 1 to {longest} characters")
    return value


def mapping(value: Any, field: str) -> Mapping[str, Any]:
    """`value` as a JSON object."""
    if not isinstance(value, Mapping):
        raise Malformed(field, "an object")
    return value


def sequence(value: Any, field: str, *, longest: int) -> list[Any]:
    """`value` as a JSON array of at most `longest` entries."""
    if not isinstance(value, list) or len(value) > longest:
        raise Malformed(field, f"an array of at most {longest} entries")
    return value
