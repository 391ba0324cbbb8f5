"""Captures of what crosses a link, by tcpdump: a pcap in the run directory, and in its journal when it was taken.

All of it is TLS (and ARP, and the pings of who measures): a capture shows who talks to whom, when and how much, and
no key. It is the view of somebody who has a tap on the fibre.
"""

from __future__ import annotations

import time
from pathlib import Path

from telemetry.journal import Journal
from testbed.errors import UserError
from testbed.machine.processes import Process, Processes
from testbed.machine.run_directory import RunDirectory
from testbed.planning.plan import LinkPlan, Plan

FOLDER = "captures"
_CATCH_UP_S, _LOOK_S = 1.0, 0.1
_START_S = 10.0


class Captures:
    """Captures of one run, by link; tcpdump runs where the switches are, which is where this process must be."""

    def __init__(self, plan: Plan, run: RunDirectory, processes: Processes) -> None:
        self._plan = plan
        self._run = run
        self._processes = processes
        self._running: dict[str, tuple[Process, Path]] = {}
        self._journal: Journal | None = None

    def start(self, a: str, b: str) -> Path:
        """Capture the link between the nodes `a` and `b` from now on; the file. UserError."""
        link = self._link(a, b)
        name = link.link.name
        if name in self._running:
            raise UserError(f"link {name} is being captured into {self._running[name][1]}")
        path = self._free(name)
        # Root is who may read the run directory; tcpdump would become somebody else before it opens the file.
        # At once into the file: what crosses right before the end would be lost in the kernel's buffer.
        options = ["--immediate-mode", "-U", "-n", "-s", "0", "-Z", "root"]
        command = ["tcpdump", *options, "-i", link.port_a, "-w", str(path)]
        process = self._processes.start(f"capture-{path.stem}", command, says_ready=False, stop_signal=2)
        self._wait(process)
        self._running[name] = process, path
        self._tell("capture_started", name, path)
        return path

    def stop(self, a: str, b: str) -> Path:
        """End that capture; the file. UserError."""
        name = self._link(a, b).link.name
        if name not in self._running:
            raise UserError(f"link {name} is not being captured")
        process, path = self._running.pop(name)
        _let_catch_up(path)
        process.stop()
        self._tell("capture_stopped", name, path)
        return path

    def close(self) -> None:
        """End all captures."""
        for process, path in self._running.values():
            process.stop()
            self._tell("capture_stopped", path.stem, path)
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

    def _wait(self, process: Process) -> None:
        """Return when it captures; UserError if it does not."""
        deadline = time.monotonic() + _START_S
        while "listening on" not in process.log.read_text(errors="replace"):
            if not process.alive() or time.monotonic() > deadline:
                process.stop()
                raise UserError(f"tcpdump does not start: {process.last_words()}")
            time.sleep(0.02)

    def _tell(self, event: str, link: str, path: Path) -> None:
        if self._journal is None:
            self._journal = Journal(self._run.make(FOLDER) / "journal.jsonl", "captures")
        self._journal.event(event, link=link, file=f"{FOLDER}/{path.name}")


def _let_catch_up(path: Path) -> None:
    """Return when the file grows no more: on a busy machine tcpdump is behind, and ends without what waits for it."""
    deadline, size = time.monotonic() + _CATCH_UP_S, -1
    while (now := path.stat().st_size) != size and time.monotonic() < deadline:
        size = now
        time.sleep(_LOOK_S)
