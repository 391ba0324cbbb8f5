"""A network on several machines: namespaces with an SSH server each. `make test-machines` has the longer ones."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_bad_input import assert_refused
from tests.support.machines import Machines, placement
from tests.support.running import PYTHON, ROOT, Running, command
from tests.support.waiting import until

DELAY_MS = 5
OPTIONS = ("--topology", "pair", "--delay", DELAY_MS, "--seed", 7, "--no-dashboard")


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[Machines]:
    """Home, west, and east, which is there to be broken."""
    with Machines(tmp_path_factory.mktemp("machines") / "lab", ["west", "east"]) as found:
        yield found


@pytest.fixture(scope="module")
def pair(machines, tmp_path_factory) -> Iterator[Running]:
    """Alice at home, bob on west; what crosses between the two machines is captured from before the start."""
    folder = tmp_path_factory.mktemp("pair")
    placed = placement(folder / "machines.yaml", west=["bob"])
    tap = ["tcpdump", "-B", "16384", "-U", "-n", "-s", "0", "-Z", "root", "-i", "net", "-w", str(folder / "pcap")]
    with (folder / "tcpdump").open("wb") as words, subprocess.Popen(machines.on("home", *tap), stderr=words) as capture:
        until(lambda: "listening on" in (folder / "tcpdump").read_text())
        running = Running(folder / "run", *OPTIONS, "--machines", placed, "--sessions", 2, on=machines)
        try:
            running.wait_up()
            yield running
        finally:
            running.stop()
            capture.terminate()


def said(running: Running, *words: str) -> subprocess.CompletedProcess[str]:
    """What `qkd` says from outside."""
    argv = [PYTHON, "-P", "-m", "testbed.qkd", "--run", running.directory, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_run_over_two_machines_is_one_run_with_one_summary_and_a_clean_audit(machines, tmp_path):
    """Keys at both ends, results at home, nothing left on the other machine."""
    placed, run = placement(tmp_path / "machines.yaml", east=["bob"]), tmp_path / "run"
    argv = command(*OPTIONS, "--machines", placed, "--sessions", 2, "--duration", 6, "--no-cli", "--run-dir", run)

    done = subprocess.run(
        machines.at_home(argv), env=machines.environment, capture_output=True, text=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["sessions"] == {"requested": 2, "admitted": 2, "refused": 0, "failed": 0}
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] == summary["keys"]["single_hop"] > 0
    assert summary["audit"]["verdict"] == "clean"
    assert summary["audit"]["checked"]["ranges_taken"] == 2 * summary["audit"]["checked"]["allocations"]
    (fibre,) = summary["links"]
    assert 1.8 * DELAY_MS < fibre["measured_rtt_ms"] < 2 * DELAY_MS + 5
    assert (machines.links("east"), machines.processes("east")) == ({"lo", "eth0"}, {})
    assert machines.links("home") == {"lo", "net", "to-west", "to-east"}
    assert not list(run.rglob("*.key")) + list(run.rglob("local.db*"))
    assert (run / "nodes" / "bob" / "journal.jsonl").stat().st_size > 0


def test_full_frames_cross_and_take_what_the_fibre_is_configured_with(pair):
    """1500 bytes of IP in one piece, though VXLAN and WireGuard add to them; the real path is no delay beside it."""
    bob = pair.config("sae-alice")["peers"][pair.sae("bob")["id"]]["url"].split("//")[1].split(":")[0]

    shown = subprocess.run(
        pair.on("alice", "ping", "-n", "-c", "10", "-i", "0.05", "-M", "do", "-s", "1472", bob),
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip

    assert " 0% packet loss" in shown
    least_ms = float(re.search(r"= ([\d.]+)/", shown)[1])
    assert 1.8 * DELAY_MS < least_ms < 2 * DELAY_MS + 5


def test_nothing_crosses_between_machines_but_ssh_and_wireguard(pair, machines):
    """By ports: that of SSH, and one pair of UDP for the two ends of WireGuard. All else of ours is inside."""
    until(lambda: len((pair.directory / "nodes" / "bob" / "journal.jsonl").read_text().splitlines()) > 10)
    pcap = pair.directory.parent / "pcap"
    show = ["tcpdump", "-n", "-r", str(pcap)]

    # Kernels tell all machines of their own affairs, too, by multicast.
    between = "ip and src net 198.51.100.0/24 and dst net 198.51.100.0/24 and not (tcp port 22) and not udp"
    other = subprocess.run([*show, between], capture_output=True, text=True, check=True).stdout
    udp = subprocess.run([*show, "-x", "udp"], capture_output=True, text=True, check=True).stdout

    # Of a packet in fragments only the first has UDP's header.
    assert [line for line in other.splitlines() if "ip-proto-17" not in line and "udp" not in line] == []
    ports = {frozenset(p) for p in re.findall(r"IP 198\.51\.100\.\d+\.(\d+) > 198\.51\.100\.\d+\.(\d+): UDP", udp)}
    assert len(ports) == 1, "one pair of ports, that of WireGuard"


def test_fibre_between_machines_takes_another_shape_and_is_cut_and_healed(pair):
    """As any other; one that would be shorter than the real path is refused, and keeps its shape."""
    assert said(pair, "fibre", "alice", "bob", "delay", "20ms").returncode == 0
    until(lambda: 36 < rtt(pair) < 60)
    short = said(pair, "fibre", "alice", "bob", "delay", "0.001ms")
    assert short.returncode == 1
    assert "the real path between home and west takes" in short.stderr
    assert said(pair, "fibre", "alice", "bob", "reset").returncode == 0

    assert said(pair, "fault", "cut", "alice", "bob").returncode == 0
    until(lambda: "dark" in said(pair, "status").stdout)
    assert said(pair, "fault", "heal").returncode == 0
    until(lambda: rtt(pair) < 20)


def rtt(running: Running) -> float:
    """The least round trip of some pings between the two hosts, in ms; of none that is answered, endless."""
    bob = json.loads((running.directory / "config" / "controller.json").read_text())["agents"]["bob"]
    address = bob.split("//")[1].split(":")[0]
    shown = subprocess.run(
        running.on("alice", "ping", "-n", "-c", "3", "-i", "0.1", "-W", "1", address), capture_output=True, text=True,
        check=False,
    ).stdout  # fmt: skip
    found = re.search(r"= ([\d.]+)/", shown)
    return float(found[1]) if found else float("inf")


def keys_of_bob(running: Running) -> int:
    """How many the applications at bob have."""
    return (running.directory / "saes" / "bob" / "journal.jsonl").read_text().count('"event":"key"')


def test_node_on_another_machine_is_killed_paused_and_healed_as_one_at_home(pair):
    """By the same commands; healed, it gives keys again."""
    for kind in ("node", "pause"):
        assert said(pair, "fault", kind, "bob").returncode == 0
        assert f"node-bob {'killed' if kind == 'node' else 'asleep'}" in said(pair, "status").stdout
        assert said(pair, "fault", "heal").returncode == 0
    before = keys_of_bob(pair)
    until(lambda: keys_of_bob(pair) > before)


def test_what_does_not_go_over_machines_yet_says_so(pair):
    """In one line: a measurement in full, a tunnel, a key for an SAE that is elsewhere."""
    for words in (("fibre", "alice", "bob", "measure"), ("vpn", "alice", "bob")):
        done = said(pair, *words)

        assert (done.returncode, done.stdout) == (1, "")
        assert re.search("on another machine", done.stderr)


@pytest.mark.slow
def test_machine_that_is_killed_is_a_fault_and_the_run_goes_on_without_it(machines, tmp_path):
    """The summary has no dead process, the audit is clean: what the machine left on its disk is looked at, too."""
    placed, run = placement(tmp_path / "machines.yaml", east=["bob"]), tmp_path / "run"
    running = Running(run, *OPTIONS, "--machines", placed, "--sessions", 2, on=machines)
    try:
        running.wait_up()
        until(lambda: keys_of_bob(running))

        assert said(running, "fault", "node", "bob").returncode == 0

        assert said(running, "fault", "machine", "east").stdout == "broken: machine east\n"

        assert re.search(r"machine-east killed, .*node-bob killed", said(running, "status").stdout)
        until(lambda: "dark" in said(running, "status").stdout)
        assert until(lambda: not machines.processes("east"))
        healed = said(running, "fault", "heal", "machine", "east")
        assert "a machine that was killed stays away until the run ends" in healed.stderr
        assert said(running, "fault", "heal").stdout == "nothing is broken\n", "nor is the node there to be healed"
        assert running.exit() == 0, running.text
    finally:
        running.stop()
    assert json.loads((run / "summary.json").read_text())["audit"]["verdict"] == "clean"


def test_machine_that_dies_by_itself_is_told_of_and_the_exit_status_knows(machines, tmp_path):
    """As of a process that dies: one line when it happens, another one in the summary."""
    placed, run = placement(tmp_path / "machines.yaml", east=["bob"]), tmp_path / "run"
    running = Running(run, *OPTIONS, "--machines", placed, on=machines)
    try:
        running.wait_up()
        for pid in machines.processes("east"):
            subprocess.run(["kill", "-KILL", str(pid)], check=False)

        running.wait_for("run.py: node-bob ended on its own: .*machine east is gone, and this with it")
        assert running.exit() == 1
    finally:
        running.stop()
    assert [line for line in running.text.splitlines() if line.startswith("DIED          machine-east")]
    assert machines.links("east") == {"lo", "eth0"}


def journal_there(machines: Machines, name: str, node: str) -> Path:
    """The journal of a node on a machine, which is in memory there: as the worker's own processes see it."""
    workers = {str(pid) for pid in machines.processes(name)}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if re.search(r"PPid:\s+(\d+)", status.read_text())[1] in workers:
                runs = Path(f"{status.parent}/root{ROOT}/runs")
                for path in runs.glob(f"*/nodes/{node}/journal.jsonl"):
                    return path
    raise AssertionError(f"no journal of {node} on {name}")


