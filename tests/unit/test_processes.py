"""How processes end, in words."""

from __future__ import annotations

import pytest

from testbed.open_vswitch import OpenVSwitch
from testbed.processes import Processes, ProcessFailed, how_it_ended


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


def test_tool_that_fails_without_a_word_fails_with_a_cause(tmp_path, monkeypatch):
    """That is all that there is to say then."""
    tool = tmp_path / "ovsdb-tool"
    tool.write_text("#!/bin/sh\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("OVS_RUNDIR", "")  # which is set by the start, and here set back

    with pytest.raises(ProcessFailed, match=r"^ovsdb-tool create \S+/conf.db \S+ failed: exit status 3$"):
        OpenVSwitch(tmp_path / "ovs", Processes(tmp_path)).start()
