"""The processes of a run: started together, awaited until they say `ready`, watched, stopped in reverse order."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from scenario.topology_description import one_line
from telemetry.journal import Journal
from testbed.machine.fork_server import ForkFailed, ForkServer

_TAIL_LINES, _TAIL_BYTES = 3, 1 << 14  # of a log, which may be long, and of another machine
_TOOL_S = 60.0


class ProcessFailed(Exception):
    """A process did not start; one line that says which, and its own last words."""


def how_it_ended(status: int | None) -> str:
    """An exit status in words; negative for a signal. PURE."""
    if status is None:
        return "it runs"
    if status == -signal.SIGKILL:
        return "killed by SIGKILL, by somebody or by the kernel for want of memory"
    if status < 0:
        named = {one.value: one.name for one in signal.Signals}
        return f"killed by {named.get(-status, f'signal {-status}')}"
    return f"exit status {status}, which nobody asked for" if status == 0 else f"exit status {status}"


def run_tool(*command: str, timeout_s: float = _TOOL_S, given: str | None = None) -> str:
    """What a program printed, once it has ended well; ProcessFailed has its own last words, or how it ended.

    One that has not ended after `timeout_s` seconds is killed. `given` goes to its standard input: what is secret
    goes there, as argv is public.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s, input=given,
            stdin=subprocess.DEVNULL if given is None else None,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ProcessFailed(f"{' '.join(command)} failed: it had not ended after {timeout_s:g} s") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or how_it_ended(done.returncode)
        raise ProcessFailed(f"{' '.join(command)} failed: {said}")
    return done.stdout


class Child(Protocol):
    """What was started, as `subprocess.Popen` shows it."""

    pid: int

    def poll(self) -> int | None:
        """Exit status, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal."""

    def kill(self) -> None:
        """End it at once."""


@runtime_checkable
class FarChild(Child, Protocol):
    """One on another machine, of which /proc says nothing here."""

    @property
    def asleep(self) -> bool:
        """Whether it is stopped, as by SIGSTOP."""


class Place(Protocol):
    """Where components run that do not run on this machine."""

    def start(self, name: str, module: str, config: Path, out: int, err: int) -> Child:
        """Start a component there, as `Processes.component` does here; ProcessFailed."""


def execute(command: Sequence[str], out: int, err: int) -> Child:
    """A program that writes to these descriptors."""
    # Ctrl-C in the terminal is for run.py alone, which then stops everything in order.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