def test_machine_that_makes_up_a_journal_is_given_up_and_the_run_goes_on(machines, tmp_path):
    """One line says why, in the summary, too; nothing of it comes into the journal at home, and nothing else is hurt.
    """
    placed, run = placement(tmp_path / "machines.yaml", east=["bob"]), tmp_path / "run"
    running = Running(run, *OPTIONS, "--machines", placed, on=machines)
    why = r"machine east was given up: nodes/bob/journal\.jsonl has a line that nobody writes there: .*: who: expected"
    try:
        running.wait_up()
        with journal_there(machines, "east", "bob").open("a") as journal:
            journal.write('{"time": 1, "mono": 1, "who": "node:alice", "event": "stopped"}\n')

        running.wait_for(f"run.py: machine-east ended on its own: .*{why} node:bob")
        until(lambda: "dark" in said(running, "status").stdout)
        assert said(running, "sessions").returncode == 0
        assert running.exit() == 1
    finally:
        running.stop()
    assert [line for line in running.text.splitlines() if re.search(f"^DIED +machine-east.*{why} node:bob", line)]
    assert not [path.name for path in (run / "logs").iterdir() if "Traceback" in path.read_text(errors="replace")]
    assert "node:alice" not in (run / "nodes" / "bob" / "journal.jsonl").read_text()
    assert until(lambda: (machines.links("east"), machines.processes("east")) == ({"lo", "eth0"}, {}))


