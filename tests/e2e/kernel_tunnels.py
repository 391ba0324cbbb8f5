"""For a machine whose kernel has ESP and no WireGuard, as in user-mode Linux: what carries tunnels. See tests/uml."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from testbed import Testbed
from tests.support.running import Running, kill
from tests.support.tunnels import ends, joined, lost, reaches, states
from tests.support.waiting import until

EVERY_S = 5.0  # on one slow CPU
NODES = ("alice", "bob")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two nodes."""
    run = Running(tmp_path_factory.mktemp("tunnels") / "run", "--topology", "pair", "--no-dashboard")
    try:
        run.wait_up()
        yield run
    finally:
        run.stop()


@pytest.fixture
def net(pair: Running) -> Iterator[Testbed]:
    """The network, joined; as it was afterwards."""
    with joined(pair) as net:
        yield net


def shown(run: Running, host: str, *command: str) -> str:
    """What a command prints on that host."""
    return subprocess.run(run.on(host, *command), capture_output=True, text=True, check=True).stdout


def data_paths(net: Testbed) -> set[str]:
    """What carries packets, as all ends say."""
    return {end["data_path"] for end in ends(net)}


def test_ipsec_goes_by_the_kernels_esp_while_keys_change(pair, net):
    """As the tunnel's status says, and as the kernel does, with no TUN device beside it."""
    opened = net.open_tunnel(*NODES, kind="ipsec", every_s=EVERY_S)
    reaches(pair, "alice", opened["to"])
    until(lambda: min(end["keys"] for end in ends(net)) >= 3)
    reaches(pair, "bob", opened["from"])

    assert data_paths(net) == {"kernel ESP"}
    for host in NODES:
        assert "rfc4106(gcm(aes))" in shown(pair, host, "ip", "xfrm", "state")
        assert "ipsec0" not in shown(pair, host, "ip", "-brief", "link")
    assert max(end["received_bytes"] for end in ends(net)) > 0


def test_nothing_of_ipsec_stays_in_the_kernel_when_a_tunnel_ends(pair, net):
    """Neither a key, nor a policy, nor a route."""
    net.open_tunnel(*NODES, kind="ipsec", every_s=EVERY_S)
    net.end_tunnel(*NODES)

    for host in NODES:
        assert shown(pair, host, "ip", "xfrm", "state") == ""
        assert shown(pair, host, "ip", "xfrm", "policy", "list", "nosock") == ""  # charon's sockets have one each
        assert "table 220" not in shown(pair, host, "ip", "route", "show", "table", "all")


def test_no_packet_goes_in_the_clear_where_a_policy_of_charons_is_gone(pair, net):
    """And its route is not, as when one end has heard of the tunnel's end and the other one has not."""
    opened = net.open_tunnel(*NODES, kind="ipsec", every_s=60)
    addresses = [f"{opened[end]}/32" for end in ("from", "to")]
    shown(pair, "alice", "ip", "xfrm", "policy", "deleteall", "src", addresses[0], "dst", addresses[1])
    assert "table 220" in shown(pair, "alice", "ip", "route", "get", opened["to"])

    ping = pair.on("alice", "ping", "-c", "2", "-i", "0.2", "-W", "1", opened["to"])
    done = subprocess.run(ping, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert done.stderr.strip().endswith("Operation not permitted")


def test_end_whose_charon_was_killed_closes_all_the_same(pair, net):
    """The kernel would go on under the old key for ever: the gateway takes it away, when it has lapsed."""
    opened = net.open_tunnel(*NODES, kind="ipsec", every_s=EVERY_S)
    for qc in net.qcs().index:
        net.set_generation(qc, enabled=False)
    assert kill("gateways/alice/charon")

    until(lambda: states(net) == {"closed"})

    assert "rfc4106" not in shown(pair, "alice", "ip", "xfrm", "state")
    assert lost(pair, "alice", opened["to"], 3) == 3
    for qc in net.qcs().index:
        net.set_generation(qc, enabled=True)
    until(lambda: states(net) == {"up"})
    reaches(pair, "alice", opened["to"])


def test_wireguard_goes_by_a_program_where_the_kernel_has_none(pair, net):
    """As the tunnel's status says; while keys change."""
    opened = net.open_tunnel(*NODES, kind="wireguard", every_s=EVERY_S)
    reaches(pair, "alice", opened["to"])
    until(lambda: min(end["keys"] for end in ends(net)) >= 3)
    reaches(pair, "bob", opened["from"])

    assert data_paths(net) == {"wireguard-go"}
