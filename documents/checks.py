"""Checks of single JSON values that all three standards share: integers that are no booleans, canonical UUIDs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from documents.errors import Malformed

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
