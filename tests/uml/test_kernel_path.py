"""The path that most users take, by netem, the kernel's Open vSwitch and its ESP: end-to-end tests in user-mode Linux.

Three of them, on one PoliQI, and those of tunnels, on a pair of nodes; the suite has their short form (test_vm.py).
`make test-uml` runs those of a healthy network and of its fibres, `make test-uml SUITE=tests/e2e` runs all, for as long
as that takes on one slow CPU.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from testbed.virtual_machine.user_mode_linux import Machine
from tests.support.running import PYTHON, ROOT

SUITES = {
    "network": os.environ.get("QKD_UML_SUITE", "tests/e2e/kernel_path.py").split(),
    "tunnels": ["tests/e2e/kernel_tunnels.py"],
}
LIMIT_S = float(os.environ.get("QKD_UML_LIMIT_S", "900"))
PATIENCE = 10  # times the usual one, for everything that is waited for


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("suite", SUITES)
def test_end_to_end_tests_pass_with_what_this_kernel_has(tmp_path: Path, suite: str):
    """All of them, and none is skipped. What they print is shown if they fail."""
    junit, log = tmp_path / "result.xml", tmp_path / "log"
    # In a folder of the machine's own: those of other tests on the host can be seen in there, and change meanwhile.
    options = ["-p", "no:cacheprovider", "-o", "timeout=0", "--basetemp=/run/pytest", f"--junitxml={junit}"]
    command = [PYTHON, "-m", "pytest", *options, *SUITES[suite]]
    script = f"cd {shlex.quote(str(ROOT))}\nQKD_PATIENCE={PATIENCE} {shlex.join(map(str, command))}\n"

    with log.open("wb") as out, Machine(script, tmp_path, stdin=None, stdout=out.fileno()) as machine:
        status = machine.wait(LIMIT_S)

    assert status == 0, log.read_text(errors="replace")[-8000:]
    (result,) = ElementTree.parse(junit).getroot()  # noqa: S314 - our own file
    counts = {name: int(result.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    assert counts["tests"] >= 3
    assert {counts["failures"], counts["errors"], counts["skipped"]} == {0}
