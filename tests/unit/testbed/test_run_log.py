"""The log of run.py itself."""

from __future__ import annotations

import subprocess
import sys

from testbed.evidence.summary import bugs_told


def test_bug_in_any_thread_of_run_py_is_in_its_log_and_not_on_the_terminal(tmp_path):
    """There the summary finds it."""
    script = (
        "import pathlib, sys, threading\nfrom testbed.stages.prepare import log_to\n"
        "log_to(pathlib.Path(sys.argv[1]))\n"
        "thread = threading.Thread(target=lambda: 1 // 0, name='page')\nthread.start()\nthread.join()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run.log")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("", "")
    assert "thread page: a bug of ours" in bugs_told(tmp_path)[0]
