"""What the controller may change while the node runs: mode, TTL, keys ahead. Kept across restarts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from decisions.modes import MODES, Mode
from documents.checks import integer, text
from documents.errors import Malformed

MAX_TTL_SLOTS = 86_400
MAX_KEYS_AHEAD = 64
MAX_IDLE_S = 86_400


@dataclass(frozen=True, slots=True)
class Parameters:
    """`mode` by its name; TTL in slots; keys made at once in modes that make keys ahead; life of unused sessions.

    The last one counts for sessions that a request for keys opened, in seconds since the last request.
    """

    mode: str = "basic"
    ttl_slots: int = 15
    keys_ahead: int = 4
    implicit_idle_s: int = 60

    @property
    def strategy(self) -> Mode:
        """The mode itself."""
        return MODES[self.mode]

    def to_json(self) -> dict[str, Any]:
        """The document that `parse` reads."""
        return asdict(self)


class Current:
    """The parameters in force. Read without a lock: they are replaced whole."""

    def __init__(self, value: Parameters) -> None:
        self.value = value

    def __call__(self) -> Parameters:
        """The parameters now."""
        return self.value


def parse(document: Mapping[str, Any], default: Parameters) -> Parameters:
    """The parameters in `document`; members left out are as in `default`. Malformed names the wrong member."""
    mode = text(document.get("mode", default.mode), "mode")
    if mode not in MODES:
        raise Malformed("mode", f"one of {', '.join(MODES)}")
    return Parameters(
        mode,
        integer(document.get("ttl_slots", default.ttl_slots), "ttl_slots", low=1, high=MAX_TTL_SLOTS),
        integer(document.get("keys_ahead", default.keys_ahead), "keys_ahead", low=1, high=MAX_KEYS_AHEAD),
        integer(
            document.get("implicit_idle_s", default.implicit_idle_s), "implicit_idle_s", low=1, high=MAX_IDLE_S
        ),
    )
