"""How processes end, in words."""

from __future__ import annotations

import pytest

from testbed.processes import how_it_ended


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit status 0, which nobody asked for"),
        (70, "exit status 70"),
        (-9, "killed by SIGKILL, by somebody or by the kernel for want of memory"),
        (-11, "killed by SIGSEGV"),
    ],
)
def test_end_of_a_process_has_a_cause(status, words):
    """Also where its log is empty."""
    assert how_it_ended(status) == words
