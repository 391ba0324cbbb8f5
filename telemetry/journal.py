"""JSON lines, one event each: when (wall clock and monotonic), who, what, and facts. Bytes and secrets are refused.

A refusal raises, in production too: a key in a log cannot be taken back, a failed request can.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Journal:
    """An append-only file of events. Thread-safe; each line is written by one system call.

    The file is made with mode 0600. `mono` is seconds of this machine's monotonic clock: differences within one
    journal are exact, across machines they mean nothing.
    """

    def __init__(self, path: Path, who: str) -> None:
        self._who = who
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()

    def event(self, name: str, **facts: Any) -> None:
        """Write one event. TypeError for anything that is not plain JSON data, so for bytes and secrets."""
        for key, value in facts.items():
            _refuse_secrets(value, key)
        line = {"time": round(time.time(), 6), "mono": round(time.monotonic(), 6), "who": self._who, "event": name}
        data = (_ENCODER.encode(line | facts) + "\n").encode()
        with self._lock:
            os.write(self._fd, data)

    def close(self) -> None:
        """Close the file; later events raise OSError."""
        with self._lock:
            os.close(self._fd)
            self._fd = -1


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


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a journal; a last line cut off by a crash is left out. [] if there is no such file."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line]
