"""What a user can get wrong: one clear line that names cause and cure, exit status 2, nothing left behind."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
from itertools import pairwise
from typing import Any

import pytest

from testbed.machine.leftovers import Machine
from tests.support.running import PYTHON, Running, finished

NODES = "nodes: [{name: a}, {name: b}, {name: c}]\n"
SAES = "saes: [{name: x, node: a}, {name: y, node: b}]\n"
TOPOLOGIES = {
    "unknown node in a link": (
        f"name: t\n{NODES}links: [{{a: a, b: nowhere, length_km: 1}}]\n{SAES}", r"links\[0\].b.*nowhere",
    ),
    "duplicate name": (f"name: t\nnodes: [{{name: a}}, {{name: a}}]\nlinks: []\n{SAES}", r"nodes\[1\].name"),
    "negative delay": (
        f"name: t\n{NODES}links: [{{a: a, b: b, delay_ms: -1}}, {{a: b, b: c, length_km: 1}}]\n{SAES}",
        r"links\[0\].delay_ms",
    ),
    "disconnected graph": (f"name: t\n{NODES}links: [{{a: a, b: b, length_km: 1}}]\n{SAES}", "connected"),
    "no YAML": ("name: [", "YAML"),
}  # fmt: skip


def assert_refused(done: subprocess.CompletedProcess[str], pattern: str) -> None:
    """Exit status 2 and one line, which matches."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(lines) == 1, lines
    assert re.search(pattern, lines[0]), lines[0]


def in_python(script: str, **popen: Any) -> subprocess.CompletedProcess[str]:
    """The testbed called by a script, which first changes what only a script can."""
    return subprocess.run([PYTHON, "-P", "-c", script], capture_output=True, text=True, check=False, **popen)


@pytest.mark.parametrize("case", TOPOLOGIES)
def test_malformed_topology(case, tmp_path):
    """The line names file, field and what was expected."""
    text, pattern = TOPOLOGIES[case]
    (tmp_path / "net.yaml").write_text(text)

    assert_refused(finished("--topology", tmp_path / "net.yaml", "--duration", 1, "--no-cli"), rf"net.yaml.*{pattern}")


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (["--topology", "atlantis"], "atlantis.*poliqi"),
        (["--topology", "/nowhere/net.yaml"], "/nowhere/net.yaml"),
        (["--topology", "pair", "--sessions", "1000"], "--sessions 1000: expected at most"),
        (["--run-dir", "/proc/1/run"], "run directory .*choose another"),
        (["--shared-db", "postgresql://nobody@127.0.0.1:1/x"], "--shared-db 127.0.0.1:1 cannot be used"),
        (["--shared-db", "postgresql://nobody@no-such-host.invalid/x"], "cannot resolve"),
        (["--shared-db", "http://x"], "--shared-db: .*expected postgresql://"),
        (["--shared-db", "postgresql:///x"], "--shared-db: expected one host"),
        (["--dashboard", "--no-dashboard"], "--dashboard and --no-dashboard: choose one"),
        (["--delay", "60000"], "longest round trip between two datacenters would take 240 s: .* than 1.875 s"),
    ],
)
def test_option_that_cannot_be_satisfied(options, pattern):
    """Named, with what to do, and before anything is built."""
    assert_refused(finished(*options, "--duration", 1, "--no-cli"), pattern)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (["--delay", "-1"], "--delay: expected milliseconds"),
        (["--qc-rate", "47-33"], "--qc-rate: expected LOW-HIGH"),
        (["--sessions", "many"], "--sessions: expected a whole number"),
        (["--seed", "-3"], "--seed: expected a whole number"),
        (["--duration", "0"], "--duration: expected seconds"),
        (["--mode", "magic"], "--mode magic: did you mean 'basic'? there are: basic, qkp, otp, parallel, paths-2,"),
        (["--dashboard", "0"], "--dashboard: expected a port"),
    ],
)
def test_option_of_the_wrong_form(options, pattern):
    """argparse shows the usage and one line that names the option."""
    done = finished(*options)

    assert done.returncode == 2
    assert pattern in done.stderr.splitlines()[-1]


def test_no_cli_without_duration_would_never_end():
    """And says so."""
    assert_refused(finished("--no-cli"), "--no-cli needs --duration")


