"""Whether a network that was started is there: switches, nodes, first key material; and what is lacking if not."""

from __future__ import annotations

import contextlib
import math
import os
import time

from mtls.call import Unreachable
from testbed.machine.processes import Processes, ProcessFailed
from testbed.network.operator_calls import ControlRoom
from testbed.planning.plan import Plan

_REGISTRATION_S, _REGISTRATION_S_A_NODE = 60.0, 1.0
# Processes that wait for a processor, by which a machine is not slow but overloaded.
_OVERLOAD_A_PROCESSOR = 5
_LOOK_S = 0.05
# Key material to begin with, so that the first keys of many SAEs at once do not fail for want of it: so many slots, or
# fewer if that is known to be enough.
_FIRST_SLOTS = 3


def wait_until_ready(
    plan: Plan, processes: Processes, control_room: ControlRoom, *, ttl_slots: int, first_bytes: int | None
) -> None:
    """Return when the controller knows all switches, all nodes are in the database, and all QCs have key material.

    `first_bytes`: what is enough of it on each; None if nobody knows.

    ProcessFailed, with what is lacking, if that takes too long or a process ends.
    """
    within_s = _REGISTRATION_S + _REGISTRATION_S_A_NODE * len(plan.nodes)
    deadline = time.monotonic() + within_s
    # Of each QC, what it is to have shown at one time or another: with a short TTL it does not keep it.
    awaited = {
        qc.name: first_slots(qc.low_bytes_per_slot, ttl_slots, first_bytes) * qc.low_bytes_per_slot
        for link in plan.topology.links
        for qc in link.qcs
    }
    outside = set(plan.nodes)  # of the database, as far as is known
    lacking = "the controller does not answer"
    while lacking:
        for process in processes.dead():
            raise ProcessFailed(f"{process.name} ended: {process.last_words()}")
        if time.monotonic() > deadline:
            raise ProcessFailed(f"after {within_s:g} s {lacking}{_overload()}")
        time.sleep(_LOOK_S)
        with contextlib.suppress(Unreachable):
            lacking = _lacking(
                plan, processes, control_room, awaited=awaited, outside=outside, deadline=deadline
            )


def first_slots(bytes_per_slot: int, ttl_slots: int, first_bytes: int | None) -> int:
    """The slots of key material that a QC of so many bytes a slot begins with. PURE."""
    most = max(1, min(_FIRST_SLOTS, ttl_slots - 1))
    if first_bytes is None or bytes_per_slot == 0:
        return most
    return max(1, min(most, math.ceil(first_bytes / bytes_per_slot)))


def _lacking(
    plan: Plan,
    processes: Processes,
    control_room: ControlRoom,
    *,
    awaited: dict[str, int],
    outside: set[str],
    deadline: float,
) -> str:
    """What is not there yet, "" if nothing; takes out of `awaited` and `outside` what has come.

    Looks no further when the monotonic clock says `deadline`.
    """
    status = control_room.controller("GET", "/qkd/v1/status").body
    missing = [s for s in plan.switches.values() if s not in status["switches"]]
    if missing:
        return f"the controller still lacks switches {', '.join(missing)}"
    missing = [n for n in plan.nodes if n not in status["nodes"]]
    if missing:
        said = processes.named("controller").end_of_log()
        return f"the controller still lacks nodes {', '.join(missing)}; it says: {said}"
    for node, asked in [(node, control_room.ask(node, "GET", "/qkd/v1/status")) for node in sorted(outside)]:
        with contextlib.suppress(TimeoutError):
            if asked.result(max(0.0, deadline - time.monotonic())).body["in_database"]:
                outside.remove(node)
    if outside:
        one = min(outside)
        said = processes.named(f"node-{one}").end_of_log()
        return f"nodes {', '.join(sorted(outside))} do not reach the shared database; {one}: {said}"
    qcs = {q["qc"]: q for q in control_room.controller("GET", "/qkd/v1/qcs").body["qcs"]}
    for qc in [qc for qc, n_bytes in awaited.items() if qcs.get(qc, {}).get("stored_bytes", -1) >= n_bytes]:
        del awaited[qc]
    return f"there is too little key material on {', '.join(awaited)}" if awaited else ""


def _overload() -> str:
    """Words on a machine that has too few processors for what it runs; none on another."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load < _OVERLOAD_A_PROCESSOR * processors:
        return ""
    return f"; the machine is overloaded ({load:.0f} processes want its {processors} processors): use a smaller network"
