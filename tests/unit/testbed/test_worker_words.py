"""What goes between home and a worker: why one is not taken, and files that name a run directory."""

from __future__ import annotations

import base64
import errno
import json
import os
import re

import pytest

from scenario.machines import Machine
from testbed.workers import arrivals as home_side
from testbed.workers.arrivals import Arrivals
from testbed.workers.connection import FarProcess, command, why_it_ended
from testbed.workers.hello import hello, refused, sources
from testbed.workers.tails import Tails
from testbed.workers.worker import files_named, relocated

WEST = Machine("west", "west.example.net", ("finance",), root="/opt/qkd")
A_AT_WEST = Machine("west", "west.example.net", ("a",))
GOOD = {"sources": sources(), "lacks": None, "clocks": True}


def stopped(at: float, who: str = "node:a", **facts: object) -> bytes:
    """A line of a journal."""
    return json.dumps({"time": at, "mono": at, "who": who, "event": "stopped", **facts}).encode() + b"\n"


ONE, TWO, THREE = stopped(1), stopped(2), stopped(3)


def ahead(time_s: float, since_start_s: float = 0) -> dict[str, float]:
    """How far clocks are ahead of those at home."""
    return {"time": time_s, "monotonic": since_start_s, "boottime": since_start_s}


def test_machine_with_the_same_files_and_the_same_time_is_taken():
    """As this one is, which says so of itself."""
    assert refused(GOOD, ahead(0.1)) is None
    assert refused(GOOD, ahead(0.1, -5000)) is None
    assert refused({**GOOD, "clocks": False}, ahead(0.1, -0.04)) is None
    assert hello()["sources"] == sources()


@pytest.mark.parametrize(
    ("said", "apart_s", "why"),
    [
        ({"lacks": "needs root there"}, 0, "needs root there"),
        ({"lacks": "\x1b[2Jneeds\nroot " + "x" * 1000}, 0, r"\[2Jneeds root x{400,500}$"),
        ({**GOOD, "sources": "0"}, 0, "has another version of the testbed"),
        (GOOD, 2.04, r"its clock is 2\.0 s ahead of this one: expected at most 0\.5 s"),
        (GOOD, -60, r"its clock is 60\.0 s behind this one"),
    ],
)
def test_machine_that_is_not_taken_is_told_why_in_one_line(said, apart_s, why):
    """Of another version, without root or tools, with clocks apart."""
    assert re.match(why, refused(said, ahead(apart_s)))


@pytest.mark.parametrize("clocks", [False, None, 1])
def test_machine_whose_clocks_cannot_be_set_and_do_not_go_as_those_at_home_is_told_so(clocks):
    """Those that count from a start: by them journals of several machines are compared."""
    why = refused({**GOOD, "clocks": clocks}, ahead(0.1, 3.21))

    assert why.startswith("its kernel has no time namespaces: expected Linux 5.6 or a later one, or clocks that count")
    assert why.endswith("as those at home do, to 0.05 s: they are 3.2 s ahead of them")


@pytest.mark.parametrize(
    ("status", "said", "why"),
    [
        (41, "", "the testbed is not set up in /opt/qkd there: run 'make setup' there, or say where: root"),
        (1, "sudo: a password is required\n", "needs root there: sudo: a password is required"),
        (255, "warm words\nssh: connect to host x port 22: Connection refused\n",
         "ssh west.example.net: ssh: connect to host x port 22: Connection refused"),
        (127, "", "exit status 127"),
    ],
)  # fmt: skip
def test_end_of_ssh_is_told_in_one_line(status, said, why):
    """With the last that it said."""
    assert why_it_ended(WEST, status, said) == why


