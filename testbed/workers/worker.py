"""One worker, as home has it: its connection, its run directory, and what is brought there."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from decisions.parameters import MODE
from documents.checks import Malformed
from scenario.machines import HOME, Machine
from testbed.errors import UserError
from testbed.machine.processes import Child, Process, Processes, ProcessFailed
from testbed.machine.run_directory import RunDirectory
from testbed.planning.plan import Plan
from testbed.workers.answers import reached
from testbed.workers.arrivals import Arrivals
from testbed.workers.connection import Connection, FarPlace, FarProcess, command, why_it_ended
from testbed.workers.hello import check_transport, clocks, refused

# How libpq is told of files of the run directory; see `OwnDatabase.node_url`.
_BY_DESCRIPTOR = re.compile(r"/proc/1/fd/[0-9]+/(?=pki/)")
_MOST_LOG_BYTES = 64 << 20  # of what comes by ssh's standard error
_MOST_WORDS, _LAST_WORDS_S = 4000, 10.0
_HELLO_S, _CLOCKS, _END_S, _LOOK_S = 40.0, 15, 10.0, 0.05


def files_named(text: str, run: Path) -> list[Path]:
    """The files of a run directory that a configuration names, in JSON. PURE, but for whether they are there."""
    inside = re.escape(json.dumps(str(run))[1:-1])
    found = {Path(run, match) for match in re.findall(rf"{inside}/([\w./-]+)", text)}
    return sorted(path for path in found if path.is_file())


def relocated(text: str, run: Path, there: str, descriptor: int) -> str:
    """The same configuration for a run directory elsewhere, which the first process there holds open so. PURE."""
    text = _BY_DESCRIPTOR.sub(f"/proc/1/fd/{descriptor}/", text)
    return text.replace(json.dumps(str(run))[1:-1], json.dumps(there)[1:-1])


class Worker:
    """The worker on `machine` of the run in that directory. `lost` is called when it is gone. ProcessFailed."""

    def __init__(
        self, machine: Machine, run: RunDirectory, processes: Processes, *, outside: str, lost: Callable[[], None]
    ) -> None:
        self.machine = machine
        self._run = run
        self._lost = lost
        self._arrivals = Arrivals(machine, run.path)
        self._brought: set[str] = set()
        self.process: Process = processes.begin(
            f"machine-{machine.name}", lambda _, err: self._launch(outside, err), says_ready=False
        )

    def _launch(self, outside: str, err: int) -> Child:
        # What comes by ssh's own standard error is the worker's word, too.
        bound = ["prlimit", f"--fsize={_MOST_LOG_BYTES}", "--"]
        ssh = subprocess.Popen(
            [*bound, *command(self.machine, outside)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        to_it, from_it = ssh.stdin, ssh.stdout
        assert to_it is not None and from_it is not None  # noqa: S101, PT018 - they were asked for
        log = os.dup(err)

        def ended(why: str) -> None:
            if why:
                os.write(log, f"machine {self.machine.name} was given up: {why}\n".encode())
                ssh.kill()
            os.close(log)
            from_it.close()
            self._arrivals.lost()
            self._lost()

        self.connection = Connection(
            self.machine.name, to_it, from_it, told=self._arrivals.told, ended=ended
        )
        return ssh

    def greet(self) -> None:
        """Hear what it is, and have it enter the run by our clocks; ProcessFailed if it cannot be taken."""
        try:
            self.said = self.connection.hello.result(_HELLO_S)
        except (ProcessFailed, TimeoutError):
            raise ProcessFailed(f"machine {self.machine.name}: {self._why()}") from None
        ahead_s = clocks_ahead(self.connection)
        if (why := refused(self.said, ahead_s)) is not None:
            raise ProcessFailed(f"machine {self.machine.name}: {why}")
        self.connection.ask("enter", monotonic_s=-ahead_s["monotonic"], boottime_s=-ahead_s["boottime"])

    @property
    def address(self) -> str:
        """Where other machines reach it."""
        return self.machine.address or self._reached()[1]

    @property
    def home_address(self) -> str:
        """Where it reaches home."""
        return self._reached()[0]

    def _reached(self) -> tuple[str, str]:
        """Home's address and its own, by its SSH server."""
        try:
            return reached(self.said.get("reached"))
        except Malformed as error:
            raise ProcessFailed(f"machine {self.machine.name}: {error}") from None

    def _why(self) -> str:
        if self.connection.why:
            return self.connection.why
        deadline = time.monotonic() + 1
        while self.process.alive() and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return why_it_ended(self.machine, self.process.status, self.process.said())

    def begin(self, address: str) -> dict[str, Any]:
        """Have it prepared, with that address among machines; what it offers."""
        name = self.machine.name
        found: dict[str, Any] = self.connection.ask("begin", run=self._run.id, machine=name, address=address)
        self._directory, self._descriptor = found["directory"], found["descriptor"]
        return found

    def place(self, host: str | None) -> FarPlace:
        """Where components of a host of it run."""
        return FarPlace(self._start, host)

    def _start(self, name: str, module: str, config: Path, out: int, host: str | None) -> FarProcess:
        if name not in self._brought:
            text = config.read_text()
            for path in files_named(text, self._run.path):
                self._bring(path, path.read_bytes())
            if name.startswith("node-"):
                for path in (self._run.path / "nodes" / name.removeprefix("node-")).glob("*.key"):
                    self._bring(path, path.read_bytes())
            self._bring(config, relocated(text, self._run.path, self._directory, self._descriptor).encode())
            self._brought.add(name)
        process = FarProcess(self.connection, name, out)
        self._arrivals.processes[name] = process
        try:
            where = str(config.relative_to(self._run.path))
            self.connection.ask("start", name=name, module=module, config=where, host=host)
        except ProcessFailed:
            process.ended(1)
            raise
        return process

    def _bring(self, path: Path, data: bytes) -> None:
        name = str(path.relative_to(self._run.path))
        self.connection.ask("write", name=name, data=base64.b64encode(data).decode())

    def components(self) -> list[str]:
        """The names of those that were started there."""
        return list(self._arrivals.processes)

    def finish(self) -> None:
        """Have all its results here; ProcessFailed if they did not come."""
        self.connection.ask("finish")

    def close(self) -> None:
        """Have it end, and wait for that."""
        self.process.wanted = False
        self.connection.close()
        deadline = time.monotonic() + _END_S
        while self.process.alive() and time.monotonic() < deadline:
            time.sleep(_LOOK_S)


