"""The folder that holds all state of a run: configuration, certificates, logs, databases, results.

Who uses it holds a lock on it, which the kernel drops when the run ends, however it ends. What a dead run left is
cleaned up by the next start: its keys, certificates and databases are erased, its logs and results stay.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import UserError

_MARKER = "run.json"
# What may hold key material, private keys or passwords, or says where they are, relative to a run directory.
_SECRET = (
    "expose.json", "operator.sock", "pki", "db", "config", "nodes/*/local.db*", "nodes/*/*.key",
    "nodes/*/blocks.sock", "ovs",
    *(f"devices/{name}" for name in ("pki", "db", "*.json", "*/local.db*", "*/*.key")),  # of a storm's own
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A run directory in use; `id` is unique for ever. The lock is held as long as `lock` is open."""

    path: Path
    id: str
    lock: int

    def make(self, name: str) -> Path:
        """A private folder in it."""
        folder = self.path / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def write(self, name: str, document: object) -> Path:
        """A private JSON file in it; who reads it meanwhile finds all of it or what was there before."""
        path = self.path / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(document, file, indent=1)
        temporary.replace(path)
        return path

    def erase_secrets(self) -> None:
        """Erase what may hold keys."""
        _erase(self.path)


def new_run_id(now: datetime.datetime) -> str:
    """An ID for a run that begins `now`, by which runs can be sorted."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def open_run_directory(requested: Path | None, runs: Path, *, latest: bool = True) -> RunDirectory:
    """Make and lock a run directory, `requested` or a new one in `runs`; if `latest`, point `runs`/latest to it.

    UserError if it is in use, holds something else, or has a name that is no printable text. A finished run that lies
    there is moved aside.
    """
    now = datetime.datetime.now(datetime.UTC)
    run_id = new_run_id(now)
    path = (requested or runs / run_id).absolute()
    if not str(path).isprintable():  # configurations and logs name it in lines of text
        raise UserError(f"run directory {str(path)!r}: expected printable characters: choose another --run-dir")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        _clean_up_dead(runs)
        if requested is not None:
            _make_room(path)
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.chmod(0o755)  # the database's user goes through it
        lock = _mark(path, {"id": run_id, "started": now.isoformat(), "pid": os.getpid()})
        if requested is not None:
            (runs / run_id).symlink_to(path)  # so that the next start finds what this one may leave
        if latest:
            point_latest(runs, path)
    except OSError as error:
        cause = f"{error.strerror} ({error.filename})"
        raise UserError(f"run directory {path}: {cause}: choose another --run-dir") from None
    return RunDirectory(path, run_id, lock)


def _make_room(path: Path) -> None:
    """Have nothing at `path`, or an empty folder, which stays. A finished run is renamed; anything else is refused."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"--run-dir {path} is not a folder: choose another")
    if not any(path.iterdir()):
        return
    if not (path / _MARKER).is_file():
        raise UserError(f"--run-dir {path} holds other files: choose an empty or a new folder")
    lock = _lock(path)
    if lock is None:
        raise _in_use(path)
    _erase(path)
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    path.rename(aside)
    os.close(lock)


def _clean_up_dead(runs: Path) -> None:
    for entry in runs.iterdir():
        if entry.name == "latest":
            continue
        if entry.is_symlink() and not entry.exists():
            entry.unlink()
        elif (entry / _MARKER).is_file():
            with contextlib.suppress(FileNotFoundError):  # somebody removes it at this moment
                lock = _lock(entry)
                if lock is not None:
                    try:
                        _erase(entry)
                    finally:
                        os.close(lock)


def _mark(path: Path, facts: dict[str, object]) -> int:
    """Make `path` a run directory that is locked from the first moment on that others can see it; the lock."""
    temporary, marker = path / f".{_MARKER}", path / _MARKER
    try:  # of several starts in one folder one makes this file, and no marker appears while it is there
        lock = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise _in_use(path) from None
    if marker.exists():
        temporary.unlink()
        os.close(lock)
        raise _in_use(path)
    os.write(lock, f"{json.dumps(facts)}\n".encode())
    fcntl.flock(lock, fcntl.LOCK_EX)
    temporary.rename(marker)
    return lock


def _in_use(path: Path) -> UserError:
    return UserError(f"run directory {path} is in use by another run: choose another --run-dir")


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock of the run directory `path`, or None if somebody else holds it."""
    fd = os.open(path / _MARKER, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _erase(path: Path) -> None:
    for pattern in _SECRET:
        for found in path.glob(pattern):
            for file in [found, *found.rglob("*")]:
                if file.suffix == ".key" and file.is_file() and not file.is_symlink():
                    _overwrite(file)
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found, onerror=_unless_gone)
            else:
                found.unlink(missing_ok=True)


def _unless_gone(_: object, __: str, raised: tuple[type[BaseException], BaseException, object]) -> None:
    """What is erased may go by itself: a database that ends takes its files away, and so does another start of ours."""
    if not isinstance(raised[1], FileNotFoundError):
        raise raised[1]


def _overwrite(file: Path) -> None:
    """Put zeros in the place of what is there, which takes no room on the disk; if that fails, the file goes anyway."""
    with contextlib.suppress(OSError), file.open("r+b", buffering=0) as there:
        there.write(bytes(file.stat().st_size))


def point_latest(runs: Path, path: Path) -> None:
    """`runs`/latest -> `path`, replaced in one step: two starts at once must not trip over each other."""
    temporary = runs / f".latest-{secrets.token_hex(4)}"
    temporary.symlink_to(path)
    temporary.replace(runs / "latest")
