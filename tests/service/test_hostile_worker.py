"""A worker that says what no worker says: home gives it up, in one line, and takes no more of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from scenario.machines import Machine
from testbed.fibres.shapers import DELAY_LINE
from testbed.machine.processes import Process, Processes, ProcessFailed
from testbed.workers import connection, worker
from testbed.workers.connection import Connection
from testbed.workers.worker import Worker, clocks_ahead
from tests.support.waiting import until

WEST = Machine("west", "west.example.net", ("a",))
HELLO = json.dumps({"hello": {"lacks": None}})


def saying(text: str) -> list[str]:
    """A program that says that, and then waits until nobody writes to it any more."""
    script = "import sys; exec(sys.argv[1]); sys.stdout.flush(); sys.stdin.read()"
    return [sys.executable, "-c", script, text]


def line(text: str) -> list[str]:
    """One that says a line after its hello."""
    return saying(f"print({HELLO!r}); print({text!r})")


class Told:
    """Home's end of a connection to such a program."""

    def __init__(self, command: list[str]) -> None:
        self.program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.messages: list[object] = []
        self.why: list[str] = []
        self.over = threading.Event()
        self.connection = Connection(
            "west", self.program.stdin, self.program.stdout, told=self.messages.append, ended=self._ended
        )

    def _ended(self, why: str) -> None:
        self.why.append(why)
        self.over.set()

    def close(self) -> None:
        """End it."""
        self.connection.close()
        self.program.kill()
        self.program.wait()
        self.program.stdout.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("{", "a line that is no JSON"), ("[" * 100_001, "a line that is no JSON"), ("[]", "no message"),
        ("7", "no message"), (HELLO, "a second hello"), ('{"hello": 7}', "a second hello"),
        ('{"id": 99, "answer": 0}', "an answer to nothing"), ('{"id": [], "answer": 0}', "an answer to nothing"),
        ('{"id": "1"}', "an answer to nothing"),
    ],
)  # fmt: skip
def test_what_no_worker_says_ends_the_connection_and_is_told_in_one_line(said, why):
    """No traceback; who waits for an answer hears that there is none."""
    told = Told(line(said))
    try:
        assert told.over.wait(30)
        assert told.why == [f"it has sent {why}"]
        with pytest.raises(ProcessFailed, match="machine west: the connection to it has ended"):
            told.connection.ask("clock")
    finally:
        told.close()


def test_message_without_an_end_is_not_taken():
    """However much of it comes: home keeps a bounded part of it, and reads no more."""
    told = Told(saying(f"print({HELLO!r})\nwhile True: sys.stdout.write('x' * 100_000)"))
    try:
        assert told.over.wait(30)
        assert told.why == [f"it has sent a message of more than {connection.MOST_MESSAGE_BYTES} bytes"]
    finally:
        told.close()


def test_hello_that_says_nothing_is_none():
    """What a machine says of itself is looked into by name."""
    told = Told(saying("print('{\"hello\": 7}')"))
    try:
        with pytest.raises(ProcessFailed, match="the connection to it has ended"):
            told.connection.hello.result(30)
        assert told.over.wait(30)
        assert told.why == ["it has sent a hello that says nothing"]
    finally:
        told.close()


@pytest.mark.parametrize("said", ["[]", '{"time": 0}', '{"time": "x", "monotonic": 0, "boottime": 0}'])
def test_clock_that_is_none_is_one_line(said):
    """As any answer that a worker cannot give."""
    told = Told(saying(
        f"import json\nprint({HELLO!r}, flush=True)\nfor line in sys.stdin:"
        f" print(json.dumps({{'id': json.loads(line)['id'], 'answer': {json.loads(said)!r}}}), flush=True)"
    ))  # fmt: skip
    try:
        with pytest.raises(ProcessFailed, match="machine west: its clocks say what no clock says"):
            clocks_ahead(told.connection)
    finally:
        told.close()


def died(run: Path) -> Process:
    """The process at home of the worker on `WEST`, once it is over."""
    (run / "logs").mkdir()
    lost = threading.Event()
    processes = Processes(run / "logs")
    found = Worker(WEST, SimpleNamespace(path=run), processes, outside="/proc/self/ns/net", lost=lost.set)

    assert lost.wait(30)
    (dead,) = until(processes.dead)
    found.connection.close()
    return dead


def test_worker_that_oversteps_has_died_of_it(tmp_path, monkeypatch):
    """Its process at home ends; its last words are the line."""
    monkeypatch.setattr(worker, "command", lambda *_: line('{"file": "pki/ca.pem", "data": ""}'))

    dead = died(tmp_path)

    assert dead.name == "machine-west"
    assert dead.last_words().endswith("machine west was given up: it names the file 'pki/ca.pem'")


def test_log_of_ssh_has_a_bound(tmp_path, monkeypatch):
    """What a worker writes to its standard error comes to a file at home by ssh itself."""
    monkeypatch.setattr(worker, "_MOST_LOG_BYTES", 100_000)
    monkeypatch.setattr(worker, "command", lambda *_: saying("while True: sys.stderr.write('x' * 100_000)"))

    died(tmp_path)

    assert (tmp_path / "logs" / "machine-west.log").stat().st_size <= 100_000 + 1000


def test_machine_that_is_asked_before_the_run_is_heard_for_so_long_and_no_more(monkeypatch):
    """Words without an end, in place of a reason why it is no worker."""
    endless = "import os; os.close(1)\nwhile True: sys.stderr.write('x' * 100_000)"
    monkeypatch.setattr(worker, "command", lambda *_: saying(endless))

    assert len(worker._why_not(WEST)) < worker._MOST_WORDS + 100


def test_offer_that_is_none_is_one_line(monkeypatch):
    """What a machine says of its end of the transport goes into commands here."""
    offer = {"public_key": "A" * 43 + "=", "port": 51820, "directory": "/there/run", "descriptor": 3,
             "shaper": DELAY_LINE}  # fmt: skip
    assert worker.offered("west", offer) == offer
    for name, value in (("public_key", "-x"), ("public_key", 7), ("port", "1"), ("port", 700_000), ("directory", "run"),
                        ("descriptor", True), ("shaper", ["netem"])):  # fmt: skip
        with pytest.raises(ProcessFailed, match=f"machine west: it offers {name} "):
            worker.offered("west", {**offer, name: value})
    with pytest.raises(ProcessFailed, match="machine west: it offers no port"):
        worker.offered("west", {name: value for name, value in offer.items() if name != "port"})
    with pytest.raises(ProcessFailed, match="machine west: it offers no "):
        worker.offered("west", [])