def test_ssh_is_the_users_own_where_sudo_started_the_run(monkeypatch):
    """His keys and configuration, not root's; QKD_SSH names another program, or options."""
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("SUDO_GID", "100")
    monkeypatch.setenv("QKD_SSH", "ssh -F 'my file'")
    monkeypatch.setattr("os.geteuid", lambda: 0)

    words = command(WEST, "/proc/1/fd/3")

    assert words[:2] == ["nsenter", "--net=/proc/1/fd/3"]
    assert words[3:10] == ["setpriv", "--reuid", "1000", "--regid", "100", "--init-groups", "--"]
    assert words[10:13] == ["ssh", "-F", "my file"]
    assert words[-3:-1] == ["--", "west.example.net"]
    assert "/opt/qkd/.venv/bin/python" in words[-1]


def test_configuration_for_a_worker_names_its_run_directory_and_brings_the_files_that_it_names(tmp_path):
    """Also those that libpq is told of by the folder's descriptor; those that are not there yet are none."""
    (tmp_path / "pki").mkdir()
    for name in ("ca.pem", "node-a.pem"):
        (tmp_path / "pki" / name).write_text("")
    text = json.dumps(
        {"ca": f"{tmp_path}/pki/ca.pem", "directory": f"{tmp_path}/nodes/a", "mine": f"{tmp_path}/pki/node-a.pem",
         "url": "sslkey=/proc/1/fd/22/pki/node-a.key"}
    )  # fmt: skip

    assert files_named(text, tmp_path) == [tmp_path / "pki" / "ca.pem", tmp_path / "pki" / "node-a.pem"]
    assert json.loads(relocated(text, tmp_path, "/there/run", 7)) == {
        "ca": "/there/run/pki/ca.pem", "directory": "/there/run/nodes/a", "mine": "/there/run/pki/node-a.pem",
        "url": "sslkey=/proc/1/fd/7/pki/node-a.key",
    }  # fmt: skip


def test_what_files_grow_by_comes_home_and_a_journal_that_begins_a_new_file_goes_on(tmp_path):
    """Byte for byte; a worker's own logs under its name."""
    there, home = tmp_path / "there", tmp_path / "home"
    (there / "nodes" / "a").mkdir(parents=True)
    (there / "logs").mkdir()
    arrivals = Arrivals(A_AT_WEST, home)
    tails = Tails(there, "west", arrivals.told)
    journal = there / "nodes" / "a" / "journal.jsonl"
    (there / "logs" / "delay-line.log").write_text("late\n")
    journal.write_bytes(ONE)
    tails.follow()
    with journal.open("ab") as file:
        file.write(TWO)
    journal.rename(journal.with_name("journal.1.jsonl"))
    journal.write_bytes(THREE)
    tails.follow()
    tails.follow()

    assert (home / "nodes" / "a" / "journal.jsonl").read_bytes() == ONE + TWO + THREE
    assert (home / "logs" / "west-delay-line.log").read_text() == "late\n"


def test_line_that_a_kill_has_cut_off_never_comes_home(tmp_path):
    """The process that begins anew cuts it off; what it writes then comes whole, as does a line of many pieces."""
    there, home = tmp_path / "there", tmp_path / "home"
    (there / "nodes" / "a").mkdir(parents=True)
    arrivals = Arrivals(A_AT_WEST, home)
    tails = Tails(there, "west", arrivals.told)
    journal, at_home = (folder / "nodes" / "a" / "journal.jsonl" for folder in (there, home))
    long = stopped(2, why="x" * 200_000)
    journal.write_bytes(ONE + TWO[:20])
    tails.follow()
    assert at_home.read_bytes() == ONE

    os.truncate(journal, len(ONE))
    with journal.open("ab") as file:
        file.write(long)
    tails.follow()

    assert at_home.read_bytes() == ONE + long


