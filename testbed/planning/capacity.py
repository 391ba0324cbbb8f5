"""What a network takes of the machine: asked for, or refused, before anything is started.

Figures a node were measured on networks of 5 and 14 nodes, with reserves for load.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from node.material.shared_db import CONNECTIONS_PER_NODE
from scenario.machines import HOME, places
from testbed.errors import UserError
from testbed.planning.databases import SINGLE
from testbed.planning.plan import Plan

_MEMORY_MB_OF_REPLICAS = 350  # etcd on three hosts, Patroni on two, and another PostgreSQL
_MEMORY_MB, _MEMORY_MB_A_NODE, _MEMORY_MB_OF_SAES, _MEMORY_MB_A_SAE = 250, 70, 40, 2
# Of the process that has most of them: the switch daemon, or the one that holds the terminals of hosts and switches.
_FILES, _FILES_A_NODE, _FILES_A_LINK = 256, 10, 6
_USUAL_FILES = 4096  # servers take more, if it is there
_PROCESSES, _PROCESSES_A_NODE = 150, 60  # threads count
_ADMINISTRATORS = 20  # connections to the database that are no node's: controllers have some of them
_FEWEST_CONNECTIONS_A_NODE = 2  # without load
# Of a ring, switches and links in user space: 60 nodes came up on two processors in a minute, 135 did not in seven.
_NODES_A_PROCESSOR = 30
_PID_MAX = Path("/proc/sys/kernel/pid_max")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a network takes at most, but for `fewest_connections`: memory, open files of one process, ..."""

    memory_mb: int
    files: int
    processes: int  # and threads
    connections: int  # to the shared database
    fewest_connections: int


def _here(plan: Plan) -> set[str]:
    """The datacenters that are on this machine. PURE."""
    return {node for node, at in places(plan.topology.machines, plan.nodes).items() if at == HOME}


def needs(plan: Plan) -> Needs:
    """What the network of `plan` takes of this machine. PURE."""
    here = _here(plan)
    nodes, saes = len(here), sum(sae.node in here for sae in plan.applications)
    links = sum(link.link.a in here or link.link.b in here for link in plan.links)
    busy = len({sae.node for sae in plan.applications} & here)
    fixed_mb = _MEMORY_MB + _MEMORY_MB_OF_REPLICAS * (plan.database != SINGLE)
    return Needs(
        memory_mb=fixed_mb + nodes * _MEMORY_MB_A_NODE + busy * _MEMORY_MB_OF_SAES + saes * _MEMORY_MB_A_SAE,
        files=_FILES + nodes * _FILES_A_NODE + links * _FILES_A_LINK,
        processes=_PROCESSES + nodes * _PROCESSES_A_NODE,
        connections=_ADMINISTRATORS + len(plan.nodes) * CONNECTIONS_PER_NODE,
        fewest_connections=_ADMINISTRATORS + len(plan.nodes) * _FEWEST_CONNECTIONS_A_NODE,
    )


def reserve(plan: Plan) -> None:
    """Raise the limit of open files as the network of `plan` needs it; UserError if it is too large for the machine."""
    wanted = needs(plan)
    what = f"a network of {len(_here(plan))} nodes"
    for of_what, needed, available in (
        ("MB of memory", wanted.memory_mb, _free_memory_mb()),
        ("processes and threads", wanted.processes, _free_processes()),
    ):
        if available is not None and needed > available:
            raise UserError(f"{what} takes about {needed} {of_what}, and {available} are free: use a smaller one")
    allow_files(max(_USUAL_FILES, wanted.files), at_least=wanted.files, what=what)


def doubt(plan: Plan) -> str:
    """What speaks against starting the network of `plan` on so few processors, "" if nothing does.

    To be said, not to refuse: processors differ, and kernels in what they leave to processes.
    """
    nodes, processors = len(_here(plan)), len(os.sched_getaffinity(0))
    if nodes <= _NODES_A_PROCESSOR * processors:
        return ""
    return (
        f"{nodes} nodes may be too many for this machine (processors: {processors}), on which "
        f"{_NODES_A_PROCESSOR * processors} are known to come up: what is late counts as dead"
    )


def allow_files(wanted: int, *, at_least: int, what: str) -> None:
    """Raise this process's limit of open files to `wanted`, or as far as it goes; UserError below `at_least`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    for allowed in (hard if hard == resource.RLIM_INFINITY else max(hard, wanted), hard):
        try:
            possible = wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, allowed))
            break
        except (OSError, ValueError):  # only the machine's administrator may raise the hard limit
            continue
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY and soft < at_least:
        raise UserError(f"{what} takes {at_least} open files a process, and {soft} are allowed: raise 'ulimit -Hn'")


def _free_memory_mb() -> int | None:
    """What the machine has to give, and the container's limit leaves of it; None where neither says."""
    found = []
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) // 1024)
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        found.append((limit - used) >> 20)
    return min(found, default=None)


def _free_processes() -> int | None:
    """How many the machine, and the container's limit, leave room for; None where neither says."""
    found = []
    for limit, used in (
        (_number(_PID_MAX), len([p for p in Path("/proc").iterdir() if p.name.isdecimal()])),
        (_number(_CGROUP / "pids.max"), _number(_CGROUP / "pids.current")),
    ):
        if limit is not None and used is not None:
            found.append(limit - used)
    return min(found, default=None)


def _number(path: Path) -> int | None:
    """The number in a file of the kernel; None if there is none, or it says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
