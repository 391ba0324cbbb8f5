"""How a run ends: at its time, by Ctrl-C, by kill, and what it leaves (nothing but its results)."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from testbed.machine.leftovers import Machine
from tests.support.running import ROOT, Running, command, finished, kill
from tests.support.waiting import until


def test_run_of_a_given_length_ends_with_a_summary_and_status_0(tmp_path):
    """From another folder, without a venv: the summary on the terminal and in summary.json, and nothing is left."""
    machine, run = Machine(), tmp_path / "run"

    done = finished("--duration", 8, "--sessions", 6, "--seed", 3, "--no-cli", "--run-dir", run, cwd="/")

    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["sessions"] == {"requested": 6, "admitted": 6, "refused": 0, "failed": 0}
    assert summary["keys"]["single_hop"] > 0
    assert summary["keys"]["multi_hop"] > 0
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 0
    for hops in ("single_hop", "multi_hop"):
        times = summary["delivery_ms"][hops]
        assert 0 < times["p50"] <= times["p95"] <= times["max"]
    assert [set(link) for link in summary["links"]] == [{"name", "configured_rtt_ms", "measured_rtt_ms"}] * 5
    assert summary["shaper"] in ("netem", "user space")
    assert summary["datapath"] in ("kernel", "user")
    assert summary["seed"] == 3
    assert summary["versions"]["python"]
    assert summary["audit"]["verdict"] == "clean"
    assert summary["audit"]["checked"]["ranges_taken"] > 0
    audit = ["make", "-s", "audit", f"RUN={run}"]
    audited = subprocess.run(audit, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (audited.returncode, audited.stdout.splitlines()[-1]) == (0, "verdict: clean"), audited.stderr
    assert "6 requested, 6 admitted" in done.stdout
    assert run in {link.resolve() for link in (ROOT / "runs").iterdir()}
    assert not machine.left_behind(run)
    assert not list(run.rglob("*.key")) + list(run.rglob("local.db*"))


def test_sessions_that_the_network_cannot_carry_are_refused(tmp_path):
    """Two bytes a second carry no session of 3.2: the error that reaches the user names the QC and what it lacks."""
    run = tmp_path / "run"

    done = finished("--topology", "pair", "--qc-rate", "2-2", "--admission", "reserve", "--sessions", 2,
                    "--duration", 2, "--no-cli", "--run-dir", run)  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    sessions = json.loads((run / "summary.json").read_text())["sessions"]
    assert sessions["refused"] == 2, done.stdout
    assert re.search(r"QC alice-bob/1 cannot carry the session: it needs \d+ bytes, \d+ are available", done.stdout)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param("issuing certificates", signal.SIGTERM, marks=pytest.mark.slow),
        ("starting controller", signal.SIGINT),
        pytest.param("waiting for switches", signal.SIGTERM, marks=pytest.mark.slow),
        ("opening", signal.SIGTERM),
    ],
)
def test_signal_at_any_moment_leaves_nothing(tmp_path, moment, number):
    """While starting and while running."""
    machine, run = Machine(), Running(tmp_path / "run", "--duration", 60, "--sessions", 4)
    run.wait_for(moment)

    run.process.send_signal(number)

    assert run.process.wait(40) == 128 + number, run.text
    assert "Traceback" not in run.text
    assert not machine.left_behind(run.directory)
    run.stop()


@pytest.mark.parametrize("moment", ["set up", "loaded", "begun"])
def test_ctrl_c_while_it_starts_shows_no_traceback(tmp_path, moment):
    """Before there is anything to take down: while run.py sets up, while the testbed is loaded, and just after."""
    run = Running(tmp_path / "run", "--topology", "pair", "--duration", 60)
    seen = {
        "set up": lambda: b"provision.sh" in b"".join(map(_command_line, _children(run.process.pid))),
        "loaded": lambda: b"-m\0testbed" in _command_line(run.process.pid),
        "begun": lambda: "pair:" in run.text,
    }
    assert until(seen[moment])

    run.process.send_signal(signal.SIGINT)

    assert run.process.wait(40) == 130, run.text
    assert "Traceback" not in run.text
    assert not Machine.processes(run.directory)
    run.stop()


def test_output_that_nobody_reads_any_more_ends_the_run_in_order(tmp_path):
    """As `| head` does: no traceback, no process and no key stay."""
    run = tmp_path / "run"
    options = ("--topology", "pair", "--duration", 30, "--sessions", 2, "--no-cli", "--run-dir", run)
    with subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdout.close()

        assert (process.wait(60), process.stderr.read()) == (143, b"")
    assert not Machine.processes(run)
    assert not list(run.rglob("*.key"))


def test_help_that_nobody_reads_to_its_end_is_silent():
    """Not even a broken pipe is told of."""
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" | true', "bash", *command("--help")], capture_output=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) in ((141, b"", b""), (0, b"", b""))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_kill_9_leaves_no_process_and_the_next_start_erases_its_keys(tmp_path):
    """Also of the run's network nothing stays; another run that lives meanwhile is not touched."""
    machine = Machine()
    other = Running(tmp_path / "other", "--topology", "pair", "--no-dashboard")
    run = Running(tmp_path / "run", "--topology", "pair", "--duration", 60)
    try:
        run.wait_for("opening")
        other.wait_up()
        assert list(run.directory.rglob("*.key"))
        run.process.kill()
        run.process.wait()
        assert until(lambda: not machine.processes(run.directory))

        finished("--topology", "pair", "--duration", 1, "--no-cli", "--run-dir", tmp_path / "next")

        assert not list(run.directory.rglob("*.key"))
        assert list(other.directory.rglob("*.key"))
        other.cli("qkd status")
        other.wait_for("all alive")
        assert other.exit() == 0, other.text
        assert not machine.left_behind(run.directory)
    finally:
        run.stop()
        other.stop()


def test_process_that_dies_is_reported_and_the_status_is_not_0(tmp_path):
    """A node killed while the user sits at the command line: named at once, named in the summary, exit status 1."""
    run = Running(tmp_path / "run", "--topology", "pair", "--ttl", 2)  # with so short a TTL it comes up, too
    try:
        run.wait_up()
        victim = next(line for line in Machine.processes(run.directory) if "-m node " in line)
        name = victim.strip().rpartition("/")[2].removesuffix(".json")
        until(lambda: kill(f"{run.directory}/config/{name}.json"))

        run.wait_for(f"{name} ended on its own")
        assert run.exit() == 1, run.text
        assert [line.partition(":")[0] for line in json.loads((run.directory / "summary.json").read_text())["died"]] == [name]  # fmt: skip  # noqa: E501
    finally:
        run.stop()
