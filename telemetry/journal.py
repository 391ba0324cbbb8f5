"""JSON lines, one event each: when (wall clock and monotonic), who, what, and facts. Bytes and secrets are refused.

A refusal raises, in production too: a key in a log cannot be taken back, a failed request can.
What is under way is written with each event: `trace`, `span` and `parent`, by which events of many journals are told
as one story.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Of lines that wait for room on a full disk: what a busy node has to say in a minute.
_MOST_WAITING_BYTES = 4 << 20
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Journal:
    """An append-only file of events. Thread-safe; each line is written by one system call.

    On a full disk events wait in memory and are written with the first one for which there is room. Of those that find
    4 MiB waiting before them, only the number is kept, and told by an event `events_lost`.

    The file is made with mode 0600. `mono` is seconds of this machine's monotonic clock: differences within one
    journal are exact, across machines they mean nothing. `context` gives facts that every event has besides its own.
    """

    def __init__(self, path: Path, who: str, *, context: Callable[[], Mapping[str, str]] = dict) -> None:
        self._who = who
        self._context = context
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        _drop_torn_line(self._fd, path)
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
                del self._waiting[: os.write(self._fd, self._waiting)]
                if not self._waiting and self._lost:
                    self._waiting += self._line("events_lost", {"number": self._lost})
                    self._lost = 0


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
    return list(events(path, *names)) if path.exists() else []


def events(path: Path, *names: str) -> Iterator[dict[str, Any]]:
    """The events of all whole lines, read as they are asked for; a last line cut off by a crash is left out.

    With `names` only events of these names, found before they are parsed: a journal grows long. OSError, and
    ValueError for a line that is none of a journal.
    """
    wanted = re.compile(rb'"event":"(?:%s)"' % b"|".join(re.escape(name.encode()) for name in names))
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n") and line != b"\n" and (not names or wanted.search(line)):
                yield json.loads(line)
