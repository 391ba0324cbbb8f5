"""A run in the background, operated from other terminals and from Python."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import Testbed
from testbed.errors import UserError
from tests.support.running import ROOT, command, finished
from tests.support.waiting import GIVES_UP_S, until


def qkd(run: Path, *typed: str) -> subprocess.CompletedProcess[str]:
    """What that prints."""
    return subprocess.run([ROOT / "qkd", "--run", run, *typed], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    """A pair of nodes, started with --detach, as sudo starts it for nobody. Not in a folder of pytest's: all of its own
    are closed to others.
    """
    with tempfile.TemporaryDirectory(prefix="qkd-test-") as folder:
        Path(folder).chmod(0o755)
        yield from _detached(Path(folder) / "run")


def _detached(path: Path) -> Iterator[Path]:
    nobody = pwd.getpwnam("nobody").pw_uid
    options = ("--detach", "--topology", "pair", "--qc-rate", "300-400", "--run-dir", path)
    started = subprocess.run(
        command(*options), capture_output=True, text=True, check=False, env={**os.environ, "SUDO_UID": str(nobody)},
        stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert started.returncode == 0, started.stdout + started.stderr
    assert f"'./qkd --run {path} status' asks it" in started.stdout
    yield path
    if (path / "operator.sock").exists():
        qkd(path, "stop")
        until((path / "summary.json").exists)


def test_every_word_works_from_another_terminal(run):
    assert "all alive" in qkd(run, "status").stdout
    assert json.loads(qkd(run, "status", "--json").stdout)["topology"] == "pair"
    opened = qkd(run, "open", "alice-mail", "bob-mail")
    assert "open: KSID" in opened.stdout, opened
    assert "alice-mail" in qkd(run, "sessions").stdout
    assert "is the same at alice-mail and bob-mail" in qkd(run, "key", "alice-mail", "bob-mail").stdout
    assert "closed" in qkd(run, "close", "alice-mail", "bob-mail").stdout
    assert "20.000" in qkd(run, "fibre", "alice", "->", "bob", "delay", "20ms").stdout
    assert "alice-bob" in qkd(run, "fibre", "alice", "bob", "reset").stdout


def test_what_is_not_done_is_said_on_standard_error_with_status_1(run):
    done = qkd(run, "open", "alice-mail", "nobody-there")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no application 'nobody-there': 'qkd saes' lists them\n"
    assert qkd(run, "statsu").stderr.startswith("no word 'statsu'")


def test_tab_key_completes_names_of_this_run(run):
    assert qkd(run, "complete", "--", "open", "bob-m").stdout.split() == ["bob-mail"]
    assert qkd(run, "complete", "--", "s").stdout.split() == ["saes", "sessions", "set", "status", "stop", "story"]
    names = ["key_delivered", "key_failed", "key_not_fetched"]
    assert qkd(run, "complete", "--", "events", "key").stdout.split() == names
    assert qkd(run, "complete", "--", "status", "--j").stdout.split() == ["--json"]


def test_user_who_started_it_may_operate_it_and_others_may_not(run):
    ask = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        " s.sendall(b'{\"do\": \"names\"}\\n'); print(s.makefile().readline())"
    )

    def as_user(name: str) -> subprocess.CompletedProcess[str]:
        user = ["setpriv", f"--reuid={pwd.getpwnam(name).pw_uid}", "--clear-groups", "--"]
        command = [*user, "/usr/bin/python3", "-c", ask, run / "operator.sock"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "alice-bob/1" in as_user("nobody").stdout
    assert "PermissionError" in as_user("daemon").stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"do": "fly"}, "do: expected one of status, names,"),
        ({"do": "follow", "arguments": {"names": "fault"}}, "names: expected an array"),
        ({"do": "names", "arguments": {"self": 1}}, "arguments of names: expected none"),
    ],
)
def test_request_that_there_is_not_is_no_bug_of_ours(run, line, said):
    """Whoever writes to the socket by hand is told what there is, and the run's summary knows of no bug."""
    with socket.socket(socket.AF_UNIX) as stranger, stranger.makefile("rb") as answers:
        stranger.connect(str(run / "operator.sock"))
        stranger.sendall(json.dumps({"id": 1, **line}).encode() + b"\n")
        assert json.loads(answers.readline())["error"].startswith(said)
    assert "bug of ours" not in (run / "logs" / "run.log").read_text()


