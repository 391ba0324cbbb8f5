"""PoliQI with its controller on Ryu 4.34: the same promises as on os-ken, kept by another framework."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.test_poliqi import cut_by_mininet, get_key, get_key_with_id, open_session
from tests.support.processes import commands
from tests.support.running import Running

pytestmark = pytest.mark.ryu


@pytest.fixture(scope="module")
def ryu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """PoliQI, up, with QCs of ten times the usual rate, so that no test waits for material."""
    running = Running(tmp_path_factory.mktemp("ryu") / "run", "--framework", "ryu", "--qc-rate", "330-470")
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


def controller(run: Running) -> list[str]:
    """The command line of the controller's process."""
    (words,) = (words for words in commands().values() if str(run.directory / "config/controller.json") in words)
    return words


def test_controller_runs_on_ryu_and_has_no_os_ken(ryu):
    """Its own status says so, and in the environment of its process there is nothing else to run on."""
    url = f"https://{ryu.config('controller')['host']}:{ryu.config('controller')['port']}/qkd/v1/status"
    status = ryu.call("ctl", "GET", url, "operator:operator", "controller:ctl", "null")[0]["body"]
    python = controller(ryu)[0]
    done = subprocess.run([python, "-P", "-c", "import ryu, os_ken"], capture_output=True, text=True, check=False)

    assert status["framework"] == "ryu 4.34"
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'os_ken'"


@pytest.mark.parametrize(("slave_node", "hops"), [("military", 1), ("telecom", 2)])
def test_both_applications_get_the_same_key(ryu, slave_node, hops):
    """Admission, path and configuration of nodes come from the controller; over one hop and over a trusted relay."""
    master, slave, found = open_session(ryu, "government", slave_node)

    key = get_key(ryu, "government", master, slave)
    same = get_key_with_id(ryu, slave_node, slave, master, key["key_ID"])

    assert found == hops
    assert same == {"status": 200, "body": {"keys": [key]}}


def test_cut_link_sends_classical_traffic_the_other_way_round_and_keys_go_on(ryu):
    """`link s1 s2 down`: the flows of all switches lead around; a new session between the two gets keys."""
    with cut_by_mininet(ryu):
        master, slave, _ = open_session(ryu, "government", "military")
        key = get_key(ryu, "government", master, slave)
        same = get_key_with_id(ryu, "military", slave, master, key["key_ID"])

    assert same == {"status": 200, "body": {"keys": [key]}}


def test_run_ends_well_and_its_summary_names_ryu(ryu):
    """The last test here: status 0, nothing died, no error in the controller's log."""
    assert ryu.exit() == 0, ryu.text

    versions = json.loads((ryu.directory / "summary.json").read_text())["versions"]
    assert versions["ryu"] == "4.34"
    assert "os-ken" not in versions
    assert "Traceback" not in (ryu.directory / "logs" / "controller.log").read_text()
