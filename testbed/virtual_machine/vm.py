"""`run.py --vm`: the testbed in user-mode Linux, for people without root, or with a kernel that lacks something."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from testbed.errors import UserError
from testbed.virtual_machine.user_mode_linux import Machine, check

_LOOK_S = 0.2


def run(arguments: Sequence[str], *, python: Path, root: Path, run_directory: Path) -> int:
    """The testbed of folder `root` with `arguments` in a machine, whose run directory is `run_directory` afterwards.

    UserError if that cannot be. SIGTERM, SIGHUP and, but for a terminal, SIGINT end the run, not only the machine.
    """
    check()
    _claim(run_directory)
    print("In user-mode Linux: one slow CPU, so everything takes longer, and times are not those of a real network.")
    print(f"Afterwards the run directory will be {run_directory}", flush=True)
    with tempfile.TemporaryDirectory(prefix="qkd-vm-") as temporary:
        folder = Path(temporary)
        script = _script(arguments, python=python, root=root, run_directory=run_directory, folder=folder)
        try:
            with (
                _keyboard(folder / "pid") as keys,
                Machine(script, folder, stdin=keys, stdout=1) as machine,
                _signals_to(machine),
            ):
                return machine.wait()
        finally:
            if (folder / "run").is_dir():
                shutil.copytree(folder / "run", run_directory, symlinks=True, ignore=_sockets, dirs_exist_ok=True)


def _script(arguments: Sequence[str], *, python: Path, root: Path, run_directory: Path, folder: Path) -> str:
    """What the machine runs: the testbed, then a copy of its run directory into the shared folder."""
    runs = root / "runs"
    again = [*arguments, "--no-vm", "--run-dir", str(run_directory)]  # of an option given twice, the last one counts
    testbed = shlex.join([str(python), "-P", "-m", "testbed", *again])
    leave_pid = f'echo $$ >{shlex.quote(str(folder / "pid"))}; exec "$@"'
    return "\n".join(
        [
            f"cd {shlex.quote(str(Path.cwd()))} || exit 2",
            f"export PYTHONPATH={shlex.quote(str(root))}",
            # The host's runs are none of its own: it cannot see which of them live.
            f"mkdir -p {shlex.quote(str(runs))} && mount -t tmpfs tmpfs {shlex.quote(str(runs))}",
            f"sh -c {shlex.quote(leave_pid)} sh {testbed}",
            "status=$?",
            # Not the owner: inside it is root, which the host's folder cannot be given to.
            f"cp -dR --preserve=mode,timestamps {shlex.quote(str(run_directory))} {shlex.quote(str(folder / 'run'))}",
            "exit $status",
        ]
    )


def _sockets(folder: str, names: Sequence[str]) -> list[str]:
    """Those of the names in a folder that are sockets: they cannot be copied, and whoever listened has ended."""
    return [name for name in names if Path(folder, name).is_socket()]


def _claim(run_directory: Path) -> None:
    """Make the folder, so that a place where we may not write is known before the run and not after it."""
    try:
        run_directory.mkdir(parents=True, exist_ok=True)
        empty = not any(run_directory.iterdir())
    except OSError as error:
        cause = f"{error.strerror} ({error.filename})"
        raise UserError(f"run directory {run_directory}: {cause}: choose another --run-dir") from None
    if not empty:
        raise UserError(f"--run-dir {run_directory} holds files: choose an empty or a new folder")


@contextlib.contextmanager
def _keyboard(started: Path) -> Iterator[int]:
    """A descriptor of our standard input that is fit to be a machine's terminal, where `started` tells of a reader."""
    if os.isatty(0):
        # The machine changes the terminal's settings, and does not always change them back.
        before = termios.tcgetattr(0)
        try:
            yield 0
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        return
    there, here = os.pipe()
    threading.Thread(target=_type, args=(here, started), daemon=True).start()
    yield there  # both ends stay open as long as we live: a terminal that is hung up ends what runs in it


def _type(keyboard: int, started: Path) -> None:
    """Copy our standard input to `keyboard`, a terminal, where control-D at the start of a line is the end."""
    while not started.exists():  # what is typed before somebody reads is lost
        time.sleep(_LOOK_S)
    last = b"\n"
    while chunk := os.read(0, 1024):
        os.write(keyboard, chunk)
        last = chunk[-1:]
    os.write(keyboard, b"\x04" if last == b"\n" else b"\x04\x04")


@contextlib.contextmanager
def _signals_to(machine: Machine) -> Iterator[None]:
    """Signals that would end us end the testbed in the machine, in its own orderly way."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: machine.terminate()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
