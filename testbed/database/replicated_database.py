"""The shared database of a run that fails over: its hosts' processes, which one takes writes, faults and healing.

Nobody here decides who takes writes: Patroni and etcd do (`testbed.database.patroni`). What is here starts them, kills
them, and looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from node.material.shared_db import Members
from telemetry import bugs
from telemetry.journal import Journal
from testbed.database.patroni import Host
from testbed.database.postgres import ClusterError
from testbed.errors import UserError
from testbed.machine.processes import Process, Processes

_SIGKILL = 9  # what is kept of a host's files is erased with the run: there is nothing to end in order
# Of a machine with a slow disk; a process that ends is told of at once.
_QUORUM_S, _START_S, _HEAL_S, _SWITCH_S = 30.0, 90.0, 90.0, 30.0
_LOOK_S = 0.05
_WATCH_S = 0.25  # between two looks at who takes writes
_ETCD, _PATRONI = "etcd-", "database-"
T = TypeVar("T")


class ReplicatedDatabase:
    """Database hosts, of which the first two have PostgreSQL.

    `enter` gives what has a command run on the host of that name, and `on` has a step done there. `waits`: whether each
    commit waits for the standby.
    """

    def __init__(
        self, hosts: Sequence[Host], processes: Processes, *, enter: Callable[[str], Sequence[str]], waits: bool,
        on: Callable[[str, Callable[[], bool]], bool],
    ) -> None:  # fmt: skip
        self._hosts = {host.name: host for host in hosts}
        self._servers = list(hosts)[:2]
        self._processes = processes
        self._enter = enter
        self._on = on
        self._waits = waits
        self._switches: list[float] = []
        self._over = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def cluster(self) -> Host:
        """The server that takes writes, as soon as there is one; ClusterError."""
        return self._await(self._in_command, "takes writes", _SWITCH_S)

    @property
    def in_command(self) -> str | None:
        """The name of the host that takes writes now."""
        found = self._in_command()
        return None if found is None else found.name

    @property
    def lossy_switches(self) -> Sequence[float]:
        """When another host took over that may not have had the last commits, by the monotonic clock."""
        return () if self._waits else tuple(self._switches)

    def start(self, schema: str, members: Members) -> None:
        """Start all of it; returns when `schema` is there for these `members`, on both servers. ClusterError."""
        first, second = self._servers
        for name in self._hosts:
            self._start_etcd(name)
        self._await(lambda: self._on(first.name, first.has_quorum), "has agreed on a leader (etcd)", _QUORUM_S)
        self._start_patroni(first.name)
        self._await(first.timeline, f"takes writes on {first.name}", _START_S)
        first.create(schema)
        first.admit(schema, members)
        self._start_patroni(second.name)
        self._await(self.has_spare, f"follows on {second.name}", _START_S)
        second.bound_notes(self._processes.named(_PATRONI + second.name).pid)

    def has_spare(self) -> bool:
        """Whether there is a server that takes writes, and one that may take its place."""
        found = self._in_command()
        if found is None or not self._waits:
            return found is not None and found.is_followed()
        return any(self._on(other.name, other.may_take_over) for other in self._servers if other is not found)

    def watch(self, journal: Journal) -> None:
        """From now on, say in the journal when another host takes writes."""
        self._watch = bugs.watched_thread(lambda: self._look(journal), name="database-watch", stopped=self._over.is_set)
        self._watch.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        if self._watch is not None:
            self._watch.join()

    def kill(self, host: str) -> None:
        """End all that runs on that host, as if its power were cut; UserError if nothing of it runs."""
        if not any(process.alive() for process in self._on_host(host)):
            raise UserError(f"fault database {host}: all of it has ended already")
        for process in self._on_host(host):
            process.kill()

    def restart(self, host: str) -> None:
        """Start it again on its files; returns when it serves, as what the others need it for. UserError."""
        for process in self._on_host(host):
            self._processes.restart(process.name)
        found = self._hosts[host]
        if found not in self._servers:
            return
        try:
            self._await(lambda: found.timeline() is not None, f"answers on {host}", _HEAL_S)
        except ClusterError as error:
            raise UserError(f"heal database {host}: {error}") from None

    def _look(self, journal: Journal) -> None:
        before = self.in_command
        while not self._over.wait(_WATCH_S):
            now = self.in_command
            if now is not None and now != before:
                self._switches.append(time.monotonic())
                journal.event("database_switch", host=now, before=before)
                before = now

    def _in_command(self) -> Host | None:
        """Who takes writes. One that has lost its place does so for a moment: the latest timeline counts."""
        timelines = [(server.timeline() or 0, server) for server in self._servers]
        latest, found = max(timelines, key=lambda pair: pair[0])
        return found if latest else None

    def _on_host(self, host: str) -> list[Process]:
        names = [_PATRONI + host] * (self._hosts[host] in self._servers) + [_ETCD + host]
        return [self._processes.named(name) for name in names]

    def _start_etcd(self, name: str) -> None:
        self._start(_ETCD + name, [*self._enter(name), *self._hosts[name].etcd()])

    def _start_patroni(self, name: str) -> None:
        self._start(_PATRONI + name, [*self._enter(name), *self._hosts[name].patroni()])

    def _start(self, name: str, command: Sequence[str]) -> None:
        self._processes.start(name, command, says_ready=False, stop_signal=_SIGKILL)

    def _await(self, state: Callable[[], T | None], what: str, within_s: float) -> T:
        """What `state` gives once that is true; ClusterError if it is not in time, or a process has ended."""
        deadline = time.monotonic() + within_s
        while not (found := state()):
            for process in self._processes.dead():
                if process.name.startswith((_ETCD, _PATRONI)):
                    raise ClusterError(f"{process.name} ended: {process.last_words()}")
            if time.monotonic() > deadline:
                raise ClusterError(f"after {within_s:g} s no database server {what}: see the logs {_PATRONI}*.log")
            time.sleep(_LOOK_S)
        return found
