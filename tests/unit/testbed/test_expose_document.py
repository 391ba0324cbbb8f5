"""What a run publishes on the machine, and what it says about it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mtls.credentials import Credentials
from scenario.topology import load
from testbed.errors import UserError
from testbed.network import expose
from testbed.operation.operator import describe
from testbed.operation.words import described
from testbed.planning.make import make_plan
from testbed.planning.plan import OPERATOR

PAIR = make_plan(load("pair", Path(__file__).resolve().parents[3] / "topologies"))
FILES = {
    identity: Credentials(Path(f"/run/{name}.pem"), Path(f"/run/{name}.key"), Path("/run/ca.pem"))
    for identity, _, name in PAIR.identities()
}
BOUND = [5001, 5002, 5003, 5004, 5005, 5006, 5007]


def document():
    return expose.document(PAIR, BOUND, FILES, ca_key=Path("/run/ca.key"))


def test_fixed_ports_follow_the_documented_order():
    """Controller first, then KME and agent of each node, as in the topology, then GS QKD 004 of each."""
    routes = expose.routes(PAIR, 9440, outside="/out", inside=lambda host: f"/in/{host}")

    assert [r["listen"] for r in routes] == [["/out", "127.0.0.1", port] for port in range(9440, 9447)]
    assert [r["connect"] for r in routes] == [
        ["/in/ctl", "10.1.0.1", 8445],
        ["/in/alice", "10.0.0.1", 8443], ["/in/alice", "10.0.0.1", 8444],
        ["/in/bob", "10.0.0.2", 8443], ["/in/bob", "10.0.0.2", 8444],
        ["/in/alice", "10.0.0.1", 8445], ["/in/bob", "10.0.0.2", 8445],
    ]  # fmt: skip


def test_without_a_port_any_will_do():
    """Every server listens on port 0, for the kernel to choose."""
    assert set(expose.ports(PAIR, expose.ANY_PORT)) == {0}


def test_ports_beyond_the_last_are_refused():
    """With the highest first port that would do."""
    assert expose.ports(PAIR, 65529)[-1] == 65535
    with pytest.raises(UserError, match="--expose 65530: expected at most 65529"):
        expose.ports(PAIR, 65530)


def test_port_in_use_is_named():
    """With what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1:{port} \(.* in use\): choose another"):
            expose.check_ports(PAIR, port)


def described_text(*of):
    """As it is printed."""
    return described(describe(*of))


def test_document_has_a_url_for_every_server():
    """Nodes by name."""
    found = document()

    assert found["controller"] == "https://127.0.0.1:5001"
    assert found["kmes"] == {"alice": "https://127.0.0.1:5002", "bob": "https://127.0.0.1:5004"}
    assert found["agents"] == {"alice": "https://127.0.0.1:5003", "bob": "https://127.0.0.1:5005"}
    assert found["streams"] == {"alice": "tls://127.0.0.1:5006", "bob": "tls://127.0.0.1:5007"}


def test_document_says_where_certificates_and_keys_lie():
    """Of the CA, the operator, and every SAE, ours and external ones."""
    found = document()

    assert (found["ca"], found["ca_key"]) == ("/run/ca.pem", "/run/ca.key")
    assert found["operator"] == {"cert": "/run/operator.pem", "key": "/run/operator.key"}
    assert found["saes"] == {
        s.name: {"id": s.id, "node": s.node, "cert": f"/run/{s.name}.pem", "key": f"/run/{s.name}.key"}
        for s in PAIR.saes
    }


def test_sae_is_described_by_name_and_by_id():
    """Its ID and node, its files, and its KME's URL: in the emulated network, and on the machine if there is one."""
    sae = PAIR.sae("bob-mail")
    inside = described_text(PAIR, "bob-mail", FILES.__getitem__, None)

    assert inside == described_text(PAIR, sae.id, FILES.__getitem__, None)
    assert inside.splitlines() == [
        "SAE          bob-mail",
        f"SAE ID       {sae.id}",
        "node         bob",
        "certificate  /run/bob-mail.pem",
        "key          /run/bob-mail.key",
        "CA           /run/ca.pem",
        "KME          https://10.0.0.2:8443 (in the emulated network)",
    ]
    outside = described_text(PAIR, "bob-mail", FILES.__getitem__, document())
    assert outside == inside + "KME          https://127.0.0.1:5004 (on this machine)\n"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("alice", "agent        https://127.0.0.1:5003 (on this machine)"),
        (OPERATOR.name, "controller   https://127.0.0.1:5001 (on this machine)"),
    ],
)
def test_nodes_and_the_operator_are_described_too(name, line):
    """With what they serve or call."""
    text = described_text(PAIR, name, FILES.__getitem__, document()).splitlines()

    assert f"certificate  /run/{name}.pem" in text
    assert line in text


def test_nobody_of_that_name_is_nothing():
    """For the caller to say so."""
    assert described_text(PAIR, "carol", FILES.__getitem__, None) == ""
