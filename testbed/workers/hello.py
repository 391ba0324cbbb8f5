"""What a worker says of itself before anything is built, and why home does not take it."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.material.blocks import boottime
from sae.vpn import kernel
from scenario.topology_description import one_line
from testbed.errors import UserError
from testbed.machine import namespaces
from testbed.machine.tools import check_tools

ROOT = Path(__file__).resolve().parents[2]
_ROOMS = ("decisions", "documents", "etsi", "ietf", "mtls", "node", "sae", "scenario", "telemetry", "testbed")
MOST_APART_S, _MOST_SINCE_START_S = 0.5, 0.05
_SHOWN = 500  # characters


def hello() -> dict[str, Any]:
    """What home must know of this machine: its sources, what it lacks (None: nothing), if its clocks can be set."""
    return {
        "sources": sources(), "python": platform.python_version(), "lacks": _lacks(), "clocks": namespaces.has_clocks(),
    }  # fmt: skip


def clocks() -> dict[str, float]:
    """What the clocks of this machine say, in seconds: that of the wall, and two that count from its start."""
    return {"time": time.time(), "monotonic": time.monotonic(), "boottime": boottime()}


def check_transport() -> None:
    """UserError if this machine cannot join others."""
    missing = [] if shutil.which("wg") else ["wireguard-tools"]
    if not kernel.has_wireguard():
        missing += [] if shutil.which("wireguard-go") else ["wireguard-go"]
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise UserError("neither WireGuard in the kernel nor /dev/net/tun for wireguard-go")
    if missing:
        raise UserError(f"cannot find WireGuard: run 'make setup', or 'apt-get install {' '.join(missing)}'")


def _lacks() -> str | None:
    if os.geteuid() != 0:
        return "needs root there, because it makes network namespaces"
    try:
        check_tools()
        check_transport()
    except UserError as error:
        return str(error)
    return None


@functools.cache
def sources() -> str:
    """A digest of all that runs on a worker, and of what home asks it with."""
    digest = hashlib.sha256()
    for path in sorted(path for room in _ROOMS for kind in ("py", "sql") for path in (ROOT / room).rglob(f"*.{kind}")):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def refused(said: Mapping[str, Any], ahead_s: Mapping[str, float]) -> str | None:
    """Why a machine that says this, and whose clocks are that much ahead of home's, is not taken; None if it is. PURE
    but for our own sources.
    """
    if said.get("lacks") is not None:
        return one_line(str(said["lacks"]))[:_SHOWN]
    if said.get("sources") != sources():
        return "has another version of the testbed: expected the same files as here"
    apart_s = ahead_s["time"]
    if abs(apart_s) > MOST_APART_S:
        return f"its clock is {_apart(apart_s)} this one: expected at most {MOST_APART_S:g} s, as NTP keeps it"
    since_start_s = max(ahead_s["monotonic"], ahead_s["boottime"], key=abs)
    if said.get("clocks") is not True and abs(since_start_s) > _MOST_SINCE_START_S:
        return (
            "its kernel has no time namespaces: expected Linux 5.6 or a later one, or clocks that count from a start as"
            f" those at home do, to {_MOST_SINCE_START_S:g} s: they are {_apart(since_start_s)} them"
        )
    return None


def _apart(ahead_s: float) -> str:
    return f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'}"
