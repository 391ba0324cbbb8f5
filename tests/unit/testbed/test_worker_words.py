"""What goes between home and a worker: why one is not taken, and files that name a run directory."""

from __future__ import annotations

import base64
import errno
import json
import re

import pytest

from scenario.machines import Machine
from testbed.workers.connection import Arrivals, command, why_it_ended
from testbed.workers.hello import hello, refused, sources
from testbed.workers.tails import Tails
from testbed.workers.worker import files_named, relocated

WEST = Machine("west", "west.example.net", ("finance",), root="/opt/qkd")
GOOD = {"sources": sources(), "lacks": None}


def test_machine_with_the_same_files_and_the_same_time_is_taken():
    """As this one is, which says so of itself."""
    assert refused(GOOD, 0.1) is None
    assert hello()["sources"] == sources()


@pytest.mark.parametrize(
    ("said", "apart_s", "why"),
    [
        ({"lacks": "needs root there"}, 0, "needs root there"),
        ({**GOOD, "sources": "0"}, 0, "has another version of the testbed"),
        (GOOD, 2.04, r"its clock is 2\.0 s ahead of this one: expected at most 0\.5 s"),
        (GOOD, -60, r"its clock is 60\.0 s behind this one"),
    ],
)
def test_machine_that_is_not_taken_is_told_why_in_one_line(said, apart_s, why):
    """Of another version, without root or tools, with clocks apart."""
    assert re.match(why, refused(said, apart_s))


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
    arrivals = Arrivals("west", home)
    tails = Tails(there, "west", arrivals.told)
    journal = there / "nodes" / "a" / "journal.jsonl"
    (there / "logs" / "delay-line.log").write_text("late\n")
    journal.write_text("one\n")
    tails.follow()
    with journal.open("a") as file:
        file.write("two\n")
    journal.rename(journal.with_name("journal.1.jsonl"))
    journal.write_text("three\n")
    tails.follow()
    tails.follow()

    assert (home / "nodes" / "a" / "journal.jsonl").read_text() == "one\ntwo\nthree\n"
    assert (home / "logs" / "west-delay-line.log").read_text() == "late\n"


@pytest.mark.parametrize("name", ["/etc/passwd", "nodes/../../x", "pki/ca.pem", "config/qcs.json"])
def test_worker_writes_at_home_where_it_has_something_to_write_and_nowhere_else(tmp_path, name):
    """Not over certificates or configurations, nor out of the run directory."""
    with pytest.raises(ValueError, match="a worker names the file"):
        Arrivals("west", tmp_path).told({"file": name, "data": ""})


def test_full_disk_at_home_costs_no_byte_of_a_journal(tmp_path, monkeypatch):
    """What comes meanwhile waits, and is written once there is room, in order."""
    arrivals = Arrivals("west", tmp_path)

    def tell(data: bytes) -> None:
        arrivals.told({"file": "nodes/a/journal.jsonl", "data": base64.b64encode(data).decode()})

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr("testbed.workers.connection.os.write", full)
        tell(b"one\n")
        tell(b"two\n")
    tell(b"three\n")

    assert (tmp_path / "nodes" / "a" / "journal.jsonl").read_text() == "one\ntwo\nthree\n"