NOT_ITS_OWN = [
    "/etc/passwd", "nodes/../../x", "nodes/a/../b/journal.jsonl", "pki/ca.pem", "config/qcs.json", "nodes/a",
    "nodes/b/journal.jsonl", "saes/b/journal.jsonl", "nodes/a/a.key", "nodes/a/x/journal.jsonl", "logs/run.log",
    "logs/node-b.log", "logs/west.log", "logs/passage.log", "logs/passage-east.log", "logs/west-../x.log", "", ".", 7,
    None,
]  # fmt: skip


@pytest.mark.parametrize("name", NOT_ITS_OWN)
def test_worker_writes_at_home_what_is_its_own_and_nothing_else(tmp_path, name):
    """Not over certificates or configurations, out of the run directory, or into what nodes elsewhere say."""
    with pytest.raises(ValueError, match="it names the file"):
        Arrivals(A_AT_WEST, tmp_path).told({"file": name, "data": ""})
    assert not list(tmp_path.iterdir())


def test_worker_has_its_nodes_and_itself_to_tell_of(tmp_path):
    """Journals and logs of these, and the local databases of nodes."""
    names = ("nodes/a/journal.jsonl", "saes/a/journal.jsonl", "nodes/a/local.db", "nodes/a/local.db-wal",
             "logs/node-a.log", "logs/sae-a.log", "logs/passage-west.log", "logs/west-ovs-vswitchd.log")  # fmt: skip
    arrivals = Arrivals(A_AT_WEST, tmp_path)

    for name in names:
        data = stopped(1, "sae:a" if name.startswith("saes") else "node:a")
        arrivals.told({"file": name, "data": base64.b64encode(data).decode()})

    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()} == {*names}


@pytest.mark.parametrize("data", [None, 7, "x", "eA==\n", "\u20ac"])
def test_growth_that_is_no_base64_is_none(tmp_path, data):
    """Nothing is guessed from it."""
    with pytest.raises(ValueError, match="a file has grown, and not by which bytes"):
        Arrivals(A_AT_WEST, tmp_path).told({"file": "logs/node-a.log", "data": data})


def grow(arrivals: Arrivals, name: str, data: bytes) -> None:
    """The worker says that a file has grown by that."""
    arrivals.told({"file": name, "data": base64.b64encode(data).decode()})


def test_line_of_a_journal_without_an_end_is_not_taken(tmp_path, monkeypatch):
    """Whoever reads the journal reads lines. A log and a database have none that anybody reads whole."""
    monkeypatch.setattr(home_side, "MOST_LINE_BYTES", 100)
    arrivals = Arrivals(A_AT_WEST, tmp_path)
    for name in ("nodes/a/local.db", "logs/node-a.log"):
        grow(arrivals, name, b"x" * 101)
    grow(arrivals, "nodes/a/journal.jsonl", ONE[:30])
    for _ in range(9):
        grow(arrivals, "nodes/a/journal.jsonl", ONE[30:] + ONE[:30])
    assert (tmp_path / "nodes" / "a" / "journal.jsonl").read_bytes() == ONE * 9

    with pytest.raises(ValueError, match=r"a line of nodes/a/journal\.jsonl has more than 100 bytes"):
        grow(arrivals, "nodes/a/journal.jsonl", b"x" * 71)
    with pytest.raises(ValueError, match="has more than 100 bytes"):
        grow(Arrivals(A_AT_WEST, tmp_path), "saes/a/journal.jsonl", b"\n" + b"x" * 101 + b"\n")


@pytest.mark.parametrize(("name", "data", "why"), [
    ("nodes/a/journal.jsonl", b"{\n", "line: expected JSON"), ("nodes/a/journal.jsonl", b"[]\n", "expected an object"),
    ("nodes/a/journal.jsonl", stopped(1, "node:b"), "who: expected node:a"),
    ("saes/a/journal.jsonl", stopped(1), "who: expected sae:a"),
    ("nodes/a/journal.jsonl", TWO + stopped(-1), "time: expected a number"),
])  # fmt: skip
def test_line_that_nobody_writes_there_is_not_taken(tmp_path, name, data, why):
    """No event, no JSON, another party's: nothing of it comes into a journal that others read."""
    arrivals = Arrivals(A_AT_WEST, tmp_path)
    grow(arrivals, name, data[:1])

    with pytest.raises(ValueError, match=rf"^{name} has a line that nobody writes there: [^\n]*{why}[^\n]*$"):
        grow(arrivals, name, data[1:])
    assert not list(tmp_path.iterdir())


