"""JSON lines, one event each: when (wall clock and monotonic), who, what, and facts. Bytes and secrets are refused.

A refusal raises, in production too: a key in a log cannot be taken back, a failed request can.
What is under way is written with each event: `trace`, `span` and `parent`, by which events of many journals are told
as one story.

A journal goes on for as long as a run. Each 32 MiB it begins a new file: `journal.jsonl` becomes `journal.1.jsonl`,
the next time `journal.2.jsonl`, and so on. Full files are compressed by a thread, to a tenth or so. Of more than 128
the oldest goes, and an event `events_lost` says how many events went with it. Who reads a journal by `lines`, `events`
or `read` reads all its files.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

# Of lines that wait for room on a full disk: what a busy node has to say in a minute.
_MOST_WAITING_BYTES = 4 << 20
_FILE_BYTES, _MOST_FILES = 32 << 20, 128
_EVENTS_LOST = "events_lost"
_LOST = f'"event":"{_EVENTS_LOST}"'.encode()
_TRIES, _BETWEEN_FILES_S = 20, 0.005
_FULL = re.compile(r"\.([0-9]+)\.jsonl(\.gz)?")
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Journal:
    """An append-only file of events. Thread-safe; each line is written by one system call.

    On a full disk events wait in memory and are written with the first one for which there is room. Of those that find
    4 MiB waiting before them, only the number is kept, and told by an event `events_lost`.

    The file is made with mode 0600. `mono` is seconds of this machine's monotonic clock: differences within one
    journal are exact, across machines they mean nothing. `context` gives facts that every event has besides its own.
    `file_bytes`, `most_files`: when a new file is begun, and how many full ones are kept.
    """

    def __init__(
        self,
        path: Path,
        who: str,
        *,
        context: Callable[[], Mapping[str, str]] = dict,
        file_bytes: int = _FILE_BYTES,
        most_files: int = _MOST_FILES,
    ) -> None:
        self._path = path
        self._who = who
        self._context = context
        self._file_bytes = file_bytes
        self._most_files = most_files
        self._fd = _opened(path)
        self._lock = threading.Lock()
        self._compressing = threading.Lock()
        _drop_torn_line(self._fd, path)
        self._bytes = os.fstat(self._fd).st_size
        self._number = max(_full(path), default=0) + 1  # of this file
        self._waiting = bytearray()
        self._lost = 0

    @property
    def is_behind(self) -> bool:
        """Whether events wait for room on the disk."""
        with self._lock:  # one that is just being written does not wait
            return bool(self._waiting)

    def event(self, name: str, **facts: Any) -> None:
        """Write one event. TypeError for anything that is not plain JSON data, so for bytes and secrets."""
        try:
            line = self._line(name, {**self._context(), **facts})
        except TypeError:
            for key, value in facts.items():
                _refuse_secrets(value, key)  # which of them it was
            raise
        with self._lock:
            if self._fd < 0:
                raise OSError(errno.EBADF, "the journal is closed")
            if len(self._waiting) + len(line) <= _MOST_WAITING_BYTES:
                self._waiting += line
            else:
                self._lost += 1
            self._write()

    def close(self) -> None:
        """Close the file; later events raise OSError."""
        with self._lock:
            self._write()
            os.close(self._fd)
            self._fd = -1

    def _line(self, name: str, facts: Mapping[str, Any]) -> bytes:
        line = {"time": round(time.time(), 6), "mono": round(time.monotonic(), 6), "who": self._who, "event": name}
        return (_ENCODER.encode({**line, **facts}) + "\n").encode()

    def _write(self) -> None:
        """Write what waits, as far as there is room. Call with the lock held."""
        with contextlib.suppress(OSError):
            while self._waiting:
                # Of a line for which there is half the room one half is written; the other one stays the first to wait.
                written = os.write(self._fd, self._waiting)
                self._bytes += written
                del self._waiting[:written]
                if not self._waiting and self._lost:
                    self._waiting += self._line(_EVENTS_LOST, {"number": self._lost})
                    self._lost = 0
            if self._bytes >= self._file_bytes:
                self._begin_file()

    def _begin_file(self) -> None:
        """Call with the lock held, when nothing waits: files end with whole lines. OSError: all stays as it is."""
        following = self._path.with_name(f"{self._path.stem}.next")
        fd = _opened(following)  # first: there may be no room for a further file, or no descriptor
        self._path.rename(_named(self._path, self._number)[0])
        following.rename(self._path)
        os.close(self._fd)
        self._fd = fd
        self._number += 1
        self._bytes = 0
        with contextlib.suppress(RuntimeError):  # no further thread can be started: the next one does it
            threading.Thread(target=self._tidy, name="journal", daemon=True).start()

    def _tidy(self) -> None:
        """Compress full files, and let go of the oldest ones. On a full disk they stay until the next time."""
        with self._compressing, contextlib.suppress(OSError):
            for path in _full(self._path).values():
                if path.suffix != ".gz":
                    _compress(path)
            kept = sorted(_full(self._path).items())
            for _, path in kept[: max(0, len(kept) - self._most_files)]:
                with gzip.open(path) as lines:
                    number = sum(json.loads(line)["number"] if _LOST in line else 1 for line in lines)
                path.unlink()
                self.event(_EVENTS_LOST, number=number)


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _full(path: Path) -> dict[int, Path]:
    """The files of a journal that are full, by number. One that is being compressed is the one that it was.

    A file that gets its other name while names are read may be missed, but not twice.
    """
    found: dict[int, Path] = {}
    for file in (*path.parent.glob(f"{path.stem}.*"), *path.parent.glob(f"{path.stem}.*")):
        if (match := _FULL.fullmatch(file.name.removeprefix(path.stem))) is not None:
            number = int(match[1])
            if number not in found or match[2] is None:
                found[number] = file
    return found


def _compress(path: Path) -> None:
    """A file and its compressed form are never both wanted: while it is made it has another name."""
    whole, made = path.with_name(path.name + ".gz"), path.with_name(path.name + ".new")
    made.unlink(missing_ok=True)  # of one that was killed at this
    with path.open("rb") as plain, os.fdopen(_opened(made), "wb") as out, gzip.open(out, "wb", 6) as packed:
        shutil.copyfileobj(plain, packed, 1 << 20)
    made.rename(whole)
    path.unlink()


def _drop_torn_line(fd: int, path: Path) -> None:
    """Cut off the part of a line that a crash on a full disk may have left at the end: it tells of nothing."""
    size = os.fstat(fd).st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _MOST_WAITING_BYTES))
        torn = len(file.read().rpartition(b"\n")[2])
    if torn:
        os.ftruncate(fd, size - torn)


def _refuse_secrets(value: Any, where: str) -> None:
    if value is None or isinstance(value, str | int | float):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_secrets(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            _refuse_secrets(inner, f"{where}[{i}]")
    else:
        raise TypeError(f"journal fact {where} is a {type(value).__name__}: only plain JSON data may be logged")


def read(path: Path, *names: str) -> list[dict[str, Any]]:
    """All events of a journal, as `events` gives them; [] if there is no such file."""
    return list(events(path, *names)) if path.exists() or _full(path) else []


def events(path: Path, *names: str) -> Iterator[dict[str, Any]]:
    """The events of all whole lines, read as they are asked for; a last line cut off by a crash is left out.

    With `names` only events of these names, found before they are parsed: a journal grows long. OSError, and
    ValueError for a line that is none of a journal.
    """
    wanted = re.compile(rb'"event":"(?:%s)"' % b"|".join(re.escape(name.encode()) for name in names))
    for line in lines(path):
        if line != b"\n" and (not names or wanted.search(line)):
            yield json.loads(line)


def lines(path: Path) -> Iterator[bytes]:
    """All whole lines of a journal, from its first file to its last, read as they are asked for. OSError."""
    number = 1
    while True:
        if not is_full(path, number):  # it is the last one, or those before others are kept no more
            number = max(number, min(_full(path), default=number))
        with open_file(path, number) as file:
            yield from _whole_lines(file)
            if not is_full(path, number):
                return
            yield from _whole_lines(file)  # which came to it until it was
        number += 1


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    for line in file:
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def is_full(path: Path, number: int) -> bool:
    """Whether nothing is written to a journal's file of that number any more, which is kept."""
    return any(file.exists() for file in _named(path, number))


def open_file(path: Path, number: int) -> BinaryIO:
    """A journal's file of that number, from 1 on: a full one, or the one behind them. OSError."""
    plain, packed = _named(path, number)
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            return plain.open("rb")
        with contextlib.suppress(FileNotFoundError):  # its compressed form is there before it goes
            return cast(BinaryIO, gzip.open(packed))
        try:
            file = path.open("rb")
        except FileNotFoundError:  # between two files; or whoever wrote died there
            if number == 1 and not is_full(path, number):
                raise
            time.sleep(_BETWEEN_FILES_S)
        else:
            if not is_full(path, number):
                return file
            file.close()
    return io.BytesIO()


def _named(path: Path, number: int) -> tuple[Path, Path]:
    plain = path.with_name(f"{path.stem}.{number}.jsonl")
    return plain, plain.with_name(f"{plain.name}.gz")
