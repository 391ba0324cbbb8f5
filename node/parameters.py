"""What the controller may change while the node runs: mode, TTL, keys ahead. Kept across restarts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from decisions.modes import MODES, Mode
from decisions.parameters import FOR_NODES, IMPLICIT_IDLE, KEYS_AHEAD, MODE, TTL


@dataclass(frozen=True, slots=True)
class Parameters:
    """What each is stands in `decisions.parameters`."""

    mode: str = MODE.default
    ttl_slots: int = TTL.default
    keys_ahead: int = KEYS_AHEAD.default
    implicit_idle_s: int = IMPLICIT_IDLE.default

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
    checked: dict[str, Any] = {p.name: p.check(document[p.name]) for p in FOR_NODES if p.name in document}
    return replace(default, **checked)
