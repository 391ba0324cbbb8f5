"""The operator's socket: a file in the run directory, for root and for the user who started the run by sudo.

A connection takes one request after another, each a line of JSON, `{"id": 1, "do": "open", "arguments": {...}}`. Lines
with the same `id` come back: an `event` each, if the request streams, then one with the `answer` or with an `error`.
Each connection has a thread, so that one who waits for a long answer, or does not read, holds up nobody.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any, BinaryIO

from mtls.unix_socket import short_name
from telemetry import bugs
from testbed.errors import UserError
from testbed.operation.interface import REQUESTS
from testbed.operation.operator import Operator

_log = logging.getLogger(__name__)
_MOST_CONNECTIONS = 32
_LONGEST_LINE = 1 << 16
_WRITES_WITHIN_S = 30.0  # to one who does not read
_BUG = "this met a bug of ours; the network goes on, the traceback is in the run's log"


class OperatorSocket:
    """Serves `operator` at `path`, which `owner` (a user ID) and root may open."""

    def __init__(self, operator: Operator, path: Path, owner: int) -> None:
        self._operator = operator
        self._path = path
        self._owner = owner
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._listener = _listen(path, owner)
        self._thread = bugs.watched_thread(self._accept, name="operator-socket", stopped=self._over.is_set)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Serve no more. Whoever follows hears that the run has ended."""
        self._over.set()
        self._operator.close()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._path.unlink(missing_ok=True)
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # what is being answered is answered

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._over.is_set():
                    return
                self._over.wait(0.1)  # no more descriptors: others may close theirs
                continue
            with self._lock:
                full = len(self._connections) >= _MOST_CONNECTIONS
                if not full:
                    self._connections.add(connection)
            if full or _user_of(connection) not in (0, self._owner):
                connection.close()
                continue
            bugs.watched_thread(self._serve, connection, name="operator", stopped=lambda: True).start()

    def _serve(self, connection: socket.socket) -> None:
        timeout = struct.pack("ll", int(_WRITES_WITHIN_S), 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        try:
            with connection, connection.makefile("rb") as lines, connection.makefile("wb") as out:
                while line := lines.readline(_LONGEST_LINE):
                    self._answer(line, out)
        except (OSError, ValueError):  # it has gone, or does not read
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _answer(self, line: bytes, out: BinaryIO) -> None:
        number: Any = None
        try:
            request = _request(line)
            number, name = request.get("id"), request.get("do")
            arguments = request.get("arguments", {})
            if not isinstance(name, str) or not isinstance(arguments, dict):
                raise UserError('expected {"id": ..., "do": NAME, "arguments": {...}}')
            if name in REQUESTS and REQUESTS[name].streams:
                count = 0
                for event in self._operator.stream(name, **arguments):
                    _write(out, {"id": number, "event": event})
                    count += 1
                answer: Any = {"number": count} if name == "events" else None
            else:
                answer = self._operator.do(name, **arguments)
            _write(out, {"id": number, "answer": answer})
        except UserError as error:
            _write(out, {"id": number, "error": str(error)})
        except OSError:
            raise
        except Exception as error:
            bugs.report(_log, "what an operator asked for", error)
            scarce = bugs.refused(error)
            _write(out, {"id": number, "error": f"the machine refuses: {scarce}" if scarce else _BUG})


def _request(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise UserError(f"expected a line of at most {_LONGEST_LINE} bytes")
    try:
        found = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise UserError("expected a line of JSON") from None
    if not isinstance(found, dict):
        raise UserError("expected a JSON object")
    return found


def _no_constant(name: str) -> None:
    """Neither NaN nor Infinity is JSON."""
    raise ValueError(name)


def _write(out: BinaryIO, document: dict[str, Any]) -> None:
    out.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")
    out.flush()


def _listen(path: Path, owner: int) -> socket.socket:
    """A socket whose file only `owner` and root can open, from its first moment on; UserError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with short_name(path) as name:
            listener.bind(name)
        os.chown(path, owner, -1)
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise UserError(f"{path}: {error.strerror}") from None
    finally:
        os.umask(before)
    return listener


def _user_of(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
