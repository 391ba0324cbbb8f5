"""The private shared database as a run's processes: started, broken and healed, and a standby in its place."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psycopg

from testbed.database.postgres import Cluster, ClusterError
from testbed.errors import UserError
from testbed.machine.processes import Process, Processes

NAME = "postgres"
_STANDBY = "standby"
_RESTART_S = 20.0
_SIGINT = 2  # ends PostgreSQL quickly and cleanly


class PrivateDatabase:
    """The server of `cluster`, which is made; it runs where `enter`, put before a command, has it run."""

    def __init__(self, cluster: Cluster, processes: Processes, enter: Sequence[str]) -> None:
        self.cluster = cluster
        self._processes = processes
        self._enter = enter

    def start(self) -> None:
        """Start it; returns when it answers, or ClusterError."""
        self._wait_ready(self._start(NAME, self.cluster.command()))

    def restart(self) -> None:
        """Have it up again on the data that it left; UserError."""
        deadline = time.monotonic() + _RESTART_S
        while True:
            process = self._processes.restart(NAME, [*self._enter, *self.cluster.command()])
            try:
                self._wait_ready(process)
                return
            except ClusterError as error:  # a server process of the killed one may still be about to end
                process.kill()
                if time.monotonic() > deadline:
                    raise UserError(f"heal database: {error}") from None

    def fail_over(self) -> None:
        """Kill it, and have a standby at its address that holds all it committed and takes no writes; UserError."""
        try:
            standby = self._start(_STANDBY, self.cluster.copy())
            try:
                self.cluster.wait_following(standby.alive, standby.log)
                self._processes.named(NAME).kill()
            finally:
                self._processes.stop(_STANDBY)
            self.cluster.take_over()
        except (ClusterError, psycopg.Error) as error:
            raise UserError(f"fault standby: {' '.join(str(error).split())}") from None
        self.restart()

    def promote(self) -> None:
        """Have it take writes, if it is a standby; UserError."""
        try:
            self.cluster.promote()
        except psycopg.Error as error:
            raise UserError(f"heal standby: {' '.join(str(error).split())}") from None

    def _start(self, name: str, command: Sequence[str]) -> Process:
        return self._processes.start(name, [*self._enter, *command], says_ready=False, stop_signal=_SIGINT)

    def _wait_ready(self, process: Process) -> None:
        self.cluster.wait_ready(process.alive, process.log)
