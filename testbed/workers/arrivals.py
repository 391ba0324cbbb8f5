"""What a worker tells unasked, as home takes it: how files have grown, and what became of components.

Whoever is root on a worker may say anything there. So it writes at home what is its own to write, and of each thing as
much as an honest worker may need and no more. Of a journal it brings whole lines, each of them an event that its
node or applications may write: who reads journals takes them for our own parties' word.
"""

from __future__ import annotations

import base64
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from documents.checks import Malformed
from scenario.machines import Machine
from testbed.evidence import events
from testbed.workers.connection import FarProcess

MOST_BYTES_OF_A_DATACENTER = 4 << 30  # on home's disk: as much as a journal keeps where it is written
MOST_LINE_BYTES = 1 << 20  # of a journal
MOST_LOGS = 64  # of the worker's own
MOST_WAITING_BYTES = 64 << 20  # of all files, for room on a full disk
_STATUS = range(-64, 256)


class Arrivals:
    """What the worker on `machine` tells, into the run directory `run`; ValueError if it oversteps, OSError if there is
    no room. Then nothing more is to be taken of it.
    """

    def __init__(self, machine: Machine, run: Path) -> None:
        self._machine = machine
        self._run = run
        self._waiting: dict[Path, bytearray] = {}  # for room on a full disk
        self._begun: dict[str, bytearray] = {}  # by journal, the line that has no end yet
        self._left = MOST_BYTES_OF_A_DATACENTER * len(machine.datacenters)
        self._logs: set[str] = set()
        each = "|".join(map(re.escape, machine.datacenters))
        name = re.escape(machine.name)
        self._its_own = re.compile(
            rf"(?P<kind>nodes|saes)/(?P<party>{each})/journal\.jsonl|nodes/({each})/local\.db[a-z-]*"
            rf"|logs/((node|sae)-({each})|passage-{name}|(?P<own>{name}-[a-z0-9-]+))\.log"
        )
        self.processes: dict[str, FarProcess] = {}

    def told(self, message: Mapping[str, Any]) -> None:
        """One of these."""
        if "file" in message:
            self._grow(message["file"], _decoded(message.get("data")))
            return
        name = message.get("ready", message.get("ended"))
        process = self.processes.get(name) if isinstance(name, str) else None
        if process is None:
            raise ValueError(f"it tells of {str(name)[:100]!r}, which was not started there")
        if "ready" in message:
            process.ready()
        else:
            status = message.get("status")
            if isinstance(status, bool) or not isinstance(status, int) or status not in _STATUS:
                raise ValueError(f"it says that {name} ended, and not with which exit status")
            process.ended(status)

    def lost(self) -> None:
        """The worker is gone, and all that ran there with it."""
        for name, process in self.processes.items():
            if process.poll() is None:
                words = f"machine {self._machine.name} is gone, and this with it\n"
                self._append(Path("logs", f"{name}.log"), words.encode())
                process.ended(-signal.SIGKILL)

    def _grow(self, name: object, data: bytes) -> None:
        """A worker writes nothing but what is its own to write: journals, logs and the local databases of its nodes."""
        found = self._its_own.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            raise ValueError(f"it names the file {str(name)[:100]!r}")
        if (log := found["own"]) is not None:
            self._logs.add(log)
            if len(self._logs) > MOST_LOGS:
                raise ValueError(f"it has more than {MOST_LOGS} logs of its own")
        self._left -= len(data)
        if self._left < 0:
            each = MOST_BYTES_OF_A_DATACENTER
            most = each * len(self._machine.datacenters)
            raise ValueError(f"it has sent more than {most} bytes, {each} for each of its datacenters")
        if found["kind"]:
            data = self._whole_lines(found, data)
        if data:
            self._append(Path(found[0]), data)

    def _whole_lines(self, journal: re.Match[str], data: bytes) -> bytes:
        """What of a journal can be read with that; ValueError unless each line is an event of its writer."""
        begun = self._begun.setdefault(journal[0], bytearray())
        looked_at = len(begun)
        begun += data
        end = begun.rfind(b"\n", looked_at) + 1
        whole = bytes(begun[:end])
        del begun[:end]
        lines = whole.split(b"\n")[:-1]
        if max(map(len, (*lines, begun))) > MOST_LINE_BYTES:
            raise ValueError(f"a line of {journal[0]} has more than {MOST_LINE_BYTES} bytes")
        for line in lines:
            try:
                events.check(line, journal["kind"], journal["party"])
            except Malformed as error:
                raise ValueError(f"{journal[0]} has a line that nobody writes there: {error}") from None
        return whole

    def _append(self, name: Path, data: bytes) -> None:
        self._waiting.setdefault(self._run / name, bytearray()).extend(data)
        for path, waiting in list(self._waiting.items()):
            try:
                self._write(path, waiting)
                del self._waiting[path]
            except OSError:
                if sum(map(len, self._waiting.values())) > MOST_WAITING_BYTES:
                    raise

    @staticmethod
    def _write(path: Path, waiting: bytearray) -> None:
        """Take from `waiting` what there is room for; OSError for the rest."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while waiting:
                del waiting[: os.write(fd, waiting)]
        finally:
            os.close(fd)


def _decoded(data: object) -> bytes:
    try:
        return base64.b64decode(data if isinstance(data, str) else "=", validate=True)
    except ValueError:
        raise ValueError("it says that a file has grown, and not by which bytes, in base64") from None
