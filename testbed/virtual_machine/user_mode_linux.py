"""A virtual machine that is a process: user-mode Linux, on the host's own files.

Its kernel has netem and Open vSwitch whatever the host's has, and whoever starts it is root inside without being so
outside. It sees the host's files as they are; what it writes is gone with it, but for one folder that it shares.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from testbed.errors import UserError
from testbed.planning.capacity import allow_files

_KERNEL = "linux.uml"
_MODULES = Path("/usr/lib/uml/modules")
_INIT = Path(__file__).with_suffix(".sh")
# Made by the set-up where the processor has more registers than the kernel knows (user_mode_linux_xstate.c says more).
_XSTATE, _CPU = Path(__file__).parents[2] / "build" / "uml_xstate.so", Path("/proc/cpuinfo")
_MEMORY_MB = 4096
# Where the machine's memory can lie, as a file: in memory if there is room, else on disk.
_SHARED_MEMORY, _DISK = Path("/dev/shm"), Path("/var/tmp")  # noqa: S108 - the kernel unlinks the file at once
_END_S = 10.0
# The machine keeps a file of the host open for each one that it remembers, and panics if it may not.
_FILES, _FEWEST_FILES = 1 << 20, 4096


class Machine:
    """A machine that runs one shell script, from here on; leaving the `with` switches it off.

    `folder`, of the host, is the same inside, and the only one where what is written stays. The script writes to
    `stdout`, a descriptor of this process, and reads from `stdin`, if given, as from a terminal: the end of that is a
    control-D. `root` is what the machine takes for its file system, with this project's `init` script somewhere in it.
    `network`: the file of a network namespace, and a TAP in it that is the machine's interface `vec0`.
    """

    def __init__(
        self, script: str, folder: Path, *, stdin: int | None, stdout: int,
        root: Path = Path("/"), init: Path = _INIT, network: tuple[Path, str] | None = None,
    ) -> None:  # fmt: skip
        check()
        allow_files(_FILES, at_least=_FEWEST_FILES, what="user-mode Linux")
        self._folder = folder
        (folder / "script").write_text(script if stdin is not None else f"exec </dev/null\n{script}")
        # The kernel's own words go to a console of their own.
        console = [os.dup(fd) for fd in (stdin, stdout) if fd is not None]
        source = "null" if stdin is None else f"fd:{console[0]}"
        at, tap = ([], []) if network is None else (
            ["nsenter", f"--net={network[0]}", "--"], [f"vec0:transport=tap,ifname={network[1]}"]
        )  # fmt: skip
        command = [
            *at,
            # However we end, it does not outlive us.
            "setpriv", "--pdeathsig", "TERM", "--",
            _KERNEL, f"mem={_MEMORY_MB}M", f"uml_dir={folder}/",
            "root=/dev/root", "rootfstype=hostfs", f"rootflags={root}", "ro", f"init={init}", f"qkd_folder={folder}",
            "quiet", "con=null", "con0=null,fd:2", f"con1={source},fd:{console[-1]}", *tap,
        ]  # fmt: skip
        try:
            with (folder / "kernel.log").open("wb") as log:
                self._popen = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=console,
                    env=os.environ | {"TMPDIR": str(_place_of_memory())} | _preload(), start_new_session=True,
                )  # fmt: skip
        finally:
            for descriptor in console:
                os.close(descriptor)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_END_S)
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()

    def wait(self, limit_s: float | None = None) -> int:
        """The script's exit status. UserError if there is none, or not within `limit_s`."""
        try:
            self._popen.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise UserError(f"the virtual machine is not done after {limit_s:g} s") from None
        try:
            return int((self._folder / "status").read_text())
        except (OSError, ValueError):
            log = (self._folder / "kernel.log").read_text(errors="replace")
            raise UserError(f"the virtual machine ended without a result: {last_words(log)}") from None

    def terminate(self) -> None:
        """Send SIGTERM to the process whose ID the script leaves in `folder`/pid, now or as soon as it does."""
        (self._folder / "terminate").touch()


def last_words(kernel_log: str) -> str:
    """The panic that ended a machine and what came before it, which is the cause, or else its last line. PURE."""
    lines = [line.strip() for line in kernel_log.splitlines() if line.strip()]
    for before, line in itertools.pairwise(["", *lines]):
        if "panic" in line:
            return f"{line} (before that: {before})" if before else line
    return lines[-1] if lines else "its kernel said nothing"


def check() -> None:
    """UserError if there is no user-mode Linux here."""
    if shutil.which(_KERNEL) is None or not _MODULES.is_dir():
        raise UserError("needs user-mode Linux, which Debian has for amd64: run 'sudo make setup' there")
    if _has_amx() and not _XSTATE.exists():
        raise UserError(f"user-mode Linux needs {_XSTATE} on this processor: run 'sudo make setup'")


def _has_amx() -> bool:
    return " amx_tile" in _CPU.read_text()


def _preload() -> dict[str, str]:
    return {"LD_PRELOAD": str(_XSTATE)} if _has_amx() else {}


def _place_of_memory() -> Path:
    found = os.statvfs(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None
    fits = found is not None and found.f_bavail * found.f_frsize > _MEMORY_MB << 20
    return _SHARED_MEMORY if fits else _DISK
