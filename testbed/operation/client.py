"""The other end of the operator's socket: requests from outside of the run, by `qkd` and by the Python API."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtls.unix_socket import short_name
from testbed.errors import UserError

FILE = "operator.sock"
_NEXT_WITHIN_S = 60.0


class Client:
    """A connection to the run in directory `run`; UserError says what is there instead. Not thread-safe."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._socket = _connect(run)
        self._lines = self._socket.makefile("rb")
        self._number = 0

    def do(self, name: str, /, **arguments: Any) -> Any:
        """The answer to a request; UserError if it was not done."""
        for kind, value in self._lines_of(name, arguments):
            if kind == "answer":
                return value
        raise AssertionError("a request ends with an answer")

    def stream(self, name: str, /, **arguments: Any) -> Iterator[dict[str, Any]]:
        """The events that come before the answer; UserError. Who ends early has to `close`."""
        for kind, value in self._lines_of(name, arguments):
            if kind == "event":
                yield value

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # a thread that reads comes back
        self._lines.close()
        self._socket.close()

    def _lines_of(self, name: str, arguments: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        self._number += 1
        document = {"id": self._number, "do": name, "arguments": arguments}
        try:
            self._socket.sendall(json.dumps(document).encode() + b"\n")
            while True:
                line = self._lines.readline()
                if not line.endswith(b"\n"):
                    raise ConnectionError
                answer = json.loads(line)
                if "error" in answer:
                    raise UserError(answer["error"])
                if "event" in answer:
                    yield "event", answer["event"]
                else:
                    yield "answer", answer["answer"]
                    return
        except OSError:
            raise UserError(f"the run in {self.run} has ended") from None


class Events:
    """Events of these names, or all, from now on: `next` waits for one, `all` has those that came.

    A thread reads them from `client`, which nobody else uses, until somebody closes it.
    """

    def __init__(self, client: Client, names: Sequence[str]) -> None:
        self.all: list[dict[str, Any]] = []
        self._waiting: queue.Queue[dict[str, Any] | UserError] = queue.Queue()
        self._follows = threading.Event()
        threading.Thread(target=self._read, args=(client, names), name="events", daemon=True).start()
        self._follows.wait()

    def next(self, timeout_s: float = _NEXT_WITHIN_S, **facts: object) -> dict[str, Any]:
        """The next event that has these facts; UserError if none comes in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise UserError(f"no such event within {timeout_s:g} s") from None
            if isinstance(found, UserError):
                raise found
            if facts.items() <= found.items():
                return found

    def _read(self, client: Client, names: Sequence[str]) -> None:
        try:
            for event in client.stream("follow", names=list(names) or None):
                if self._follows.is_set():
                    self.all.append(event)
                    self._waiting.put(event)
                self._follows.set()
            self._waiting.put(UserError("the run has ended"))
        except (UserError, ValueError) as error:  # the latter if the block has ended
            self._waiting.put(UserError(str(error)))
        finally:
            self._follows.set()


def _connect(run: Path) -> socket.socket:
    if not run.is_dir():
        raise UserError(f"no run in {run}: expected the directory of one, as 'run.py' prints it")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_name(run / FILE) as name:
            connection.connect(name)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise UserError(f"the run in {run} has ended, or is not up yet") from None
    except PermissionError:
        connection.close()
        raise UserError(f"the run in {run} is not yours: only root and who started it may ask it") from None
    return connection
