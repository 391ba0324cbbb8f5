"""What a run could leave behind on the machine, and whether it did."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any


class Machine:
    """What a run could leave behind on the machine."""

    def __init__(self) -> None:
        self.links = self._links()
        self.mounts = self._mounts()

    @staticmethod
    def _links() -> set[str]:
        shown = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout
        return {link["ifname"] for link in json.loads(shown)}

    @staticmethod
    def _mounts() -> Counter[str]:
        """Where something is mounted, and how often."""
        return Counter(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())

    @staticmethod
    def processes(directory: Path) -> list[str]:
        """Command lines of processes, other than this one, that have to do with a run directory."""
        found = []
        for path in set(Path("/proc").glob("[0-9]*")) - {Path(f"/proc/{os.getpid()}")}:
            line = Machine._about(path, directory)
            if line is not None:
                found.append(line)
        return found

    @staticmethod
    def _about(process: Path, directory: Path) -> str | None:
        """The command line of a process in /proc that has to do with a run directory, None of another one."""
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            folder = (process / "cwd").readlink()
            environment = (process / "environ").read_bytes()
        except OSError:
            return None
        return line if str(directory) in f"{line} {folder}" or str(directory).encode() in environment else None

    @classmethod
    def listening(cls, directory: Path) -> list[tuple[str, int]]:
        """Addresses and ports of the machine at which processes listen that have to do with a run directory."""
        command = ["ss", "-H", "-l", "-t", "-n", "-p"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = []
        for line in shown.splitlines():
            for pid in re.findall(r"pid=(\d+)", line):
                if cls._about(Path("/proc", pid), directory) is not None:
                    address, _, port = line.split()[3].rpartition(":")
                    found.append((address, int(port)))
        return sorted(found)

    def left_behind(self, directory: Path) -> dict[str, Any]:
        """What is there now and was not before; empty if all is clean."""
        mounts = self._mounts()
        found = {
            "links": self._links() - self.links,
            "mounts": mounts - self.mounts,
            "mounts missing": self.mounts - mounts,
            "processes": self.processes(directory),
            "named namespaces": list(Path("/run/netns").glob("*")),
        }
        return {what: value for what, value in found.items() if value}
