"""What programs do whose reader has seen enough, or whose user has."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def told() -> Iterator[subprocess.Popen[bytes]]:
    """Tells a storm, more of it than a pipe holds, and has told its first line."""
    # A shell has its children ignore SIGINT behind `&`, and tests may run so.
    command = [sys.executable, "-P", "-m", "testbed.storm", "--dry-run", "--faults", "5000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"seed 1")
        yield process


def test_reader_that_has_seen_enough_ends_the_program_without_a_word(told):
    """As `| head` does."""
    told.stdout.close()

    assert (told.wait(60), told.stderr.read()) == (-signal.SIGPIPE, b"")


def test_ctrl_c_ends_the_program_without_a_traceback(told):
    """With the status that a shell expects."""
    told.send_signal(signal.SIGINT)
    _, said = told.communicate(timeout=60)

    assert (told.returncode, said) == (130, b"")
