"""Disks of a network's parties that can be full: file systems in memory, that take no byte more when told so."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.errors import UserError
from testbed.machine.processes import ProcessFailed, run_tool
from testbed.machine.run_directory import RunDirectory
from testbed.planning.plan import Plan, process_of
from testbed.storm.gusts import QCS

_ROOM = "50%"  # of the machine's memory, which is taken only as it is used
_ATTEMPTS = 50


class Disks:
    """A disk for each datacenter (node and applications), each controller and the QC emulator, in a run directory.

    To be made in the run's own mount namespace, before anything is written there.
    """

    def __init__(self, plan: Plan, run: RunDirectory) -> None:
        folders = {node: [f"nodes/{node}", f"saes/{node}"] for node in plan.nodes}
        folders |= {name: [name] for name in (*(process_of(each.name) for each in plan.controllers), QCS)}
        self._folders = {disk: [run.make(name) for name in names] for disk, names in folders.items()}
        for folder in self._all():
            _mount("-t", "tmpfs", "-o", f"size={_ROOM},mode=700", "storm", str(folder))

    def fill(self, disk: str) -> None:
        """Have it take no byte more."""
        for folder in self._folders[disk]:
            _fill(folder)

    def empty(self, disk: str) -> None:
        """Have room on it again."""
        for folder in self._folders[disk]:
            _mount("-o", f"remount,size={_ROOM}", str(folder))

    def keep(self) -> None:
        """Put what is on all disks into the run directory itself: these disks end with the run's namespaces."""
        for folder in self._all():
            with _descriptor(folder) as fd:
                subprocess.run(["umount", "--lazy", str(folder)], check=True)
                shutil.copytree(f"/proc/self/fd/{fd}", folder, dirs_exist_ok=True, ignore=_sockets)

    def _all(self) -> list[Path]:
        return [folder for folders in self._folders.values() for folder in folders]


def _fill(folder: Path) -> None:
    for _ in range(_ATTEMPTS):
        stat = os.statvfs(folder)
        used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        try:
            _mount("-o", f"remount,size={max(used, stat.f_frsize)}", str(folder))
            return
        except UserError:  # more was written meanwhile
            continue
    raise UserError(f"disk at {folder}: cannot be filled")


def _mount(*arguments: str) -> None:
    try:
        run_tool("mount", *arguments)
    except ProcessFailed as error:
        raise UserError(str(error)) from None


@contextmanager
def _descriptor(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]