def test_run_directory_or_port_in_use(tmp_path):
    """The second run that asks for either is refused, the first one goes on."""
    first = Running(tmp_path / "run", "--topology", "pair")
    try:
        first.wait_up()
        assert_refused(finished("--run-dir", tmp_path / "run", "--duration", 1, "--no-cli"), "in use by another run")
        assert_refused(finished("--dashboard", page_port(first)), "--dashboard [0-9]+: cannot listen .*choose another")
        assert first.exit() == 0
    finally:
        first.stop()


def page_port(run):
    """Where the page of a run is."""
    return re.search(r"live view at http://127\.0\.0\.1:(\d+)/", run.text)[1]


def test_run_directory_with_other_files(tmp_path):
    """Nobody's files are touched."""
    (tmp_path / "thesis.tex").write_text("x")

    assert_refused(finished("--run-dir", tmp_path, "--duration", 1, "--no-cli"), "holds other files")
    assert (tmp_path / "thesis.tex").exists()


def test_more_nodes_than_the_processors_are_known_for_are_told_of_before_anything_starts(tmp_path):
    """Nothing starts here at all: the run directory holds files."""
    (tmp_path / "thesis.tex").write_text("x")
    nodes = [f"n{i}" for i in range(31)]
    topology = {
        "name": "chain", "nodes": [{"name": n} for n in nodes],
        "links": [{"a": a, "b": b, "length_km": 1} for a, b in pairwise(nodes)],
        "saes": [{"name": "x", "node": nodes[0]}, {"name": "y", "node": nodes[1]}],
    }  # fmt: skip
    (tmp_path / "chain.json").write_text(json.dumps(topology))
    processors = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(processors)})
        done = finished("--topology", tmp_path / "chain.json", "--run-dir", tmp_path, "--duration", 1, "--no-cli")
    finally:
        os.sched_setaffinity(0, processors)

    told, refused = done.stderr.splitlines()
    assert "31 nodes may be too many for this machine (processors: 1), on which 30 are known to come up" in told
    assert "holds other files" in refused


def test_without_root():
    """Says how to get it. The testbed lies where everybody may read it, or the checkout's place forbids this test."""
    nobody = pwd.getpwnam("nobody")
    readable = subprocess.run(
        [PYTHON, "-c", ""], user=nobody.pw_uid, group=nobody.pw_gid, check=False, capture_output=True
    )
    if readable.returncode:  # the checkout lies where only root may read: change user after the start
        done = in_python("import os; os.setuid(65534); from testbed.__main__ import main; raise SystemExit(main([]))")
    else:
        done = finished(user=nobody.pw_uid, group=nobody.pw_gid)
    assert_refused(done, "needs root.*sudo python testbed/run.py")


def test_missing_tool(tmp_path):
    """Named with its Debian package."""
    for program in ("mnexec", "ip", "tc", "ifconfig", "ethtool", "ping", "setpriv", "unshare", "ovsdb-tool"):
        (tmp_path / program).symlink_to(shutil.which(program))
    script = (
        "import testbed.machine.tools as t; t._SYSTEM_FOLDERS = ()\n"
        "from testbed.__main__ import main; raise SystemExit(main(['--duration', '1', '--no-cli']))"
    )
    done = in_python(script, env={**os.environ, "PATH": str(tmp_path)})

    assert_refused(done, "cannot find ovs-vsctl, ovs-vswitchd, ovsdb-server.*openvswitch-switch")


def test_postgresql_that_does_not_start(tmp_path):
    """Its own last words, and nothing left running."""
    machine = Machine()
    (tmp_path / "15" / "bin").mkdir(parents=True)
    for program, body in (("initdb", "mkdir -p data"), ("postgres", "echo 'FATAL: out of luck' >&2; exit 1")):
        path = tmp_path / "15" / "bin" / program
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != folder.parent and "pytest" in str(folder):
            folder.chmod(0o755)
    options = ["--topology", "pair", "--duration", "1", "--no-cli", "--run-dir", str(tmp_path / "run")]
    done = in_python(
        f"import testbed.database.postgres as c, pathlib; c._VERSIONS = pathlib.Path({str(tmp_path)!r})\n"
        f"from testbed.__main__ import main; raise SystemExit(main({options!r}))"
    )

    assert_refused(done, "PostgreSQL ended at once: FATAL: out of luck")
    assert not machine.left_behind(tmp_path / "run")
