"""The processes of a run: started together, awaited until they say `ready`, watched, stopped in reverse order."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from telemetry.journal import Journal

_TAIL_LINES = 3
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
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}, which nobody asked for" if status == 0 else f"exit status {status}"


def run_tool(*command: str, timeout_s: float = _TOOL_S) -> str:
    """What a program printed, once it has ended well; ProcessFailed has its own last words, or how it ended.

    One that has not ended after `timeout_s` seconds is killed.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ProcessFailed(f"{' '.join(command)} failed: it had not ended after {timeout_s:g} s") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or how_it_ended(done.returncode)
        raise ProcessFailed(f"{' '.join(command)} failed: {said}")
    return done.stdout


class Process:
    """One running component. `log` holds what it writes to its standard error.

    `journal`, if there is one, is told that it is `begun` and then `ready`, when it was `killed`, `paused` and `woken`,
    and that it has `failed`: it ended before it was ready.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        journal: Journal | None = None,
        stop_signal: int = signal.SIGTERM,
        says_ready: bool = True,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.wanted = True  # until somebody stops it on purpose
        self.killed = False
        self._journal = journal
        self._stop_signal = stop_signal
        self._says_ready = says_ready
        self._signals_due: set[int] | None = set() if says_ready else None  # None once it can be told anything
        self._ready_lock = threading.Lock()
        self._asked = False
        self._tell("begun")
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if says_ready else file,
                stderr=file,
                # Ctrl-C in the terminal is for run.py alone, which then stops everything in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._popen.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self._popen.poll() is None

    @property
    def asleep(self) -> bool:
        """Whether it is stopped, as by SIGSTOP, and does nothing."""
        try:
            after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2]
        except OSError:  # it ended
            return False
        return after_name.startswith("T")

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once it printed `ready`; ProcessFailed if it ends before, or takes longer."""
        if not self._says_ready:
            return
        out = self._popen.stdout
        assert out is not None  # noqa: S101 - says_ready asked for a pipe
        deadline = time.monotonic() + timeout_s
        poll = select.poll()  # select() knows no descriptors beyond 1023
        poll.register(out, select.POLLIN)
        said = b""
        while b"ready\n" not in said:
            if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
                raise ProcessFailed(f"{self.name} is not ready after {timeout_s:g} s; see {self.log}")
            chunk = os.read(out.fileno(), 4096)
            if not chunk:
                self._popen.wait()
                self._tell("failed")
                raise ProcessFailed(f"{self.name} ended at once: {self.last_words()}")
            said += chunk
        self._tell("ready")
        with self._ready_lock:
            for signum in self._signals_due or ():
                self._send(signum)
            self._signals_due = None

    def last_words(self) -> str:
        """How it ended, and the end of its log, in one line."""
        return f"{how_it_ended(self.status)}: {self.end_of_log()}"

    def end_of_log(self) -> str:
        """The last lines of its log, in one."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return " / ".join(line.strip() for line in lines[-_TAIL_LINES:]) or "its log is empty"

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

    def again(self) -> Process:
        """The same command started anew, now that this one has ended."""
        return Process(
            self.name, self.command, self.log, journal=self._journal, stop_signal=self._stop_signal,
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
            self._popen.wait(timeout_s)
            killed = self._asked and self.status == -self._stop_signal  # it was not ready yet to end in order
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            killed = True
        if killed:
            self._tell("killed")
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def _signal_family(self, signum: int) -> None:
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                if int(path.read_text().rpartition(") ")[2].split()[1]) == self.pid:
                    os.kill(int(path.parent.name), signum)
        self._send(signum)

    def _send(self, signum: int) -> None:
        if self.alive():
            self._popen.send_signal(signum)

    def _tell(self, event: str) -> None:
        if self._journal is not None:
            self._journal.event(event, process=self.name)


class Processes:
    """All components of a run, in the order in which they were started, with a journal of their beginnings and ends."""

    def __init__(self, log_directory: Path) -> None:
        self._logs = log_directory
        self._journal = Journal(log_directory / "journal.jsonl", "run")
        self._started: list[Process] = []

    def start(self, name: str, command: Sequence[str], **options: bool | int) -> Process:
        """Start `command`; its log is `name`.log."""
        log = self._logs / f"{name}.log"
        process = Process(name, command, log, journal=self._journal, **options)  # type: ignore[arg-type]
        self._started.append(process)
        return process

    def component(
        self, name: str, module: str, config: Path, *, prefix: Sequence[str] = (), python: str = sys.executable
    ) -> Process:
        """Start `python -m module config`, with `prefix` before it (to enter a namespace)."""
        return self.start(name, [*prefix, python, "-P", "-m", module, str(config)])

    def named(self, name: str) -> Process:
        """The component of that name; KeyError."""
        for process in self._started:
            if process.name == name:
                return process
        raise KeyError(name)

    def restart(self, name: str) -> Process:
        """Start a component that has ended anew, in its old place; KeyError."""
        old = self.named(name)
        new = old.again()
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
        """Stop all (of `kinds`, if given), the last ones started first.

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


def _kind(process: Process) -> str:
    return process.name.partition("-")[0]
