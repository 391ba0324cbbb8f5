"""Linux namespaces by system call: what Python's standard library gained only in 3.12, and what it lacks.

A thread can move to another network namespace on its own, and a socket stays in the one where it was opened. So a
process may accept in one namespace and connect in another, or run a pool of threads that all live in a host's.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

NEW_MOUNT = 0x00020000
NEW_IPC = 0x08000000
NEW_PID = 0x20000000
NEW_NET = 0x40000000
_NEW_TIME = 0x00000080
_S_NS = 1_000_000_000

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_MS_REC = 0x4000
_MS_PRIVATE = 1 << 18
_MS_NOSUID_NODEV_NOEXEC = 0x2 | 0x4 | 0x8
_MS_NOSUID_NODEV = 0x2 | 0x4

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def unshare(flags: int) -> None:
    """Move this process into new namespaces. OSError if the kernel or missing rights forbid it."""
    _check(_libc.unshare(flags), "unshare")


def enter_network(fd: int) -> None:
    """Move this thread into the network namespace that `fd` refers to."""
    _check(_libc.setns(fd, NEW_NET), "setns")


def children_here() -> None:
    """Have children born in this process's own PID namespace again, after `unshare(NEW_PID)`."""
    fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, NEW_PID), "setns")
    finally:
        os.close(fd)


def has_clocks() -> bool:
    """Whether children can have clocks of their own: on Linux from 5.6 on they can, in user-mode Linux not."""
    return Path("/proc/self/ns/time").exists()


def set_clocks(monotonic_s: float, boottime_s: float) -> None:
    """Have CLOCK_MONOTONIC and CLOCK_BOOTTIME of children be so much later than this process's; OSError.

    This process can have no threads from then on, until it is a child itself.
    """
    offsets = Path("/proc/self/timens_offsets")
    rows = [line.split() for line in offsets.read_text().splitlines()]
    before_ns = {name: int(seconds) * _S_NS + int(ns) for name, seconds, ns in rows}
    unshare(_NEW_TIME)
    for name, later_s in (("monotonic", monotonic_s), ("boottime", boottime_s)):
        seconds, ns = divmod(before_ns[name] + round(later_s * _S_NS), _S_NS)
        offsets.write_text(f"{name} {seconds} {ns}\n")


def die_with_parent(signum: int) -> None:
    """Have the kernel send `signum` to this process when its parent ends, however it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0), "prctl")


def take_orphans() -> None:
    """Have the kernel make this process the parent of descendants whose own parents end."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def enter_like(pid: int) -> None:
    """Move this process, which has one thread, into the network and mount namespaces of process `pid`."""
    folder = Path.cwd()
    for kind, flag in (("net", NEW_NET), ("mnt", NEW_MOUNT)):
        fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(fd, flag), "setns")
        finally:
            os.close(fd)
    os.chdir(folder)  # a mount namespace is entered at its root


def private_mounts() -> None:
    """Let no mount made from here on be seen outside, and show this PID namespace's own processes in /proc."""
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount")
    _check(_libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID_NODEV_NOEXEC, None), "mount /proc")


def mount_memory(folder: Path) -> None:
    """Have an empty file system in memory at `folder`, which goes with this mount namespace."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    _check(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _MS_NOSUID_NODEV, b"mode=0755"), f"mount {folder}")


def network_of(pid: int) -> int:
    """A file descriptor of the network namespace of process `pid`; the caller closes it."""
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def threads_in_network(fd: int, threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads live in the network namespace of `fd`, which must stay open meanwhile."""
    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=lambda: enter_network(fd))


def call_in_network(fd: int, function: Callable[[], T]) -> T:
    """The result of `function`, called in the network namespace of `fd` (in a thread of its own)."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            enter_network(fd)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
