"""What `--expose` publishes, for how long, and that nothing is published without it."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from mtls.call import Caller, Reply
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from testbed.machine.leftovers import Machine
from tests.support.running import Running, finished

NODES = ("government", "military", "telecom", "finance", "university")


def document(run: Running) -> dict:
    """Its expose.json."""
    return json.loads((run.directory / "expose.json").read_text())


def call(run: Running, files: dict[str, str], url: str, to: Identity) -> Reply:
    """GET with the certificate and key in `files`, and the CA of expose.json."""
    caller = Caller(Credentials(Path(files["cert"]), Path(files["key"]), Path(document(run)["ca"])))
    try:
        return caller.request("GET", url, to=to)
    finally:
        caller.close()


def test_controller_answers_the_operator(exposed):
    """At the URL in expose.json, with the certificates in it."""
    found = document(exposed)
    reply = call(exposed, found["operator"], f"{found['controller']}/qkd/v1/status", Identity(Role.CONTROLLER, "ctl"))

    assert reply.ok
    assert set(reply.body["nodes"]) == set(NODES)


@pytest.mark.parametrize("node", NODES)
def test_agent_answers_the_operator(exposed, node):
    """Each at its own URL."""
    found = document(exposed)
    url = f"{found['agents'][node]}/qkd/v1/status"

    assert call(exposed, found["operator"], url, Identity(Role.NODE, node)).ok


@pytest.mark.parametrize("node", NODES)
def test_kme_answers_its_saes(exposed, node):
    """Those that the testbed runs, and external ones."""
    found = document(exposed)
    far = next(sae for sae in found["saes"].values() if sae["node"] != node)
    url = f"{found['kmes'][node]}/api/v1/keys/{far['id']}/status"
    at_home = [sae for sae in found["saes"].values() if sae["node"] == node]

    replies = [call(exposed, sae, url, Identity(Role.NODE, node)) for sae in at_home]
    assert len(replies) >= 3
    assert [(r.status, r.body["master_SAE_ID"]) for r in replies] == [(200, sae["id"]) for sae in at_home]


def test_paths_are_absolute_and_lead_to_files(exposed):
    """CA, its key, and certificate and key of all parties that have one."""
    found = document(exposed)
    parties = [found["operator"], *found["saes"].values()]
    paths = [Path(p) for p in (found["ca"], found["ca_key"], *(party[f] for party in parties for f in ("cert", "key")))]

    assert len(found["saes"]) == 18
    assert all(path.is_absolute() and path.is_file() for path in paths)
    assert {path.name for path in paths} >= {"sae-alice.pem", "sae-alice.key", "ca.pem"}


def test_document_is_private(exposed):
    """It says where keys lie."""
    assert (exposed.directory / "expose.json").stat().st_mode & 0o777 == 0o600


def test_only_loopback_is_listened_at(exposed):
    """Sixteen consecutive ports from the one that was asked for."""
    first = int(document(exposed)["controller"].rpartition(":")[2])

    assert Machine.listening(exposed.directory) == [("127.0.0.1", port) for port in range(first, first + 16)]


def test_cli_says_that_the_run_is_exposed(exposed):
    """`qkd status` names the file, `qkd cert` the files of a party and the URLs to call."""
    found = document(exposed)
    exposed.cli("qkd status")
    exposed.wait_for(rf"exposed +on 127.0.0.1.*{exposed.directory}/expose.json")
    exposed.cli("qkd cert a11ce000-0000-4000-8000-000000000001")
    exposed.wait_for(rf"SAE +alice.*\nSAE ID +a11ce.*\nnode +government\ncertificate +{exposed.directory}/pki/sae-al")
    exposed.wait_for(rf"KME +https://10.0.0.1:8443.*\nKME +{found['kmes']['government']}")
    exposed.cli("qkd cert dave")
    exposed.wait_for("no application or node 'dave'")


def test_cli_opens_no_session_for_software_that_it_does_not_run(exposed):
    """And says whose business it is."""
    exposed.cli("qkd open alice mobile-core")
    exposed.wait_for("alice runs outside the testbed")
    exposed.cli("qkd saes")
    exposed.wait_for(r"(?m)alice +government +a11ce000-\S+ +outside$")


def test_cli_ends_a_session_of_external_saes(exposed):
    """One that a request for keys has opened; its master has nobody here who could end it in order."""
    found = document(exposed)
    alice, carol = found["saes"]["alice"], found["saes"]["carol"]
    url = f"{found['kmes']['government']}/api/v1/keys/{carol['id']}/status"
    assert call(exposed, alice, url, Identity(Role.NODE, "government")).ok
    exposed.cli("qkd sessions")
    text = exposed.wait_for(r"alice +carol +open")
    ksid = re.findall(r"^([0-9a-f-]{36}) +alice +carol +open", text, re.M)[-1]

    exposed.cli(f"qkd close {ksid}")
    exposed.wait_for(r"\bclosed\n")

    exposed.cli(f"qkd close {ksid}")
    exposed.wait_for(f"no key session '{ksid}'")


def test_without_the_option_nothing_is_published(poliqi):
    """No port of the machine, and no file."""
    assert Machine.listening(poliqi.directory) == []
    assert not (poliqi.directory / "expose.json").exists()


def test_free_ports_are_found_and_everything_is_gone_after_the_run(tmp_path):
    """Without a port any will do; with the run its ports and its file end."""
    run = Running(tmp_path / "run", "--topology", "pair", "--expose", "--no-dashboard")
    try:
        run.wait_up()
        ports = [port for _, port in Machine.listening(run.directory)]
        found = document(run)
        urls = [found["controller"], *(url for kind in ("kmes", "agents", "streams") for url in found[kind].values())]
        assert sorted(int(url.rpartition(":")[2]) for url in urls) == ports
        assert len(ports) == 7

        assert run.exit() == 0, run.text
        assert not (run.directory / "expose.json").exists()
        for port in ports:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
    finally:
        run.stop()


def test_port_in_use_ends_the_run_before_it_begins(tmp_path):
    """One line that names the port, exit status 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = finished("--topology", "pair", "--expose", port, "--run-dir", tmp_path / "r")

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"run.py: --expose {port}: cannot listen on 127.0.0.1:{port} (Address already in use): choose another"
    ]
    assert not os.path.lexists(tmp_path / "r")


@pytest.mark.parametrize("port", ["0", "65536", "https"])
def test_port_of_the_wrong_form(port):
    """argparse names the option and what was expected."""
    done = finished("--expose", port)

    assert done.returncode == 2
    assert "--expose: expected a port from 1 to 65535" in done.stderr.splitlines()[-1]
