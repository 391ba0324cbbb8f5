"""The operator's socket: real sockets, with an operator that the test plays."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import UserError
from testbed.operation.client import FILE, Client
from testbed.operation.server import OperatorSocket
from tests.support.waiting import until


class Played:
    """Answers as tests need it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.over = threading.Event()

    def do(self, name: str, /, **arguments: Any) -> Any:
        if name == "status":
            return arguments
        if name == "set":
            assert self.go.wait(20)
            return {"said": "done"}
        if name == "summary":
            raise ZeroDivisionError
        raise UserError(f"not done: {name}")

    def stream(self, name: str, /, **_: Any) -> Iterator[dict[str, Any]]:
        if name == "events":
            yield from ({"number": number} for number in range(3))
            return
        yield {"event": "following"}
        assert self.over.wait(20)

    def close(self) -> None:
        self.over.set()


@pytest.fixture
def played() -> Played:
    return Played()


@pytest.fixture
def place(tmp_path: Path, played: Played) -> Iterator[OperatorSocket]:
    made = OperatorSocket(played, tmp_path / FILE, os.getuid())
    made.start()
    yield made
    played.go.set()
    made.close()


@pytest.fixture
def client(tmp_path: Path, place: OperatorSocket) -> Iterator[Client]:
    made = Client(tmp_path)
    yield made
    made.close()


def test_socket_is_its_owners_alone(tmp_path, place):
    found = (tmp_path / FILE).stat()

    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.getuid()


def test_requests_are_answered_one_after_another(client):
    assert client.do("status") == {}
    with pytest.raises(UserError, match=r"^not done: close$"):
        client.do("close", ksid="k")
    assert list(client.stream("events")) == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert client.do("status") == {}


def test_who_waits_for_an_answer_holds_up_nobody(tmp_path, played, client):
    """Even where two change the same."""
    slow = Client(tmp_path)
    waiting = threading.Thread(target=lambda: slow.do("set", name="mode", value="qkp"))
    waiting.start()

    assert client.do("status") == {}

    played.go.set()
    waiting.join(20)
    assert not waiting.is_alive()
    slow.close()


def test_who_follows_hears_that_the_run_has_ended(client, place):
    events = client.stream("follow")
    assert next(events) == {"event": "following"}

    place.close()

    assert list(events) == []


def test_run_that_has_died_is_told_apart_from_no_run(tmp_path, place, played):
    """Its socket is there, and nobody listens."""
    dead = tmp_path / "dead"
    dead.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead / FILE))

    with pytest.raises(UserError, match=r"the run in .* has ended, or is not up yet"):
        Client(dead)
    with pytest.raises(UserError, match=r"no run in "):
        Client(tmp_path / "none")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nonsense\n", "expected a line of JSON"),
        (b"[" * 60_000 + b"\n", "expected a line of JSON"),
        (b'{"id": Infinity, "do": "status"}\n', "expected a line of JSON"),
        (b"[1]\n", "expected a JSON object"),
        (b'{"do": 5}\n', 'expected {"id": ..., "do": NAME, "arguments": {...}}'),
        (b'{"do": "status", "arguments": [1]}\n', 'expected {"id": ..., "do": NAME, "arguments": {...}}'),
        (b"x" * 70_000 + b"\n", "expected a line of at most 65536 bytes"),
    ],
)
def test_nonsense_gets_a_clear_error_and_the_next_request_an_answer(tmp_path, place, line, said):
    with socket.socket(socket.AF_UNIX) as stranger, stranger.makefile("rb") as answers:
        stranger.connect(str(tmp_path / FILE))
        stranger.sendall(line)
        assert json.loads(answers.readline())["error"] == said
    with socket.socket(socket.AF_UNIX) as another, another.makefile("rb") as answers:
        another.connect(str(tmp_path / FILE))
        another.sendall(b'{"id": 7, "do": "status"}\n')
        assert json.loads(answers.readline()) == {"id": 7, "answer": {}}


def test_bug_of_ours_is_in_the_log_and_not_in_the_answer(client, caplog):
    with pytest.raises(UserError, match=r"^this met a bug of ours; the network goes on"):
        client.do("summary")

    assert "ZeroDivisionError" in caplog.text


def test_many_connections_are_refused_and_their_ends_make_room(tmp_path, place):
    clients = [Client(tmp_path) for _ in range(40)]
    served = 0
    for one in clients:
        with contextlib.suppress(UserError):
            served += one.do("status") == {}
    assert 30 <= served < 40
    for one in clients:
        one.close()

    def again() -> bool:
        newcomer = Client(tmp_path)
        try:
            return newcomer.do("status") == {}
        except UserError:
            return False
        finally:
            newcomer.close()

    assert until(again)


def test_nothing_is_left_when_the_run_ends(tmp_path, place):
    place.close()

    assert not (tmp_path / FILE).exists()
