"""A worker that says what no worker says: home gives it up, in one line, and takes no more of it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from documents.checks import Malformed
from scenario.machines import Machine
from scenario.topology import load
from testbed.fibres.shapers import DELAY_LINE
from testbed.machine.processes import Process, Processes, ProcessFailed
from testbed.planning.make import make_plan
from testbed.workers import answers, connection, worker
from testbed.workers.connection import Connection
from testbed.workers.fleet import Fleet
from testbed.workers.worker import Worker
from tests.support.waiting import until

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"
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


def answering(answer: str) -> list[str]:
    """A program that answers so whatever it is asked: the rest of a message, behind its number."""
    return saying(
        f"import json\nprint({HELLO!r}, flush=True)\nfor line in sys.stdin:"
        f" print('{{\"id\": %d, %s}}' % (json.loads(line)['id'], {answer!r}), flush=True)"
    )


OFFER = {"public_key": "A" * 43 + "=", "port": 51820, "directory": "/there/run", "descriptor": 3, "shaper": DELAY_LINE}
CLOCK = {"time": 1.0, "monotonic": 2.0, "boottime": 3.0}
WRONG = [
    *[("clock", said) for said in ([], 7, None, {"time": 0})],
    *[("clock", {**CLOCK, "time": value}) for value in ("1", True, 10**400, None)],
    *[("begin", said) for said in ([], *({n: v for n, v in OFFER.items() if n != gone} for gone in OFFER))],
    *[("begin", {**OFFER, name: value}) for name, value in (
        ("public_key", "-x"), ("public_key", 7), ("port", "1"), ("port", 70_000), ("port", 0), ("directory", "run"),
        ("directory", "/a b"), ("descriptor", True), ("shaper", ["netem"]), ("shaper", None),
    )],
    *[("round_trip", said) for said in (-1, "1", True, None, 1e9, [1])],
    *[("dark", said) for said in (None, "s1", {"s1": 0}, [7], [["s1"]], ["s1\x1b[2J"], ["x" * 300])],
    *[(which, said) for which in ("one_way", "by_echo")
      for said in (None, 5, [], [5], [5, 5, 5], [5, "5"], [5, True], [5, -5], [5, 1e9], {"a": 5})],
    *[(which, said) for which in ("enter", "join", "build", "connect", "write", "start", "finish") for said in (0, {})],
]  # fmt: skip


@pytest.mark.parametrize(("what", "said"), WRONG)
def test_answer_that_no_worker_gives_ends_the_connection(what, said):
    """Of another type, without a member, out of range: home has one line that names the member, and takes no more."""
    told = Told(answering(f'"answer": {json.dumps(said)}'))
    try:
        with pytest.raises(ProcessFailed, match=rf"^machine west: the connection[^\n]*an answer to '{what}'[^\n]*$"):
            told.connection.ask(what)
        assert told.over.wait(30)
        assert told.why[0].startswith(f"it has sent an answer to {what!r} that is none: ")
        assert told.why[0].isprintable()
    finally:
        told.close()


@pytest.mark.parametrize("answer", ['"answer": [NaN, 5]', '"answer": [5, Infinity]', '"answer": [5, -Infinity]'])
def test_delay_that_is_no_number_ends_the_connection(answer):
    """As no JSON has them, and Python takes them for some."""
    told = Told(answering(answer))
    try:
        with pytest.raises(ProcessFailed, match="an answer to 'by_echo' that is none: delay: expected a number"):
            told.connection.ask("by_echo", port="s1", shapes=[])
    finally:
        told.close()


@pytest.mark.parametrize("answer", ['"other": 1', '"answer": null, "error": "x"'])
def test_answer_that_says_nothing_or_two_things_ends_the_connection(answer):
    """An error is one line of whatever length it came in."""
    told = Told(answering(answer))
    try:
        with pytest.raises(ProcessFailed, match="neither an answer nor an error to 'finish', or both"):
            told.connection.ask("finish")
    finally:
        told.close()


@pytest.mark.parametrize(
    ("what", "said"),
    [("clock", CLOCK), ("begin", OFFER), ("round_trip", 0.4), ("dark", []), ("dark", ["s1-s2"]), ("finish", None),
     ("one_way", [5.0, 5]), ("by_echo", [None, None]), ("by_echo", [-0.01, 5])],
)  # fmt: skip
def test_answer_that_a_worker_gives_is_taken(what, said):
    """As it is; a member that is new is left out."""
    told = Told(answering(f'"answer": {json.dumps({**said, "new": 1} if isinstance(said, dict) else said)}'))
    try:
        assert told.connection.ask(what) == said
    finally:
        told.close()


def test_machine_that_answers_what_none_can_is_refused_before_anything_is_built(monkeypatch):
    """With the line that says what it was."""
    monkeypatch.setattr(worker, "command", lambda *_: answering('"answer": {"time": 7}'))

    assert worker._why_not(WEST) == (
        "it has sent an answer to 'clock' that is none: monotonic: expected a number from -1e+12 to 1e+12"
    )


@pytest.mark.parametrize(
    "said", [None, 7, "", "192.0.2.1 1 192.0.2.2", "a 1 b 22", "192.0.2.1 1 -oProxyCommand=x 22", "\x1b[2J 1 ::1 22"]
)
def test_address_that_is_none_is_one_line(said):
    """What a machine says of its SSH server goes into the settings of WireGuard, here and on other machines."""
    with pytest.raises(Malformed, match=r"^reached: expected [^\n]+$"):
        answers.reached(said)
    assert answers.reached("192.0.2.1 40000 2001:db8::2 22") == ("192.0.2.1", "2001:db8::2")


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


def journal(text: str) -> str:
    """A message by which the journal of the node there has grown."""
    return json.dumps({"file": "nodes/a/journal.jsonl", "data": base64.b64encode(text.encode()).decode()})


@pytest.mark.parametrize(("said", "why"), [
    ('{"file": "pki/ca.pem", "data": ""}', "it names the file 'pki/ca.pem'"),
    ('{"file": "nodes/../nodes/b/journal.jsonl", "data": ""}', "it names the file 'nodes/../nodes/b/journal.jsonl'"),
    ('{"ready": "node-b"}', "it tells of 'node-b', which was not started there"),
    ('{"ended": ["x"], "status": 0}', "it tells of \"['x']\", which was not started there"),
    (journal("no JSON\n"), "nodes/a/journal.jsonl has a line that nobody writes there: line: expected JSON"),
    (journal("[7]\n"), "nodes/a/journal.jsonl has a line that nobody writes there: line: expected an object"),
    (journal('{"time": 1, "mono": 1, "who": "node:b", "event": "stopped"}\n'),
     "nodes/a/journal.jsonl has a line that nobody writes there: stopped: who: expected node:a"),
])  # fmt: skip
def test_worker_that_oversteps_has_died_of_it(tmp_path, monkeypatch, said, why):
    """Its process at home ends; its last words are the line."""
    monkeypatch.setattr(worker, "command", lambda *_: line(said))

    dead = died(tmp_path)

    assert dead.name == "machine-west"
    assert dead.last_words().endswith(f"machine west was given up: {why}")
    assert "Traceback" not in dead.log.read_text()


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


def test_worker_that_keeps_its_results_to_itself_is_told_of_and_others_send_theirs(tmp_path, monkeypatch):
    """The run's records are kept all the same: of its nodes the audit will say what is missing."""
    (tmp_path / "logs").mkdir()
    processes = Processes(tmp_path / "logs")
    run, plan = SimpleNamespace(path=tmp_path), make_plan(load("pair", TOPOLOGIES))
    fleet = Fleet(plan, run, processes, outside="/proc/self/ns/net")
    for name, answer in (("west", '"error": "no\\nnever"'), ("east", '"answer": 7'), ("north", '"answer": null')):
        monkeypatch.setattr(worker, "command", lambda *_, answer=answer: answering(answer))
        machine = Machine(name, name, ("a",))
        fleet._workers[name] = Worker(machine, run, processes, outside="", lost=lambda: None)
    try:
        assert fleet.finish() == [
            "machine west: no never",
            "machine east: the connection to it has ended: it has sent an answer to 'finish' that is none: answer:"
            " expected nothing",
        ]
    finally:
        fleet.close()
