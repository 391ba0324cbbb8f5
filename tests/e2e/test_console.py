"""Mininet's command line as it is here, typed at a terminal: what works, what is refused, and that the run goes on."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import commands
from tests.support.running import Running, command
from tests.support.waiting import until

# Names that were taken for something else: a switch's, and ones that Mininet cuts at the hyphen.
NETWORK = """
name: awkward
nodes: [{name: s1}, {name: palo-alto}, {name: seattle}]
links: [{a: s1, b: palo-alto, length_km: 10}, {a: palo-alto, b: seattle, length_km: 10}]
saes: [{name: mail, node: s1}, {name: backup, node: palo-alto}]
"""
# What libraries on the way interpret, each in its own way.
FOLDER = """a:b c%d'e"f,g#h?iäß[x]{y}$z&;*"""
# Settings of the caller for programs of his own.
FOREIGN = {
    "PGSERVICE": "none", "PGOPTIONS": "-c nonsense=1", "PGHOSTADDR": "192.0.2.1", "PGSSLMODE": "disable",
    "OVS_DBDIR": "/nonexistent", "PROMPT_COMMAND": "echo surprise",
}  # fmt: skip
SLOW_LISTEN = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>
extern char *program_invocation_short_name;
int listen(int fd, int backlog) {
    int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "listen");
    if (!strcmp(program_invocation_short_name, "ovsdb-server")) usleep(300000);
    return real(fd, backlog);
}
"""


class AtTerminal(Running):
    """A run at a terminal of its own, in the environment of somebody who uses much else."""

    def __init__(self, directory: Path, *options: object, env: dict[str, str]) -> None:
        self.directory = directory
        self.output = directory.parent / "out"
        self.output.touch()
        here, there = pty.openpty()
        self.process = subprocess.Popen(
            ["prlimit", "--nofile=90:", *command("--run-dir", directory, *options)], stdin=there, stdout=there,
            stderr=there, env={**os.environ, **env}, start_new_session=True,
        )  # fmt: skip
        os.close(there)
        self.process.stdin = os.fdopen(os.dup(here), "wb", buffering=0)
        self._reader = threading.Thread(target=self._read, args=(here,), daemon=True)
        self._reader.start()

    def _read(self, terminal: int) -> None:
        with self.output.open("wb", buffering=0) as out:
            while True:
                try:
                    out.write(os.read(terminal, 65536))
                except OSError:  # the last one that had it open is gone
                    os.close(terminal)
                    return

    def answer(self, lines: str, pattern: str) -> re.Match[str]:
        """Type `lines`; where what appears from then on matches `pattern`, and then the prompt is back."""
        before = len(self.text)
        self.cli(lines)
        return until(
            lambda: re.search(pattern + r"[\s\S]*qkd-testbed> $", self.text[before:], re.MULTILINE),
            else_tell=lambda: f"{pattern!r} did not appear:\n{self.text[before:]}",
        )


@pytest.fixture(scope="module")
def slow_listen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What makes ovsdb-server slow between making its socket and listening at it."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.c").write_text(SLOW_LISTEN)
    build = ["gcc", "-shared", "-fPIC", "-o", folder / "slow.so", folder / "slow.c", "-ldl"]
    subprocess.run(build, check=True)
    return {"LD_PRELOAD": str(folder / "slow.so")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, slow_listen: dict[str, str]) -> Iterator[AtTerminal]:
    """A network with awkward names in an awkward folder, with the shortest TTL, few open files, on a slow machine."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "net.yaml").write_text(NETWORK)
    options = ("--topology", folder / "net.yaml", "--ttl", 1, "--qc-rate", "330-470", "--no-dashboard")
    running = AtTerminal(folder / FOLDER, *options, env=FOREIGN | slow_listen)
    try:
        running.wait_up()
        running.wait_for(r"qkd-testbed> $")
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize(
    ("typed", "pattern"),
    [
        ("palo-alto ping -c 1 seattle", r"PING 10\.0\.0\.3[\s\S]* 0% packet loss"),
        ("s1 ping -c 1 ctl", r"PING 10\.1\.0\.1[\s\S]* 0% packet loss"),
        ("dpctl dump-flows", r"\*\*\* s2 -+\s+cookie=[\s\S]*nw_dst=10\.0\.0\.1"),
        ("iperf s1 seattle", r"s1 +[\d.]+ [MG]bits/sec\s+seattle +[\d.]+ [MG]bits/sec"),
        ("pingpair", "0% dropped"),
        (r"seattle printf 'no text: \377\n'", "no text: \ufffd"),
        ("time nodes", r"palo-alto s1 s2 s3 s4 seattle\s+\*\*\* Elapsed time"),
        ("ports", "s2-eth1:1"),
        ("links", "s2-eth4<->s3-eth2 \\(OK OK\\)"),
        ("intfs", "palo-alto: eth0"),
        ("net", "seattle eth0:s4-eth1"),
        ("dump", "<Host palo-alto: eth0:10.0.0.2"),
        ("px there = net['palo-alto'].IP()", ""),
        ("sh echo shell of the machine", r"\nshell of the machine"),
        ("help", "dpctl[\\s\\S]*noecho london python3"),
    ],
)
def test_command_works(run, typed, pattern):
    """As Mininet's documentation says, on OpenFlow 1.3 and with any datacenter's name."""
    run.answer(typed, pattern)