def clocks_ahead(connection: Connection) -> dict[str, float]:
    """How far a machine's clocks are ahead of ours, in s, to half a round trip; ProcessFailed."""
    found = []
    for _ in range(_CLOCKS):
        before = clocks()
        said = connection.ask("clock")
        took_s = clocks()["monotonic"] - before["monotonic"]
        found.append((took_s, {name: said[name] - value - took_s / 2 for name, value in before.items()}))
    return min(found, key=lambda one: one[0])[1]


def check(plan: Plan, *, exposed: bool = False, policies: Collection[str] = ()) -> None:
    """UserError, one line, if a machine of `plan` cannot be a worker; asks all of them, before anything is built.

    `exposed`, `policies`: whether servers are to be published, and the parameters for which there are policies of the
    user's own, which do not go over machines all of them.
    """
    machines = plan.topology.machines
    if not machines:
        return
    devices = [qc.name for link in plan.topology.links for qc in link.qcs if qc.source is not None]
    for unfit, what in (
        (exposed, "--expose"), (MODE.name in policies, "a mode of your own"), (devices, "devices of yours"),
        (plan.topology.tunnels, "tunnels"),
    ):  # fmt: skip
        if unfit:
            raise UserError(f"a network on several machines goes without {what}: that works on one machine only, yet")
    try:
        check_transport()
    except UserError as error:
        raise UserError(f"machine {HOME}: {error}") from None
    with ThreadPoolExecutor(len(machines)) as pool:
        for machine, why in zip(machines, pool.map(_why_not, machines), strict=True):
            if why is not None:
                raise UserError(f"machine {machine.name}: {why}")


def _why_not(machine: Machine) -> str | None:
    with subprocess.Popen(
        command(machine), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ssh:
        assert ssh.stdin is not None and ssh.stdout is not None and ssh.stderr is not None  # noqa: S101, PT018
        connection = Connection(machine.name, ssh.stdin, ssh.stdout, told=lambda _: None, ended=lambda _: None)
        try:
            said = connection.hello.result(_HELLO_S)
            return refused(said, clocks_ahead(connection))
        except TimeoutError:
            ssh.terminate()
            return f"ssh {machine.ssh}: no answer within {_HELLO_S:g} s"
        except ProcessFailed:
            if connection.why:
                ssh.kill()
                return connection.why
            said_last = _last_words(ssh.stderr)  # until it has ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                return why_it_ended(machine, ssh.wait(_LAST_WORDS_S), said_last)
            ssh.kill()
            return why_it_ended(machine, ssh.wait(), said_last)
        finally:
            connection.close()
            ssh.wait()


def _last_words(said: IO[bytes]) -> str:
    """What comes there until the end, for a while, and no more of it than anybody reads."""
    found, until = b"", time.monotonic() + _LAST_WORDS_S
    poll = select.poll()
    poll.register(said, select.POLLIN)
    while len(found) < _MOST_WORDS and poll.poll(1000 * max(0.0, until - time.monotonic())):
        if not (data := os.read(said.fileno(), _MOST_WORDS - len(found))):
            break
        found += data
    return found.decode(errors="replace")
