"""Processes of a run: how they are told things, and how they end, in words."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from telemetry import journal
from testbed.machine.open_vswitch import OpenVSwitch
from testbed.machine.processes import Processes, ProcessFailed, how_it_ended, run_tool
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit status 0, which nobody asked for"),
        (70, "exit status 70"),
        (-9, "killed by SIGKILL, by somebody or by the kernel for want of memory"),
        (-11, "killed by SIGSEGV"),
        (-50, "killed by signal 50"),
    ],
)
def test_end_of_a_process_has_a_cause(status, words):
    """Also where its log is empty."""
    assert how_it_ended(status) == words


def test_of_a_log_that_has_no_room_in_memory_the_end_is_told_in_printable_words(tmp_path):
    """What another machine sends comes to a log, too: it may be long, and hold what a terminal obeys."""
    process = Processes(tmp_path).start("one", [sys.executable, "-c", "pass"], says_ready=False)
    until(lambda: not process.alive())
    with (tmp_path / "one.log").open("wb") as log:
        log.truncate(1 << 40)  # a hole
        log.seek(0, os.SEEK_END)
        log.write(b"\nfirst\n\x1b[2Jsecond\nlast words\n")

    assert process.end_of_log() == "first / [2Jsecond / last words"


def test_tool_that_fails_without_a_word_fails_with_a_cause(tmp_path, monkeypatch):
    """That is all that there is to say then."""
    tool = tmp_path / "ovsdb-tool"
    tool.write_text("#!/bin/sh\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("OVS_RUNDIR", "")  # which is set by the start, and here set back

    with pytest.raises(ProcessFailed, match=r"^ovsdb-tool create \S+/conf.db \S+ failed: exit status 3$"):
        OpenVSwitch(tmp_path / "ovs", Processes(tmp_path)).start()


def test_signal_to_a_process_that_is_not_ready_is_sent_once_it_is(tmp_path):
    """It has no handler before, and would die: so did an emulator that started anew when a fault came."""
    gate = tmp_path / "gate"
    program = f"""if True:
        import os, signal, time
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.01)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGTERM])
        print("ready", flush=True)
        signal.sigwait([signal.SIGHUP])"""
    process = Processes(tmp_path).start("one", [sys.executable, "-c", program])

    process.signal(signal.SIGHUP)
    time.sleep(0.1)
    gate.touch()
    process.wait_ready()

    process.stop(10)
    assert process.status == 0, "it heard the signal"


def test_process_that_is_stopped_before_it_is_ready_is_told_to_have_been_killed(tmp_path):
    """It could not say itself that it stopped."""
    processes = Processes(tmp_path)
    processes.start("one", [sys.executable, "-c", "import time; time.sleep(60)"])

    processes.stop()

    assert [e["event"] for e in journal.read(tmp_path / "journal.jsonl")] == ["begun", "killed"]


def test_process_that_ends_as_it_is_asked_to_was_not_killed(tmp_path):
    """It has told of its end itself, in its own journal."""
    processes = Processes(tmp_path)
    program = "from signal import *; pthread_sigmask(0, [SIGTERM]); print('ready', flush=True); sigwait([SIGTERM])"
    processes.start("one", [sys.executable, "-c", program]).wait_ready()

    processes.stop()

    assert [e["event"] for e in journal.read(tmp_path / "journal.jsonl")] == ["begun", "ready"]


def test_process_that_ends_before_it_is_ready_has_failed(tmp_path):
    """The run knows of it, whose journal may not."""
    process = Processes(tmp_path).start("one", [sys.executable, "-c", "raise SystemExit(1)"])

    with pytest.raises(ProcessFailed, match="one ended at once: exit status 1"):
        process.wait_ready()

    process.stop()
    assert [e["event"] for e in journal.read(tmp_path / "journal.jsonl")] == ["begun", "failed"]


def test_tool_that_does_not_end_is_killed_and_named():
    """The switch's own tools wait for its daemon for ever."""
    with pytest.raises(ProcessFailed, match=r"^sleep 600 failed: it had not ended after 0\.1 s$"):
        run_tool("sleep", "600", timeout_s=0.1)
