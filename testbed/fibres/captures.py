"""Captures of what crosses a link, by tcpdump: a pcap in the run directory, and in its journal when it was taken.

All of it is TLS (and ARP, and the pings of who measures): a capture shows who talks to whom, when and how much, and
no key. It is the view of somebody who has a tap on the fibre.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from telemetry.journal import Journal
from testbed.errors import UserError
from testbed.machine.processes import Process, Processes
from testbed.machine.run_directory import RunDirectory
from testbed.machine.tools import check_tools
from testbed.planning.plan import LinkPlan, Plan

FOLDER = "captures"
_START_S, _END_S, _LOOK_S = 10.0, 10.0, 0.1
_BUFFER_KIB = 16 * 1024  # packets that wait for tcpdump, which a busy machine may not let run for seconds
_COUNTS = re.compile(r"(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped by kernel")


@dataclass(frozen=True)
class _Running:
    """A capture that goes on: tcpdump and its file."""

    process: Process
    path: Path

    def wait(self) -> None:
        """Return when it captures; UserError if it does not."""
        deadline = time.monotonic() + _START_S
        while "listening on" not in self.process.said():
            if not self.process.alive() or time.monotonic() > deadline:
                self.process.stop()
                raise UserError(f"tcpdump does not start: {self.process.last_words()}")
            time.sleep(0.02)

    def end(self) -> int:
        """End it once its file has what has crossed until now. How many packets the file lacks; UserError if nobody
        knows: tcpdump had ended by itself, as it does on a disk that is full.

        The kernel counts what crosses, tcpdump what it has written; on SIGUSR1 tcpdump says both. Between the two are
        packets that wait. A tcpdump that is told to end leaves them.
        """
        deadline, lost = time.monotonic() + _END_S, None
        while self.process.alive() and time.monotonic() < deadline:
            self.process.signal(signal.SIGUSR1)
            time.sleep(_LOOK_S)
            if counts := [tuple(map(int, found)) for found in _COUNTS.findall(self.process.said())]:
                (_, crossed, _), (written, _, dropped) = counts[0], counts[-1]
                lost = max(dropped, crossed - written)
                if written + dropped >= crossed:
                    break
        self.process.stop()
        if lost is None:
            why = f"tcpdump did not say what it has, {self.process.last_words()}"
            raise UserError(f"{self.path} may lack packets: {why}")
        return lost


class Captures:
    """Captures of one run, by link; tcpdump runs where the switches are, which is where this process must be."""

    def __init__(self, plan: Plan, run: RunDirectory, processes: Processes) -> None:
        self._plan = plan
        self._run = run
        self._processes = processes
        self._running: dict[str, _Running] = {}
        self._journal: Journal | None = None

    def start(self, a: str, b: str) -> Path:
        """Capture the link between the nodes `a` and `b` from now on; the file. UserError."""
        check_tools((("tcpdump", "tcpdump"),))
        link = self._link(a, b)
        name = link.link.name
        if name in self._running:
            raise UserError(f"link {name} is being captured into {self._running[name].path}")
        path = self._free(name)
        # Root is who may read the run directory; tcpdump would become somebody else before it opens the file.
        options = ["-U", "-n", "-s", "0", "-B", str(_BUFFER_KIB), "-Z", "root"]
        command = ["tcpdump", *options, "-i", link.port_a, "-w", str(path)]
        started = self._processes.start(f"capture-{path.stem}", command, says_ready=False, stop_signal=signal.SIGINT)
        running = _Running(started, path)
        running.wait()
        self._running[name] = running
        self._tell("capture_started", name, path)
        return path

    def stop(self, a: str, b: str) -> tuple[Path, int]:
        """End that capture; the file, and how many packets it lacks that had crossed. UserError."""
        name = self._link(a, b).link.name
        if name not in self._running:
            raise UserError(f"link {name} is not being captured")
        running = self._running.pop(name)
        try:
            return running.path, running.end()
        finally:
            self._tell("capture_stopped", name, running.path)

    def close(self) -> None:
        """End all captures."""
        for name, running in self._running.items():
            with contextlib.suppress(UserError):  # the end of a run says which of its processes had ended
                running.end()
            self._tell("capture_stopped", name, running.path)
        self._running.clear()
        if self._journal is not None:
            self._journal.close()

    def _link(self, a: str, b: str) -> LinkPlan:
        for plan in self._plan.links:
            if {plan.link.a, plan.link.b} == {a, b}:
                return plan
        names = ", ".join(plan.link.name for plan in self._plan.links)
        raise UserError(f"no link joins {a!r} and {b!r}: there are {names}")

    def _free(self, name: str) -> Path:
        """A file that is not there yet: a link may be captured more than once."""
        folder = self._run.make(FOLDER)
        number = 1
        while (path := folder / (f"{name}.pcap" if number == 1 else f"{name}-{number}.pcap")).exists():
            number += 1
        return path

    def _tell(self, event: str, link: str, path: Path) -> None:
        if self._journal is None:
            self._journal = Journal(self._run.make(FOLDER) / "journal.jsonl", "captures")
        self._journal.event(event, link=link, file=f"{FOLDER}/{path.name}")
