"""Tunnels keyed by the network: real WireGuard, strongSwan and stunnel, over one hop and two, while keys change."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed import Testbed
from testbed.errors import UserError
from tests.support.processes import commands
from tests.support.running import Running, kill
from tests.support.tunnels import EVERY_S, KINDS, ROW, ends, lost, reaches, states
from tests.support.waiting import until

_PINGS = 80


@pytest.fixture
def run(row: Running) -> Running:
    """The row."""
    return row


def slow(*values: object) -> Any:
    """Parameters with which a test is slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(("far", "delay_ms"), [("b", 0), ("c", 20), slow("b", 20), slow("c", 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_packets_go_through_while_keys_change(run, net, kind, far, delay_ms):
    """All of them, over one hop and over a relay. On a busy machine the next key may be late, so the old one holds."""
    for fibre in net.fibres()["fibre"].unique():
        net.change_fibre(fibre, delay_ms=delay_ms)
    opened = net.open_tunnel("a", far, kind=kind, every_s=EVERY_S, policy="hold")

    assert lost(run, "a", opened["to"], _PINGS) == 0
    reaches(run, far, opened["from"])
    until(lambda: min(end["keys"] for end in ends(net)) >= 3)
    until(lambda: len({end["key_id"] for end in ends(net)}) == 1 and states(net) == {"up"})


@pytest.mark.parametrize("kind", KINDS)
def test_who_taps_the_fibre_sees_nothing_of_what_a_tunnel_carries(run, net, kind):
    """Nor an address that it joins."""
    opened = net.open_tunnel("a", "b", kind=kind, every_s=EVERY_S)
    tcpdump = run.on("a", "tcpdump", "--immediate-mode", "-B", "16384", "-i", "eth0", "-n", "-U", "-w", "-")
    tap = subprocess.Popen(tcpdump, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert tap.stderr
    while b"listening on" not in tap.stderr.readline():
        pass
    pattern = "70616e6f7074696b"
    ping = run.on("a", "ping", "-n", "-c", "20", "-i", "0.05", "-p", pattern, opened["to"])
    subprocess.run(ping, check=True, capture_output=True)
    tap.terminate()
    seen, _ = tap.communicate()

    assert len(seen) > 20 * 100
    assert bytes.fromhex(pattern) not in seen
    assert bytes(map(int, opened["to"].split("."))) not in seen


@pytest.mark.parametrize("kind", [slow("wireguard"), "ipsec"])
def test_tunnel_without_keys_lets_nothing_through_and_comes_back_with_them(run, net, kind):
    """Each end sees to it by itself."""
    opened = net.open_tunnel("a", "b", kind=kind, every_s=EVERY_S)
    for qc in net.qcs().index:
        net.set_generation(qc, enabled=False)

    until(lambda: states(net) == {"closed"})
    assert lost(run, "a", opened["to"], 3) == 3
    assert all(end["problem"] for end in ends(net) if end["leads"])

    for qc in net.qcs().index:
        net.set_generation(qc, enabled=True)
    until(lambda: states(net) == {"up"})
    reaches(run, "a", opened["to"])


def test_tunnel_goes_on_under_the_old_key_if_that_was_wished(run, net):
    """And says so."""
    opened = net.open_tunnel("a", "b", every_s=EVERY_S, policy="hold")
    for qc in net.qcs().index:
        net.set_generation(qc, enabled=False)

    until(lambda: states(net) == {"held"})
    reaches(run, "a", opened["to"])


@pytest.mark.parametrize(
    ("kind", "victim"), [("wireguard", "a"), ("ipsec", "b"), slow("wireguard", "b"), slow("ipsec", "a")]
)
def test_when_a_gateway_dies_the_other_end_closes(run, net, kind, victim):
    """Its daemon dies with it; a tunnel can be opened again."""
    opened = net.open_tunnel("a", "b", kind=kind, every_s=EVERY_S)
    assert kill(f"{run.directory}/config/vpn-{victim}.json")

    until(lambda: states(net) == {"closed", "gone"})
    assert lost(run, "a", opened["to"], 3) == 3
    net.end_tunnel("a", "b")
    reaches(run, "a", net.open_tunnel("a", "b", kind=kind, every_s=EVERY_S)["to"])


@pytest.mark.parametrize("kind", ["wireguard", slow("ipsec")])
def test_tunnel_outlives_a_node_that_is_killed_in_mid_rotation(run, net, kind):
    """The relay, and then the node of an end: without keys it closes, and with the next one it is up again."""
    opened = net.open_tunnel("a", "c", kind=kind, every_s=EVERY_S)
    for node in ("b", "c"):
        until(lambda: states(net) == {"up"})
        with net.broken("node", node):
            until(lambda: states(net) == {"closed"})
            assert lost(run, "a", opened["to"], 3) == 3
        until(lambda: states(net) == {"up"})
        until(lambda: len({end["key_id"] for end in ends(net)}) == 1)

    reaches(run, "a", opened["to"])


@pytest.mark.parametrize(("kind", "shows"), [("wireguard", b"\x04\x00\x00\x00"), ("ipsec", b"\x11\x94\x11\x94")])
def test_capture_of_a_fibre_holds_a_tunnels_packets_and_nothing_of_what_it_carries(run, net, kind, shows):
    """Data messages of WireGuard begin with a 4 and three zeros; ESP goes from port 4500 to port 4500."""
    opened = net.open_tunnel("a", "b", kind=kind, every_s=60)
    run.say("qkd capture a b", "capturing into .*a-b.pcap")
    pcap, pattern = run.directory / "captures" / "a-b.pcap", "70616e6f7074696b"
    ping = run.on("a", "ping", "-n", "-c", "20", "-i", "0.05", "-p", pattern, opened["to"])
    answered = re.search(r"(\d+) received", subprocess.run(ping, check=True, capture_output=True, text=True).stdout)
    run.say("qkd capture a b off", "captured: .*a-b.pcap")
    seen = pcap.read_bytes()
    pcap.unlink()

    assert answered
    assert seen.count(shows) >= 2 * int(answered[1]), "a busy machine may lose some before they come to the fibre"
    assert bytes.fromhex(pattern) not in seen
    assert bytes(map(int, opened["to"].split("."))) not in seen


def test_wireguard_never_has_a_peer_without_a_key(run, net):
    """At either end, while keys change."""
    net.open_tunnel("a", "b", every_s=EVERY_S)
    seen: set[str] = set()

    def look() -> bool:
        for host in ("a", "b"):
            show = run.on(host, "wg", "show", "all", "preshared-keys")
            shown = subprocess.run(show, capture_output=True, text=True, check=True)
            seen.update(line.split()[-1] for line in shown.stdout.splitlines())
        return len(seen) >= 4

    until(look)
    assert "(none)" not in seen


@contextmanager
def page(run: Running, host: str, address: str, folder: Path, content: str) -> Iterator[str]:
    """A web server at a host's protected address, with one page; the page's URL."""
    folder.mkdir(exist_ok=True)
    (folder / "page").write_text(content)
    serve = run.on(host, "python3", "-m", "http.server", "80", "--bind", address, "--directory", folder)
    server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: f"{address}:80" in listening(run, host))
        yield f"http://{address}/page"
    finally:
        server.terminate()
        server.wait()


def commands_naming(path: object) -> list[str]:
    """Command lines of running processes with that in them."""
    return [line for line in map(" ".join, commands().values()) if str(path) in line]


def listening(run: Running, host: str) -> str:
    """At which addresses somebody there waits for TCP connections."""
    return subprocess.run(run.on(host, "ss", "-Hltn"), capture_output=True, text=True, check=True).stdout


def fetched(run: Running, host: str, url: str) -> str | None:
    """A page as a client there gets it; None if it gets none."""
    done = subprocess.run(run.on(host, "curl", "-s", "-m", "20", url), capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


@pytest.mark.parametrize(("far", "delay_ms"), [("b", 0), ("c", 20)])
def test_pages_come_by_tls_while_keys_change(run, net, tmp_path, far, delay_ms):
    """Over one hop and over a relay: each one of them, as no connection falls between two keys."""
    for fibre in net.fibres()["fibre"].unique():
        net.change_fibre(fibre, delay_ms=delay_ms)
    opened = net.open_tunnel("a", far, kind="tls", every_s=EVERY_S)
    with page(run, far, opened["to"], tmp_path / "www", "a page") as url:
        pages, before = [], min(end["keys"] for end in ends(net))
        while min(end["keys"] for end in ends(net)) < before + 3:
            pages += [fetched(run, "a", url) for _ in range(5)]

    assert set(pages) == {"a page"}
    until(lambda: len({end["key_id"] for end in ends(net)}) == 1 and states(net) == {"up"})
    until(lambda: all(end["received_bytes"] + end["sent_bytes"] > 0 for end in ends(net)))


def test_tap_sees_the_keys_id_and_nothing_of_a_page_by_tls(run, net, tmp_path):
    """The ID is the identity of the PSK, which a ClientHello bears in the clear."""
    opened = net.open_tunnel("a", "b", kind="tls", every_s=60)
    tcpdump = run.on("a", "tcpdump", "--immediate-mode", "-B", "16384", "-i", "eth0", "-n", "-U", "-w", "-", "tcp")
    tap = subprocess.Popen(tcpdump, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert tap.stderr
    while b"listening on" not in tap.stderr.readline():
        pass
    with page(run, "b", opened["to"], tmp_path / "www", 50 * "panoptikon") as url:
        assert fetched(run, "a", url) == 50 * "panoptikon"
    tap.terminate()
    seen, _ = tap.communicate()

    assert ends(net)[0]["key_id"].encode() in seen
    assert b"panoptikon" not in seen


def test_nobody_without_the_key_is_served_by_tls(run, net, tmp_path):
    """Not with another key, nor with a certificate, nor by an older TLS."""
    opened = net.open_tunnel("a", "b", kind="tls", every_s=60)
    (config,) = (run.directory / "gateways" / "b").glob("stunnel-*.conf")
    (server,) = re.findall("accept = (.+)", config.read_text())
    with page(run, "b", opened["to"], tmp_path / "www", "a page"):
        key_id = ends(net)[0]["key_id"]
        for options in ([], ["-psk", "00" * 32, "-psk_identity", key_id], ["-tls1_2"]):
            command = run.on("c", "openssl", "s_client", "-connect", server, "-quiet", *options)
            done = subprocess.run(command, input=b"GET /page HTTP/1.0\r\n\r\n", capture_output=True, check=False)
            assert done.returncode != 0
            assert b"a page" not in done.stdout


def test_without_keys_no_page_comes_by_tls(run, net, tmp_path):
    """Until there are keys again. Connections that there are, are cut."""
    opened = net.open_tunnel("a", "b", kind="tls", every_s=EVERY_S)
    with page(run, "b", opened["to"], tmp_path / "www", "a page") as url:
        assert fetched(run, "a", url) == "a page"
        connect = f"import socket; print(socket.create_connection(('{opened['to']}', 80)).recv(1), flush=True)"
        idle = subprocess.Popen(run.on("a", "python3", "-c", connect), stdout=subprocess.DEVNULL)
        until(lambda: "ESTAB" in subprocess.check_output(run.on("b", "ss", "-Htn", "sport", "=", ":80"), text=True))
        for qc in net.qcs().index:
            net.set_generation(qc, enabled=False)
        until(lambda: states(net) == {"closed"})
        assert fetched(run, "a", url) is None
        until(lambda: idle.poll() is not None)
        for qc in net.qcs().index:
            net.set_generation(qc, enabled=True)
        until(lambda: states(net) == {"up"})
        assert fetched(run, "a", url) == "a page"
    net.end_tunnel("a", "b")
    assert not commands_naming(f"{run.directory}/gateways/a/stunnel")


def test_nobody_but_the_two_gateways_has_a_say_in_a_tunnel(run, net):
    """Neither another SAE, nor another gateway, nor one of the two where the operator is to be asked."""
    net.open_tunnel("a", "b", every_s=60)
    net.open_tunnel("a", "c", every_s=60)  # which starts the gateway of c
    ids = {node: run.config(f"vpn-{node}")["sae"]["saes"][0]["id"] for node in "abc"}
    url = f"{run.config('vpn-a')['sae']['peers'][ids['b']]['url']}/vpn/v1"
    far, (key_id,) = f"{url}/far_end", {end["key_id"] for end in ends(net) if "b" in (end["node"], end["peer"])}
    told, stranger = json.dumps({"key_id": key_id}), run.sae("c")["id"]
    terms = json.dumps({"kind": "wireguard", "every_s": 1, "offer": {}})

    def status(who: str, method: str, path: str, body: str = "{}") -> int:
        return run.call("c", method, path, f"sae:{who}", f"sae:{ids['b']}", body)[0]["status"]

    assert status(stranger, "PUT", far, terms) == 401
    assert status(stranger, "POST", f"{far}/turns", told) == 401
    assert status(stranger, "DELETE", far) == 401
    assert status(ids["c"], "POST", f"{far}/keys", told) == 404
    assert status(ids["c"], "POST", f"{far}/turns", told) == 404
    assert status(ids["a"], "DELETE", f"{url}/tunnels/{ids['a']}") == 401
    assert status(ids["c"], "PUT", far, terms) == 400
    nowhere = run.call("c", "DELETE", f"{url}/tunnels/nobody", "operator:operator", f"sae:{ids['b']}", "{}")
    assert nowhere[0]["status"] == 404
    assert {end["key_id"] for end in ends(net) if "b" in (end["node"], end["peer"])} == {key_id}
    assert states(net) == {"up"}


@pytest.mark.parametrize(
    ("pair", "wanted", "said"),
    [
        (("a", "nowhere"), {}, "no datacenter 'nowhere'"),
        (("a", "a"), {}, "joins two datacenters"),
        (("a", "b"), {"kind": "openvpn"}, "one of wireguard, ipsec, tls"),
        (("a", "b"), {"every_s": 0.1}, "every_s: expected a number from 1"),
        (("a", "b"), {"policy": "pray"}, "one of close, hold"),
    ],
)
def test_what_cannot_be_is_said_before_anything_changes(net, pair, wanted, said):
    """By the name of what is wrong."""
    with pytest.raises(UserError, match=said):
        net.open_tunnel(*pair, **wanted)
    assert ends(net) == []


def test_interval_for_which_qcs_make_too_little_is_refused_with_the_least_that_goes(net):
    """From the cost of a key and the rates of the QCs."""
    for qc in net.qcs().index:
        net.set_rate(qc, 4, 6)
    try:
        with pytest.raises(UserError, match=r"take an interval of 6\.4 s or more"):
            net.open_tunnel("a", "b", every_s=EVERY_S)
    finally:
        for qc in net.qcs().index:
            net.set_rate(qc, 900, 1000)


def test_command_line_opens_lists_and_ends_tunnels(run):
    """With both ends, their keys and their ages."""
    run.say("qkd vpn a b --ipsec --every 2", r"ipsec tunnel, under a new key every 2 s")
    listed = run.say("qkd vpn", r"b to a")
    assert re.search(r"a to b +ipsec +up", listed)
    run.say("qkd vpn a b", "there is a tunnel between a and b already")
    run.say("qkd vpn a b off", "no tunnel joins a and b any more")
    run.say("qkd vpn", "no tunnels")


def test_nothing_of_tunnels_is_left_when_the_run_ends(tmp_path: Path):
    """One that the topology file asked for, and one that came later; and each key was the same at both ends."""
    (tmp_path / "row.yaml").write_text(f"{ROW}tunnels: [{{a: a, b: c, kind: ipsec, every_s: {EVERY_S}}}]\n")
    run = Running(tmp_path / "run", "--topology", tmp_path / "row.yaml", "--no-dashboard")
    try:
        run.wait_up()
        with Testbed.attach(run.directory) as net:
            net.open_tunnel("a", "b", every_s=EVERY_S)
            until(lambda: min(end["keys"] for end in ends(net)) >= 3)
        assert run.exit() == 0, run.text
    finally:
        run.stop()

    assert re.search(r"Key pairs +(\d+) compared, \1 identical", run.text)
    assert not commands_naming(run.directory)