class Process:
    """One running component. `log` holds what it writes to its standard error.

    `launch` starts it, with descriptors for its standard output and error; ProcessFailed.
    `journal`, if there is one, is told that it is `begun` and then `ready`, when it was `killed`, `paused` and `woken`,
    and that it has `failed`: it ended before it was ready.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[int, int], Child],
        log: Path,
        *,
        journal: Journal | None = None,
        stop_signal: int = signal.SIGTERM,
        says_ready: bool = True,
    ) -> None:
        self.name = name
        self.log = log
        self.wanted = True  # until somebody stops it on purpose
        self.killed = False
        self._launch = launch
        self._journal = journal
        self._stop_signal = stop_signal
        self._says_ready = says_ready
        self._signals_due: set[int] | None = set() if says_ready else None  # None once it can be told anything
        self._ready_lock = threading.Lock()
        self._asked = False
        self._tell("begun")
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(log.open("ab"))
            self._log_from = file.tell()
            out = file.fileno()
            if says_ready:
                said, out = os.pipe()
                self._said = io.FileIO(said)
                stack.callback(os.close, out)
            try:
                self._child = launch(out, file.fileno())
            except ProcessFailed:
                if says_ready:
                    self._said.close()
                raise

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._child.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self._child.poll() is None

    @property
    def asleep(self) -> bool:
        """Whether it is stopped, as by SIGSTOP, and does nothing."""
        if isinstance(self._child, FarChild):
            return self._child.asleep
        try:
            after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2]
        except OSError:  # it ended
            return False
        return after_name.startswith("T")

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._child.poll()

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once it printed `ready`; ProcessFailed if it ends before, or takes longer."""
        if not self._says_ready:
            return
        deadline = time.monotonic() + timeout_s
        poll = select.poll()  # select() knows no descriptors beyond 1023
        poll.register(self._said, select.POLLIN)
        said = b""
        while b"ready\n" not in said:
            if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
                raise ProcessFailed(f"{self.name} is not ready after {timeout_s:g} s; see {self.log}")
            chunk = self._said.read(4096)
            if not chunk:
                self._child.wait()
                self._tell("failed")
                raise ProcessFailed(f"{self.name} ended at once: {self.last_words()}")
            said += chunk
        self._tell("ready")
        with self._ready_lock:
            for signum in self._signals_due or ():
                self._send(signum)
            self._signals_due = None

    def said(self) -> str:
        """All that it has written to its standard error, without what others of its name wrote before it."""
        return self.log.read_bytes()[self._log_from :].decode(errors="replace")

    def last_words(self) -> str:
        """How it ended, and the end of its log, in one line."""
        return f"{how_it_ended(self.status)}: {self.end_of_log()}"

    def end_of_log(self) -> str:
        """The last lines of its log, in one."""
        if not self.log.exists():
            return "its log is empty"
        with self.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
        return " / ".join(map(one_line, lines[-_TAIL_LINES:])) or "its log is empty"

    def signal(self, signum: int) -> None:
        """Send a signal that it handles, if it still runs: once it is ready, as it would die of it before."""
        with self._ready_lock:
            if self._signals_due is None:
                self._send(signum)
            else:
                self._signals_due.add(signum)

    def pause(self) -> None:
        """Have it sleep, with those that it started: PostgreSQL has a process for each connection."""
        self._signal_family(signal.SIGSTOP)
        self._tell("paused")

    def wake(self) -> None:
        """End that sleep."""
        self._signal_family(signal.SIGCONT)
        self._tell("woken")

    def again(self, launch: Callable[[int, int], Child] | None = None) -> Process:
        """Started anew, now that it has ended; as before, unless by `launch`."""
        return Process(
            self.name, launch or self._launch, self.log, journal=self._journal, stop_signal=self._stop_signal,
            says_ready=self._says_ready,
        )  # fmt: skip

    def ask_to_stop(self) -> None:
        """Ask it to end, and do not wait."""
        self.wanted = False
        if not self._asked:
            self._asked = True
            self._send(self._stop_signal)
            self._send(signal.SIGCONT)  # it may be paused

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask it to end, wait, insist."""
        self.ask_to_stop()
        self._finish(timeout_s)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.wanted, self.killed = False, True
        self._finish(0.0)

    def _finish(self, timeout_s: float) -> None:
        """Wait for its end so long, then kill it."""
        try:
            self._child.wait(timeout_s)
            killed = self._asked and self.status == -self._stop_signal  # it was not ready yet to end in order
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            killed = True
        if killed:
            self._tell("killed")
        if self._says_ready:
            self._said.close()

    def _signal_family(self, signum: int) -> None:
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                if int(path.read_text().rpartition(") ")[2].split()[1]) == self.pid:
                    os.kill(int(path.parent.name), signum)
        self._send(signum)

    def _send(self, signum: int) -> None:
        if self.alive():
            self._child.send_signal(signum)

    def _tell(self, event: str) -> None:
        if self._journal is not None:
            self._journal.event(event, process=self.name)


class Processes:
    """All components of a run, in the order in which they were started, with a journal of their beginnings and ends.

    Those of `modules` are forks of one process that has imported all of these.
    """

    def __init__(self, log_directory: Path, modules: Sequence[str] = ()) -> None:
        self._logs = log_directory
        self._modules = modules
        self._forks: ForkServer | None = None
        self._journal = Journal(log_directory / "journal.jsonl", "run")
        self._started: list[Process] = []

    def prepare(self, *, forked: bool = False) -> ForkServer:
        """Have the modules be imported from now on, before the first component needs them; `forked`: see ForkServer."""
        if self._forks is None:
            self._forks = ForkServer(self._modules, self._logs / "fork-server.log", forked=forked)
        return self._forks

    def start(self, name: str, command: Sequence[str], **options: bool | int) -> Process:
        """Start `command`; its log is `name`.log."""
        return self.begin(name, functools.partial(execute, command), **options)

    def component(
        self, name: str, module: str, config: Path, *, inside: int | Place | None = None, python: str = sys.executable
    ) -> Process:
        """Start `python -m module config`, in the namespaces of process `inside` if that is given, or on another
        machine. ProcessFailed.
        """
        if inside is not None and not isinstance(inside, int):
            return self.begin(name, functools.partial(inside.start, name, module, config))
        if module in self._modules and python == sys.executable:
            forks = self.prepare()

            def fork(out: int, err: int) -> Child:
                try:
                    return forks.start(name, module, config, inside=inside, out=out, err=err)
                except ForkFailed as error:
                    raise ProcessFailed(str(error)) from None

            return self.begin(name, fork)
        enter = [] if inside is None else ["mnexec", "-a", str(inside)]
        return self.start(name, [*enter, python, "-P", "-m", module.removesuffix(".__main__"), str(config)])

    def begin(self, name: str, launch: Callable[[int, int], Child], **options: bool | int) -> Process:
        """Start what `launch` starts, with descriptors for its standard output and error; its log is `name`.log."""
        log = self._logs / f"{name}.log"
        process = Process(name, launch, log, journal=self._journal, **options)  # type: ignore[arg-type]
        self._started.append(process)
        return process

    def named(self, name: str) -> Process:
        """The component of that name; KeyError."""
        for process in self._started:
            if process.name == name:
                return process
        raise KeyError(name)

    def restart(self, name: str, command: Sequence[str] | None = None) -> Process:
        """Start a component that has ended anew, in its old place, by `command` if that is given; KeyError."""
        old = self.named(name)
        new = old.again(None if command is None else functools.partial(execute, command))
        self._started[self._started.index(old)] = new
        return new

    def dead(self) -> list[Process]:
        """Those that ended though nobody stopped them."""
        return [p for p in self._started if p.wanted and not p.alive()]

    def away(self) -> dict[str, str]:
        """Those that do not serve, by name, each with a word that says why."""
        found = {p.name: "killed" for p in self._started if p.killed and not p.alive()}
        found |= {p.name: "asleep" for p in self._started if p.asleep}
        return found | {p.name: "DEAD" for p in self.dead()}

    def stop(self, *kinds: str) -> None:
        """Stop all (of `kinds`, if given), the last ones started first. They may be started anew.

        Neighbours of one kind (`node-a`, `node-b`) end at the same time.
        """
        chosen = [p for p in self._started if not kinds or _kind(p) in kinds]
        for process in chosen:
            process.wanted = False
        for _, kind in itertools.groupby(reversed(chosen), key=_kind):
            together = list(kind)
            for process in together:
                process.ask_to_stop()
            for process in together:
                process.stop()
        self._started = [p for p in self._started if p not in chosen]
        if not kinds and self._forks is not None:
            self._forks.close()
            self._forks = None


def _kind(process: Process) -> str:
    return process.name.partition("-")[0]