def test_run_that_is_killed_at_home_leaves_nothing_on_the_other_machine(machines, tmp_path):
    """Neither processes nor interfaces; files were in memory."""
    placed = placement(tmp_path / "machines.yaml", east=["bob"])
    running = Running(tmp_path / "run", *OPTIONS, "--machines", placed, on=machines)
    running.wait_for("starting 2 nodes")
    assert machines.processes("east")

    running.process.kill()

    running.stop()
    until(lambda: not machines.processes("east"))
    assert machines.links("east") == {"lo", "eth0"}


BAD = {
    "not there": ("{name: nowhere, ssh: a.invalid, datacenters: [bob]}", "machine nowhere: ssh a.invalid: "),
    "not set up": ("{name: west, ssh: west, datacenters: [bob], root: /nowhere}", "not set up in /nowhere there"),
    "twice": ("{name: west, ssh: west, datacenters: [bob, bob]}", r"datacenters\[1\]: duplicate 'bob'"),
    "unknown": ("{name: west, ssh: west, datacenters: [carol]}", r"datacenters\[0\]: unknown node 'carol'"),
    "nothing": ("{name: west, ssh: west, datacenters: []}", "expected at least one datacenter"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_machine_that_cannot_be_a_worker_is_one_line_before_anything_is_built(machines, tmp_path, case):
    """With exit status 2."""
    row, why = BAD[case]
    (tmp_path / "machines.yaml").write_text(f"machines:\n  - {row}\n")

    assert_refused(refused_run(machines, tmp_path), why)

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--expose", "without --expose"), ("--vm", "--vm goes without machines"),
        ("--database=ha", "--database: one that fails over goes on one machine only"),
    ],
)  # fmt: skip
def test_option_that_does_not_go_over_machines_is_refused(machines, tmp_path, option, why):
    """In one line."""
    placement(tmp_path / "machines.yaml", west=["bob"])

    assert_refused(refused_run(machines, tmp_path, option), why)


def refused_run(machines: Machines, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A run that is not to begin."""
    argv = command(*OPTIONS, *options, "--machines", folder / "machines.yaml", "--run-dir", folder / "run")
    return subprocess.run(
        machines.at_home(argv), env=machines.environment, capture_output=True, text=True, timeout=100, check=False,
        stdin=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip


def test_fibre_that_is_shorter_than_the_real_path_is_refused(machines, tmp_path):
    """One line that says both; the run ends before a network is built."""
    placement(tmp_path / "machines.yaml", east=["bob"])

    done = refused_run(machines, tmp_path, "--delay", "0.05")

    assert_refused(done, "fibre alice-bob has a delay of 0.05 ms, and the real path between home and east takes .* ms")
    assert "building" not in done.stdout
    assert machines.processes("east") == {}
