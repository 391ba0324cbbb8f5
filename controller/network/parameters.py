"""What an operator may change while the network runs. The agents hear of it with every answer to their reports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from decisions.admission import ADMISSION_POLICIES
from decisions.modes import MODES
from decisions.paths import PATH_POLICIES
from documents.checks import integer
from documents.errors import Malformed

MAX_TTL_SLOTS = 86_400
MAX_KEYS_AHEAD = 64
MAX_IDLE_S = 86_400
MAX_RATE = 1 << 20


@dataclass(frozen=True, slots=True)
class Parameters:
    """The two policies are for the controller, all else is for the nodes.

    Those are the mode, the TTL in slots, the keys made at once, and the seconds after which a session that was opened
    without a word, by a first request for keys, ends if nobody asks for more.
    """

    mode: str = "basic"
    ttl_slots: int = 15
    keys_ahead: int = 4
    implicit_idle_s: int = 60
    admission: str = "none"
    path_policy: str = "shortest"

    def to_json(self) -> dict[str, Any]:
        """The document that operators get."""
        return asdict(self)

    def for_nodes(self) -> dict[str, Any]:
        """The document that agents get."""
        return {
            "mode": self.mode, "ttl_slots": self.ttl_slots, "keys_ahead": self.keys_ahead,
            "implicit_idle_s": self.implicit_idle_s,
        }  # fmt: skip


def changed(parameters: Parameters, document: Mapping[str, Any]) -> Parameters:
    """`parameters` with those in `document` in their place. Malformed names the wrong member."""
    checks: dict[str, Callable[[Any], Any]] = {
        "mode": lambda v: _choice(v, "mode", MODES),
        "ttl_slots": lambda v: integer(v, "ttl_slots", low=1, high=MAX_TTL_SLOTS),
        "keys_ahead": lambda v: integer(v, "keys_ahead", low=1, high=MAX_KEYS_AHEAD),
        "implicit_idle_s": lambda v: integer(v, "implicit_idle_s", low=1, high=MAX_IDLE_S),
        "admission": lambda v: _choice(v, "admission", ADMISSION_POLICIES),
        "path_policy": lambda v: _choice(v, "path_policy", PATH_POLICIES),
    }
    for member in document:
        if member not in checks:
            raise Malformed(member, f"one of {', '.join(checks)}")
    checked: dict[str, Any] = {member: checks[member](value) for member, value in document.items()}
    return replace(parameters, **checked)


def rate(document: Mapping[str, Any]) -> tuple[int, int]:
    """A QC's rate: (low, high) in bytes a slot. Malformed names the wrong member."""
    low = integer(document.get("low"), "low", low=0, high=MAX_RATE)
    return low, integer(document.get("high"), "high", low=low, high=MAX_RATE)


def _choice(value: Any, field: str, allowed: Collection[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise Malformed(field, f"one of {', '.join(allowed)}")
    return value
