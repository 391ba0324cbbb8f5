"""What an operator may change while the network runs. The agents hear of it with every answer to their reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from decisions.parameters import ADMISSION, FOR_NODES, IMPLICIT_IDLE, KEYS_AHEAD, MODE, PATH_POLICY, TTL, checked


@dataclass(frozen=True, slots=True)
class Parameters:
    """What each is stands in `decisions.parameters`. The two policies are for the controller, all else is for nodes."""

    mode: str = MODE.default
    ttl_slots: int = TTL.default
    keys_ahead: int = KEYS_AHEAD.default
    implicit_idle_s: int = IMPLICIT_IDLE.default
    admission: str = ADMISSION.default
    path_policy: str = PATH_POLICY.default

    def to_json(self) -> dict[str, Any]:
        """The document that operators get."""
        return asdict(self)

    def for_nodes(self) -> dict[str, Any]:
        """The document that agents get."""
        return {parameter.name: getattr(self, parameter.name) for parameter in FOR_NODES}


def changed(parameters: Parameters, document: Mapping[str, Any]) -> Parameters:
    """`parameters` with those in `document` in their place. Malformed names the wrong member."""
    return replace(parameters, **checked(document))
