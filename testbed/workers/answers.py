"""What a worker may answer to each of home's requests. PURE.

Whoever is root on a worker may answer anything, and answers go into commands, files, figures and tables here.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from documents.checks import Malformed, integer, mapping, number, sequence, text
from scenario.shape import MAX_DELAY_MS

CLOCKS = ("time", "monotonic", "boottime")
_MOST_PORTS = 100_000
# Of what a probe took its own bytes are taken off, which a shaper may not have made it wait for.
_LEAST_DELAY_MS, _MOST_DELAY_MS = -1.0, MAX_DELAY_MS + 60_000
_OFFERED = {
    "directory": r'"/[\w./-]{1,4000}"', "descriptor": r"[0-9]{1,6}", "shaper": r'"[a-z -]{1,40}"',
    "public_key": r'"[A-Za-z0-9+/]{43}="',
}  # fmt: skip


def checked(request: str, answer: Any) -> Any:
    """The answer to a request of that name, of its members those that are asked for; Malformed."""
    return _ANSWERS.get(request, _nothing)(answer)


def reached(said: object) -> tuple[str, str]:
    """Home's address and the worker's, by what its SSH server says of the connection (SSH_CONNECTION); Malformed."""
    parts = text(said, "reached").split()
    try:
        if len(parts) != 4:
            raise ValueError
        return str(ipaddress.ip_address(parts[0])), str(ipaddress.ip_address(parts[2]))
    except ValueError:
        raise Malformed("reached", "SSH_CONNECTION, as its SSH server says it: address, port, address, port") from None


def _nothing(answer: Any) -> None:
    if answer is not None:
        raise Malformed("answer", "nothing")


def _clocks(answer: Any) -> dict[str, float]:
    said = mapping(answer, "clocks")
    return {name: number(said.get(name), name, low=-1e12, high=1e12) for name in CLOCKS}


def _offered(answer: Any) -> dict[str, Any]:
    said = mapping(answer, "offer")
    for name, pattern in _OFFERED.items():
        value = said.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(pattern, json.dumps(value)):
            raise Malformed(name, "what a machine can offer")
    return {name: said[name] for name in _OFFERED} | {"port": integer(said.get("port"), "port", low=1, high=65_535)}


def _ports(answer: Any) -> list[str]:
    return [text(port, "port") for port in sequence(answer, "ports", longest=_MOST_PORTS)]


def _delays(answer: Any) -> list[float | None]:
    both = sequence(answer, "delays", longest=2)
    if len(both) != 2:
        raise Malformed("delays", "that of either direction")
    return [None if ms is None else number(ms, "delay", low=_LEAST_DELAY_MS, high=_MOST_DELAY_MS) for ms in both]


_ANSWERS: Mapping[str, Callable[[Any], Any]] = {
    "clock": _clocks, "begin": _offered, "round_trip": lambda answer: number(answer, "round trip", low=0, high=60_000),
    "dark": _ports, "one_way": _delays, "by_echo": _delays,
}  # fmt: skip
