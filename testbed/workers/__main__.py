"""`python -m testbed.workers`: a worker, as run.py starts it by ssh on another machine. Nobody else needs to.

It says what it is, and then does what comes by its standard input, a JSON object a line: {"id": 1, "do": "clock", ...}.
Each is answered by {"id": 1, "answer": ...} or {"id": 1, "error": "one line"}, in whatever order they are done. By
"enter" it isolates itself as a run does, and takes home's clocks that count from its start for its own: what a run's
parties write down bears one time, whatever machine they are on. In between it tells home of components that are ready
or have ended, and what its files have grown by. When its standard input ends, or nothing comes for half a minute, it
ends, and the kernel takes with it all that it has made: its files are in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import select
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from telemetry import bugs
from testbed.errors import UserError
from testbed.machine import namespaces
from testbed.machine.isolation import run_isolated
from testbed.machine.processes import ProcessFailed
from testbed.machine.tools import clean_environment
from testbed.workers.hello import ROOT, clocks, hello
from testbed.workers.share_builder import ShareBuilder

SILENCE_S = 30.0
_log = logging.getLogger(__name__)
_AT_ONCE = 16


class _Wire:
    """Lines to home."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._lock = threading.Lock()

    def tell(self, message: Mapping[str, Any]) -> None:
        """One message; once home is gone, nothing."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        with self._lock, contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._out, data) :]


def _answer(builder: ShareBuilder, wire: _Wire, asked: Mapping[str, Any]) -> None:
    number, what = asked["id"], str(asked["do"])
    arguments = {name: value for name, value in asked.items() if name not in ("id", "do")}
    try:
        if what.startswith("_"):
            raise UserError(f"no request {what!r}")
        answer = getattr(builder, what)(**arguments)
    except (ProcessFailed, UserError, OSError) as error:
        wire.tell({"id": number, "error": " ".join(str(error).split())})
    except Exception as error:
        bugs.report(_log, f"request {what}", error)
        wire.tell({"id": number, "error": "internal error, a bug of ours; the traceback is in the machine's log"})
    else:
        wire.tell({"id": number, "answer": answer})


def _asked(asked: BinaryIO) -> Iterator[Mapping[str, Any]]:
    """What home asks for, until it is gone."""
    waiting = b""
    poll = select.poll()
    poll.register(asked, select.POLLIN)
    while poll.poll(1000 * SILENCE_S) and (data := os.read(asked.fileno(), 1 << 20)):
        *lines, waiting = (waiting + data).split(b"\n")
        yield from map(json.loads, lines)


def _greet(wire: _Wire, requests: Iterator[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Tell what clocks say until home asks to enter the run; that request, None if it never does.

    There may be no thread yet: who has threads is given no other clocks.
    """
    for request in requests:
        if request["do"] == "enter":
            return request
        wire.tell({"id": request["id"], "answer": clocks()})
    return None


def _serve(wire: _Wire, requests: Iterator[Mapping[str, Any]], outside: int, entered: Mapping[str, Any]) -> int:
    """Until home is gone."""
    builder = ShareBuilder(f"/proc/{os.getpid()}/fd/{outside}", ROOT / "runs", wire.tell)
    wire.tell({"id": entered["id"], "answer": None})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for request in requests:
            pool.submit(_answer, builder, wire, request)
        sys.stderr.flush()
        os._exit(0)  # as the first process of its namespaces it takes all others with it


def main(arguments: list[str]) -> int:
    """Be a worker; the exit status."""
    parser = argparse.ArgumentParser(prog="testbed.workers", description=__doc__.partition("\n\n")[0])
    add = parser.add_argument
    add("--reached", default="", metavar="ADDRESSES", help="what the SSH server says in SSH_CONNECTION")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.umask(0o022)
    clean_environment()
    # What is printed by anybody else is no message.
    wire = _Wire(os.dup(1))
    os.dup2(2, 1)
    asked = os.fdopen(os.dup(0), "rb", buffering=0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    wire.tell({"hello": {**hello(), "reached": given.reached}})
    requests = _asked(asked)
    if (entered := _greet(wire, requests)) is None:
        return 0
    try:
        if namespaces.has_clocks():  # else they are home's already, or home would not have asked
            namespaces.set_clocks(entered["monotonic_s"], entered["boottime_s"])
        return run_isolated(
            lambda outside: _serve(wire, requests, outside, entered), pid_file=Path(os.devnull),
            crash_log=Path("/dev/stderr"),
        )  # fmt: skip
    except (UserError, OSError) as error:
        wire.tell({"id": entered["id"], "error": " ".join(str(error).split())})
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