def test_python_drives_a_run_that_is_there_already(run):
    with Testbed.attach(run) as net:
        assert net.status()["topology"] == "pair"
        with net.events("session_opened", "key_delivered") as events:
            session = net.open("alice-mail", "bob-mail", interval_s=1, duration_s=60)
            assert events.next(ksid=session.ksid)["path"] == ["alice", "bob"]
            delivered = events.next(event="key_delivered")
        (key,) = net.get_key("alice-mail", "bob-mail", size=256)
        assert net.get_key_with_ids("alice-mail", "bob-mail", [key.key_id]) == [key]
        assert key.value.hex() not in repr(key)
        assert len(key.value) == 32
        assert session.ksid in net.sessions().index
        assert set(delivered["key_ids"]) <= {one for ids in net.deliveries()["key_ids"] for one in ids}
        assert net.summary()["keys"]["single_hop"] > 0
        assert "<svg" in net.story(delivered["key_ids"][0])._repr_svg_()
        assert net.wait_until(lambda net: net.stored().min() > 1000)
        net.end(session)
        assert session.ksid not in net.sessions().index
        late = net.deliveries(since=4e9)
        assert late.groupby("hops")["duration_ms"].median().empty  # and no error, as of a table without columns
        assert net.errors(since=4e9)["cause"].empty
        assert net.refusals()["message"].empty


def test_python_breaks_and_heals_and_hears_of_it(run):
    with Testbed.attach(run) as net, net.events("fault", "healed", "key_failed") as events:
        with net.broken("qc", "alice", "bob"):
            assert events.next()["event"] == "fault"
            with pytest.raises(UserError, match="is broken already"):
                net.fault("qc", "alice", "bob")
        assert events.next(event="healed")["kind"] == "qc"
        net.set(mode="qkp")
        assert net.status()["controller"]["parameters"]["mode"] == "qkp"


def test_of_two_who_change_the_same_thing_at_once_one_is_told_that_it_was_done(run):
    """And neither is held up. Of two values that are set one counts, everywhere."""
    with Testbed.attach(run) as one, Testbed.attach(run) as other, ThreadPoolExecutor(2) as pool:

        def at_once(do: Callable[[Testbed], object]) -> list[str]:
            """What the two were told, "" of whom it was done for."""
            asked = [pool.submit(do, net) for net in (one, other)]
            errors = [each.exception(GIVES_UP_S) for each in asked]
            assert all(error is None or isinstance(error, UserError) for error in errors)
            return sorted(str(error or "") for error in errors)

        assert at_once(lambda net: net.fault("qc", "alice", "bob")) == ["", "qc alice bob is broken already"]
        told = at_once(lambda net: net.heal("qc", "alice", "bob"))
        assert told == ["", "qc alice bob is not broken: 'qkd fault' lists what is"]
        session = one.open("alice-vault", "bob-vault")
        assert "" in at_once(lambda net: net.end(session))
        assert at_once(lambda net: net.set(mode="otp" if net is one else "basic")) == ["", ""]
        assert one.status()["controller"]["parameters"]["mode"] in ("otp", "basic")


def test_map_shows_every_datacenter(run):
    with Testbed.attach(run) as net:
        texts = [text.get_text() for text in net.draw().axes[0].texts]

    assert len(texts) == 3


def test_run_that_is_stopped_ends_in_order(run):
    """With a summary, and nothing left; who asks then is told."""
    assert qkd(run, "stop").returncode == 0

    assert until((run / "summary.json").exists)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["audit"]["verdict"] == "clean"
    assert "taking everything down" in (run / "logs" / "output.log").read_text()
    done = qkd(run, "status")
    assert (done.returncode, done.stderr) == (2, f"the run in {run} has ended, or is not up yet\n")


def test_python_starts_a_network_and_ends_it(tmp_path):
    """As a script does. A start that fails says why."""
    with Testbed("pair", run_dir=tmp_path / "run", qc_rate="300-400", no_dashboard=True) as net:
        net.open("alice-mail", "bob-mail")
        assert net.run_dir == tmp_path / "run"

    assert json.loads((tmp_path / "run" / "summary.json").read_text())["died"] == []
    with pytest.raises(UserError, match="nowhere"), Testbed("nowhere"):
        pass


def test_detached_start_that_fails_has_its_own_status(tmp_path):
    done = finished("--detach", "--topology", "pair", "--qc-rate", "nonsense", "--run-dir", tmp_path / "run")

    assert done.returncode == 2
    assert "nonsense" in done.stdout + done.stderr