@pytest.mark.parametrize(
    ("typed", "pattern"),
    [
        ("source /nosuch", "source /nosuch: No such file or directory"),
        ("source /", "source /: Is a directory"),
        ("nosuch ping s1", "no command or host 'nosuch': see 'help' and 'nodes'"),
        ("palo-alto", "expected a command after palo-alto"),
        ("palo-alto exit", "palo-alto exit: the host would end with its shell"),
        ("pingall soon", "pingall: expected whole seconds from 1, got 'soon'"),
        ("iperf s1 nowhere", "iperf: no host 'nowhere': there are s1, palo-alto"),
        ("iperfudp fast s1 seattle", "with a bandwidth such as 10M"),
        ("switch s2 stop", "switch: .*cut fibres instead"),
        ("xterm palo-alto", "xterm: hosts see no display; .* sudo nsenter .* mnexec -a \\d+ bash"),
        ("x nosuch", "x: no host 'nosuch'"),
        ("py 1/0", "division by zero"),
        ("dpctl", "expected dpctl COMMAND"),
    ],
)
def test_command_is_refused_with_the_reason(run, typed, pattern):
    """In one line, and the run goes on."""
    run.answer(typed, pattern)
    assert "Traceback" not in run.text
    assert run.process.poll() is None


def test_commands_of_a_file_are_obeyed_and_files_that_read_themselves_are_not_for_ever(run, tmp_path):
    """Comments and empty lines are none."""
    (tmp_path / "commands").write_text(f"# a comment\n\nqkd fault\nsource {tmp_path / 'commands'}\n")

    found = run.answer(f"source {tmp_path / 'commands'}", "more than 10 files that read one another")

    assert found[0].count("nothing is broken") == 0  # what was said before the match
    assert len(re.findall("nothing is broken", run.text)) >= 10


def test_datacenter_called_like_a_switch_is_itself(run):
    """`link` and `qkd fibre` mean its fibre; the switches have other names."""
    run.answer("link s1 palo-alto down\nqkd fibre s1 palo-alto", "s1-palo-alto is down")
    run.cli("link s1 palo-alto up")

    def is_up() -> bool:  # its ends see light a moment later
        before = len(run.text)
        run.cli("qkd fibre s1 palo-alto")
        return until(lambda: re.search("s1-palo-alto is (up|down)", run.text[before:]))[1] == "up"

    until(is_up)


def test_lines_pasted_behind_a_host_command_wait_for_their_turn(run):
    """The command on the host does not read them."""
    run.answer("seattle sleep 0.5\nqkd fault\nqkd refusals", r"nothing is broken[\s\S]*no refusals")


def test_keyboard_goes_to_a_host_behind_noecho(run):
    """For a program that asks."""
    before = len(run.text)
    run.cli("noecho palo-alto read -p 'name? ' x; echo hello $x")
    assert until(lambda: "name? " in run.text[before:].partition("\n")[2])

    run.answer("bell", "hello bell")


def test_ctrl_c_ends_a_command_on_a_host_and_not_the_run(run):
    """And the next command works."""
    run.cli("seattle sleep 1003")
    # Not what the shell says: between two commands it may not heed the signal.
    until(lambda: ["sleep", "1003"] in commands().values())

    run.process.send_signal(signal.SIGINT)

    assert until(lambda: run.text.endswith("qkd-testbed> "))
    run.answer("seattle echo well", r"\nwell")


def test_keys_flow_with_the_shortest_ttl_and_the_exit_leaves_a_clean_audit(run):
    """In a folder of any name: certificates, sockets and databases are found there. The last test: it ends the run."""
    journal = run.directory / "saes" / "s1" / "journal.jsonl"

    def events() -> str:
        return journal.read_text() if journal.exists() else ""

    # Of such a TTL half a slot is for masters; whoever asks in the other half once, asks then again at each rekeying.
    for _ in range(20):
        asked = events().count('"event":"key')
        run.answer("qkd open mail backup", "open: KSID")
        until(lambda was=asked: events().count('"event":"key') > was)  # "key" or "key_error"
        if '"event":"key"' in events():
            break
        run.answer("qkd close mail backup", "closed")
    assert '"event":"key"' in events()

    run.cli("py exit()")

    assert run.process.wait(60) == 0, run.text
    run.wait_for("Audit +clean")