def test_worker_takes_so_much_of_the_disk_and_no_more(tmp_path, monkeypatch):
    """In all its files together, for each of its datacenters."""
    monkeypatch.setattr(home_side, "MOST_BYTES_OF_A_DATACENTER", 1000)
    two = Machine("west", "west.example.net", ("a", "b"))
    arrivals = Arrivals(two, tmp_path)
    for name in ("nodes/a/local.db", "nodes/b/local.db", "logs/node-a.log", "logs/west-x.log"):
        grow(arrivals, name, b"x" * 500)

    with pytest.raises(ValueError, match="it has sent more than 2000 bytes, 1000 for each of its datacenters"):
        grow(arrivals, "logs/node-b.log", b"x")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 2000


def test_worker_has_so_many_logs_and_no_more(tmp_path, monkeypatch):
    """Of its own: those of nodes are as many as these."""
    monkeypatch.setattr(home_side, "MOST_LOGS", 3)
    arrivals = Arrivals(A_AT_WEST, tmp_path)
    for number in [*range(3), 0]:
        grow(arrivals, f"logs/west-x{number}.log", b"x")

    with pytest.raises(ValueError, match="it has more than 3 logs of its own"):
        grow(arrivals, "logs/west-x3.log", b"x")


def test_process_is_ready_once_however_often_a_worker_says_so(tmp_path):
    """Nobody reads what is said again: it would fill the pipe, and hold up all that the worker says."""
    out, into = os.pipe()
    process = FarProcess(None, "node-a", into)
    arrivals = Arrivals(A_AT_WEST, tmp_path)
    arrivals.processes["node-a"] = process
    for _ in range(3):
        arrivals.told({"ready": "node-a"})

    assert os.read(out, 100) == b"ready\n"
    for told in ({"ready": "node-b"}, {"ended": 7}, {"ready": None}, {"answer": 1}, {}):
        with pytest.raises(ValueError, match="which was not started there"):
            arrivals.told(told)
    for status in ("0", None, 1 << 40, True):
        with pytest.raises(ValueError, match="says that node-a ended"):
            arrivals.told({"ended": "node-a", "status": status})
    arrivals.told({"ended": "node-a", "status": -9})
    assert process.poll() == -9
    os.close(out)
    os.close(into)


def test_full_disk_at_home_costs_no_byte_of_a_journal(tmp_path, monkeypatch):
    """What comes meanwhile waits, and is written once there is room, in order."""
    arrivals = Arrivals(A_AT_WEST, tmp_path)

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr("testbed.workers.arrivals.os.write", full)
        grow(arrivals, "nodes/a/journal.jsonl", ONE)
        grow(arrivals, "nodes/a/journal.jsonl", TWO)
    grow(arrivals, "nodes/a/journal.jsonl", THREE)

    assert (tmp_path / "nodes" / "a" / "journal.jsonl").read_bytes() == ONE + TWO + THREE


def test_what_waits_for_room_has_a_bound_for_all_files_of_a_worker(tmp_path, monkeypatch):
    """Memory is home's, too."""
    monkeypatch.setattr(home_side, "MOST_WAITING_BYTES", 100)

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("testbed.workers.arrivals.os.write", full)
    arrivals = Arrivals(A_AT_WEST, tmp_path)
    grow(arrivals, "nodes/a/journal.jsonl", ONE)

    with pytest.raises(OSError, match="no space left"):
        grow(arrivals, "saes/a/journal.jsonl", stopped(1, "sae:a"))
