"""The live view's web server, which has a thread of its own in run.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from testbed.evidence.summary import bugs_told

SCRIPT = """
import pathlib, socket, sys
from types import SimpleNamespace
from testbed.dashboard.server import _Server
from testbed.stages.prepare import log_to

path = pathlib.Path(sys.argv[1])
log_to(path / "logs" / "run.log")
plan = SimpleNamespace(topology=SimpleNamespace(name="n"))
listener = socket.create_server(("127.0.0.1", 0))
server = _Server(listener, SimpleNamespace(run=SimpleNamespace(path=path), plan=plan), None, None)
{fault}
server.start()
server._thread.join(20)
print("lives on")
"""
FAULTS = {"its socket is gone": "listener.close()", "it does not come up": "server._uvicorn.should_exit = True"}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_live_view_that_dies_is_told_of_where_the_summary_looks_and_the_run_goes_on(tmp_path, fault):
    """By an exception or, as uvicorn does, by its return. run.py has a network to take down, and ends with status 1."""
    (tmp_path / "logs").mkdir()
    command = [sys.executable, "-c", SCRIPT.format(fault=fault), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "lives on\n"
    assert any("thread dashboard: a bug of ours" in told for told in bugs_told(tmp_path / "logs"))
