"""A controller that knows only the standard: it reads, follows, links nodes, serves applications, switches QCs off."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.service.gs015.conftest import Network
from tests.support.gs015_client import Events, N
from tests.support.validation import validate, validate_notification
from tests.support.waiting import until

TYPES = "etsi-qkd-node-types"


@pytest.fixture
def followed(network: Network) -> Iterator[dict[str, Events]]:
    """The notifications of all nodes; each of them is valid by ETSI's modules."""
    events = {name: client.follow() for name, client in network.foreign.items()}
    yield events
    for name, found in events.items():
        found.close()
        validate(network.foreign[name].get())
        for event in found.all:
            validate_notification(event)


def identity(network: Network, node: str) -> str:
    """Its qkdn_id."""
    return network.foreign[node].get(f"{N}/qkdn_id")["etsi-qkd-sdn-node:qkdn_id"]


def link_up(network: Network, key: str) -> None:
    """A virtual link from a over b to c: the node between first, then the ends (5.4)."""
    a, b, c = (identity(network, n) for n in "abc")
    common = {"qkdl_id": key, "qkdl_type": f"{TYPES}:VIRT", "qkdl_enable": True, "virt_bandwidth": 100}
    for node, members in (
        ("b", {"virt_prev_hop": a, "virt_next_hop": [c]}),
        ("a", {"virt_next_hop": [b], "qkdl_local": {"qkdn_id": a}, "qkdl_remote": {"qkdn_id": c}}),
        ("c", {"virt_prev_hop": b, "qkdl_local": {"qkdn_id": c}, "qkdl_remote": {"qkdn_id": a}}),
    ):
        body = {"qkd_links": {"qkd_link": [common | members]}}
        assert network.foreign[node].call("POST", f"{N}/qkd_links", body, Content_Type="application/json").status == 201


def configure(
    network: Network, app: dict[str, Any], key: str, *, at: str, remote: str, ksid: str, status: int = 201
) -> None:
    """The application that a notification told of, at one end, fed by link `key`."""
    entry = {
        "app_id": ksid, "app_type": app["app_type"], "server_app_id": app["server_app_id"],
        "client_app_id": app["client_app_id"], "app_qos": app["app_qos"], "backing_qkdl_id": [key],
        "local_qkdn_id": identity(network, at), "remote_qkdn_id": identity(network, remote),
    }  # fmt: skip
    body = {"etsi-qkd-sdn-node:qkd_app": [entry]}
    answer = network.foreign[at].call("PUT", f"{N}/qkd_applications/qkd_app={ksid}", body)
    assert answer.status == status, answer.text


def used(network: Network, node: str) -> list[int]:
    """Bytes that each QC of a node's has given."""
    shown = network.foreign[node].get("/restconf/data/qkd-testbed:node/qcs")["qkd-testbed:qcs"]["qc"]
    return [int(qc["used"]) for qc in shown]


def test_session_moves_to_another_link_and_waits_where_there_is_none(network: Network, followed):
    """Keys given before the move are there for the slave; an interruption costs nothing, and ends."""
    ksid, old, new = (str(uuid.uuid4()) for _ in range(3))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(network.enc_keys, "carol", "alice")
        app = followed["c"].wait_for("sdqkdn_application_new")["qkd_application"]
        link_up(network, old)
        configure(network, app, old, at="a", remote="c", ksid=ksid)
        configure(network, app, old, at="c", remote="a", ksid=ksid)
        before = asked.result(20)

    link_up(network, new)
    configure(network, app, new, at="a", remote="c", ksid=ksid, status=204)
    assert network.enc_keys("carol", "alice").status == 503, "half a move gives no key"
    configure(network, app, new, at="c", remote="a", ksid=ksid, status=204)
    for node in "abc":
        assert network.foreign[node].call("DELETE", f"{N}/qkd_links/qkd_link={old}").status == 204
    after = network.enc_keys("carol", "alice")
    assert network.dec_keys("alice", "carol", before).body == before.body
    assert network.dec_keys("alice", "carol", after).body == after.body

    place = "/restconf/operations/qkd-testbed:application_answer"
    gone = {"app_id": ksid, "version": "1", "state": "interrupted", "status": 503, "message": "node b is down"}
    spent = used(network, "c")
    answer = network.foreign["c"].call("POST", place, {"qkd-testbed:input": gone})
    assert (answer.status, answer.body) == (200, {"qkd-testbed:output": {"version": "1"}})
    refused = network.enc_keys("carol", "alice")
    assert (refused.status, refused.message, refused.detail("cause")) == (503, "node b is down", "path_down")
    assert used(network, "c") == spent
    back = {"app_id": ksid, "version": "2", "state": "resumed"}
    assert network.foreign["c"].call("POST", place, {"qkd-testbed:input": back}).status == 200
    assert network.enc_keys("carol", "alice").ok
    for node in "ac":
        assert network.foreign[node].call("DELETE", f"{N}/qkd_applications/qkd_app={ksid}").status == 204
    for node in "abc":
        assert network.foreign[node].call("DELETE", f"{N}/qkd_links/qkd_link={new}").status == 204


def consumed_bits(network: Network, node: str, place: str) -> int:
    """All that an application has taken there."""
    (app,) = network.foreign[node].get(f"{N}/{place}")["etsi-qkd-sdn-node:qkd_app"]
    return sum(entry["consumed_bits"] for entry in app["app_statistics"]["statistics"])


def test_controller_serves_applications_by_the_standards_workflow(network: Network, followed):
    """A request for keys makes both nodes tell of the application; links and qkd_app at both ends answer it.

    Then keys flow over the virtual link; when it is deleted they stop.
    """
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(network.enc_keys, "alice", "carol")
        new = [followed[n].wait_for("sdqkdn_application_new")["qkd_application"] for n in "ac"]
        for app, node in zip(new, "ac", strict=True):
            assert app["local_qkdn_id"] == identity(network, node)
            assert (app["server_app_id"], app["client_app_id"]) == (network.ids["alice"], [network.ids["carol"]])
            assert "app_id" not in app
        assert not asked.done()

        key, ksid = str(uuid.uuid4()), str(uuid.uuid4())
        link_up(network, key)
        configure(network, new[1], key, at="c", remote="a", ksid=ksid)
        configure(network, new[0], key, at="a", remote="c", ksid=ksid)

        given = asked.result(20)
    assert given.ok, given
    assert network.dec_keys("carol", "alice", given).body == given.body
    app = network.foreign["a"].get(f"{N}/qkd_applications/qkd_app={ksid}")["etsi-qkd-sdn-node:qkd_app"][0]
    assert app["app_statistics"]["statistics"][-1]["consumed_bits"] == 128
    assert app["app_status"] == f"{TYPES}:ON"
    # Of the first link the mode takes two units for a key, of the others one; the node between has two links.
    assert {n: consumed_bits(network, n, f"qkd_applications/qkd_app={key}") for n in "abc"} == {
        "a": 256, "b": 256 + 128, "c": 128,
    }  # fmt: skip

    assert network.foreign["b"].call("DELETE", f"{N}/qkd_links/qkd_link={key}").status == 204
    assert network.enc_keys("alice", "carol").status == 503
    for node in "ac":
        for place in (f"qkd_applications/qkd_app={ksid}", f"qkd_links/qkd_link={key}"):
            assert network.foreign[node].call("DELETE", f"{N}/{place}").status == 204


@pytest.fixture
def over_b(network: Network) -> Iterator[tuple[str, str]]:
    """An association of alice and carol over a virtual link through b: KSID and ID of the link."""
    key, ksid = str(uuid.uuid4()), str(uuid.uuid4())
    link_up(network, key)
    pair = {"server_app_id": network.ids["alice"], "client_app_id": [network.ids["carol"]]}
    app = {"app_type": f"{TYPES}:CLIENT", "app_qos": {"min_bandwidth": 26}, **pair}
    configure(network, app, key, at="c", remote="a", ksid=ksid)
    configure(network, app, key, at="a", remote="c", ksid=ksid)
    yield ksid, key
    for node, client in network.foreign.items():
        for place in (f"qkd_applications/qkd_app={ksid}", f"qkd_links/qkd_link={key}"):
            assert client.call("DELETE", f"{N}/{place}").status in (204, 404), node


def put(network: Network, node: str, place: str, value: Any) -> None:
    """Configure a leaf below qkd_node."""
    body = {f"etsi-qkd-sdn-node:{place.rpartition('/')[2]}": value}
    answer = network.foreign[node].call("PUT", f"{N}/{place}", body)
    assert answer.status in (201, 204), answer.text


def failure(network: Network, slave: str = "carol") -> tuple[int, str]:
    """Status and cause of a key request of alice's that fails."""
    reply = network.enc_keys("alice", slave)
    return reply.status, str(reply.detail("cause"))


@pytest.mark.parametrize("node", ["a", "b", "c"])
def test_virtual_link_that_is_switched_off_carries_no_key(network: Network, over_b, node):
    """At whichever of its nodes; it is OFF there, and when it is switched on again keys flow."""
    until(lambda: network.enc_keys("alice", "carol").ok)
    place = f"qkd_links/qkd_link={over_b[1]}/qkdl_enable"

    put(network, node, place, value=False)

    assert failure(network) == (503, "relay_broken")
    assert failure(network) == (503, "relay_broken"), "nor when the way is looked for anew"
    assert status(network, node, over_b[1]) == "OFF"
    put(network, node, place, value=True)
    until(lambda: network.enc_keys("alice", "carol").ok)


@pytest.mark.usefixtures("over_b")
def test_node_that_is_to_relay_nothing_relays_nothing(network: Network):
    """key_relay_mode_enable=false stops what passes the node, not what ends there."""
    until(lambda: network.enc_keys("alice", "carol").ok)
    place = "qkdn_capabilities/key_relay_mode_enable"

    put(network, "b", place, value=False)
    put(network, "c", place, value=False)
    try:
        assert failure(network) == (503, "relay_broken")
        assert failure(network) == (503, "relay_broken"), "nor when the way is looked for anew"
        put(network, "b", place, value=True)
        until(lambda: network.enc_keys("alice", "carol").ok)
    finally:
        for node in "bc":
            put(network, node, place, value=True)


def test_application_that_goes_over_its_maximum_bandwidth_gets_an_error(network: Network, over_b):
    """max_bandwidth in bit/s: one key, and then none until its time is over; nothing is used up by what is refused."""
    until(lambda: network.enc_keys("alice", "carol").ok)
    place = f"qkd_applications/qkd_app={over_b[0]}"
    put(network, "a", f"{place}/app_qos/max_bandwidth", value=1)
    assert network.enc_keys("alice", "carol").ok
    consumed = consumed_bits(network, "a", place)

    assert failure(network) == (503, "over_bandwidth")
    assert consumed_bits(network, "a", place) == consumed

    network.foreign["a"].call("DELETE", f"{N}/{place}/app_qos/max_bandwidth")
    assert network.enc_keys("alice", "carol").ok


def test_application_ends_at_its_expiration_time(network: Network, over_b, followed):
    """Not before; its node tells of the end."""
    ksid = over_b[0]
    place = f"qkd_applications/qkd_app={ksid}"
    put(network, "a", f"{place}/expiration_time", value="2999-01-01T00:00:00Z")
    until(lambda: network.enc_keys("alice", "carol").ok)

    put(network, "a", f"{place}/expiration_time", value="2026-01-01T00:00:00.5+01:00")

    followed["a"].wait_for("sdqkdn_application_disconnected", lambda c: c == {"qkd_application": {"app_id": ksid}})
    assert network.foreign["a"].call("GET", f"{N}/{place}").status == 404


def test_statistics_are_shown_as_the_capabilities_say(network: Network, over_b):
    """Of links and of applications, each by a leaf of its own."""
    network.enc_keys("alice", "carol")
    link, app = f"{N}/qkd_links/qkd_link={over_b[1]}", f"{N}/qkd_applications/qkd_app={over_b[0]}"
    agent = network.foreign["a"]
    put(network, "a", "qkdn_capabilities/link_stats_support", value=False)
    put(network, "a", "qkdn_capabilities/application_stats_support", value=False)
    try:
        assert "skr" not in agent.call("GET", link).text
        assert "consumed_bits" not in agent.call("GET", app).text
        validate(agent.get())
    finally:
        for name in ("link_stats_support", "application_stats_support"):
            put(network, "a", f"qkdn_capabilities/{name}", value=True)
    assert "skr" in agent.call("GET", link).text
    assert "app_statistics" in agent.call("GET", app).text


def test_sae_opens_a_session_and_closes_it(network: Network, followed):
    """First side: 202, without an ID. Second side: the KSID is the app_id. The end is told, too."""
    def register(name: str, peer: str, side: str) -> Any:
        return network.sae(name, "POST", "/qkd/v1/key_sessions", {"peer": network.ids[peer], "side": side})

    assert register("bob", "alice", "slave").status == 202
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(register, "alice", "bob", "master")
        app = followed["a"].wait_for("sdqkdn_application_new")["qkd_application"]
        ksid, link = str(uuid.uuid4()), network.physical("a", "b")["qkdl_id"]
        configure(network, app, link, at="b", remote="a", ksid=ksid)
        configure(network, app, link, at="a", remote="b", ksid=ksid)
        opened = asked.result(20)

    assert (opened.status, opened.body["ksid"], opened.body["path"]) == (200, ksid, ["a", "b"])
    given = network.enc_keys("alice", "bob")
    assert network.dec_keys("bob", "alice", given).body == given.body

    assert network.sae("alice", "DELETE", f"/qkd/v1/key_sessions/{ksid}").status == 204
    followed["a"].wait_for("sdqkdn_application_disconnected", lambda c: c == {"qkd_application": {"app_id": ksid}})
    assert network.foreign["a"].call("GET", f"{N}/qkd_applications/qkd_app={ksid}").status == 404
    assert network.foreign["b"].call("DELETE", f"{N}/qkd_applications/qkd_app={ksid}").status == 204


def status(network: Network, node: str, key: str) -> str:
    """The link's there."""
    return network.foreign[node].link(key)["qkdl_status"].partition(":")[2]


def test_disabled_link_stops_its_qc_and_drains(network: Network, followed):
    """qkdl_enable=false at one end: PASSIVE at both while stock is left, OFF when it is gone, told as alarms."""
    key = network.physical("a", "b")["qkdl_id"]
    place, leaf = f"{N}/qkd_links/qkd_link={key}/qkdl_enable", "etsi-qkd-sdn-node:qkdl_enable"

    assert network.foreign["a"].call("PUT", place, {leaf: False}).status == 204

    seen: list[str] = []
    watch = threading.Event()

    def look() -> None:
        while not watch.wait(0.05):
            seen.append(status(network, "b", key))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for wanted in ("PASSIVE", "OFF"):
            followed["b"].wait_for(
                "alarm", lambda c, w=wanted: c["link"]["qkdl_id"] == key and c["link"]["qkdl_status"] == f"{TYPES}:{w}"
            )
    finally:
        watch.set()
        watcher.join()
    assert {"PASSIVE", "OFF"} <= set(seen) | {status(network, "b", key)}
    assert network.foreign["b"].link(key)["qkdl_performance"]["skr"] == 0
    followed["b"].wait_for("sdqkdn_link_perf_update", lambda c: c["qkd_link"]["qkdl_id"] == key)
    assert status(network, "b", network.physical("b", "c")["qkdl_id"]) == "ACTIVE"

    assert network.foreign["a"].call("PUT", place, {leaf: True}).status == 204
    followed["b"].wait_for("event", lambda c: c["link"]["qkdl_status"] == f"{TYPES}:ACTIVE")
    until(lambda: status(network, "a", key) == "ACTIVE")


def test_physical_link_is_deleted_and_made_again_under_another_id(network: Network, followed):
    """Without a link the QC stops; with one it makes key material again, which both ends share."""
    links = {n: network.physical(n, m) for n, m in (("b", "c"), ("c", "b"))}
    for node, link in links.items():
        assert network.foreign[node].call("DELETE", f"{N}/qkd_links/qkd_link={link['qkdl_id']}").status == 204
    assert [len(network.links(n)) for n in "bc"] == [1, 0]

    key = str(uuid.uuid4())
    for node, link in links.items():
        kept = ("qkdl_local", "qkdl_remote", "qkdl_type", "phys_qkd_role")
        body = {"etsi-qkd-sdn-node:qkd_link": [{"qkdl_id": key, **{k: link[k] for k in kept}}]}
        assert network.foreign[node].call("POST", f"{N}/qkd_links", body).status == 201

    until(lambda: [status(network, n, key) for n in "bc"] == ["ACTIVE", "ACTIVE"])


def test_link_on_an_interface_that_has_one_waits_for_activation(network: Network):
    """PENDING, and the first one goes on."""
    first = network.physical("a", "b")
    key = str(uuid.uuid4())
    body = {"etsi-qkd-sdn-node:qkd_link": [{"qkdl_id": key, "qkdl_type": f"{TYPES}:PHYS",
                                            "qkdl_local": first["qkdl_local"]}]}  # fmt: skip
    assert network.foreign["a"].call("POST", f"{N}/qkd_links", body).status == 201

    assert status(network, "a", key) == "PENDING"
    assert status(network, "a", first["qkdl_id"]) == "ACTIVE"
    assert network.foreign["a"].call("DELETE", f"{N}/qkd_links/qkd_link={key}").status == 204


def test_our_own_stream_is_valid_by_our_own_module(network: Network):
    """The same notifications with what is added to them, and figures of each slot."""
    agent = network.foreign["a"]
    events = agent.follow("qkd-testbed")
    register = {"peer": network.ids["bob"], "side": "master", "qos": {"key_size_bits": 512, "interval_s": 2.5}}
    waiting = threading.Thread(target=network.sae, args=("alice", "POST", "/qkd/v1/key_sessions", register))
    waiting.start()
    try:
        new = events.wait_for("sdqkdn_application_new")["qkd_application"]
        until(lambda: any("qkd-testbed:slot_report" in e["ietf-restconf:notification"] for e in events.all))
        body = {"server_app_id": network.ids["alice"], "client_app_id": [network.ids["bob"]], "state": "waiting"}
        place = "/restconf/operations/qkd-testbed:application_answer"
        assert agent.call("POST", place, {"qkd-testbed:input": body}).status == 200
    finally:
        waiting.join()
        events.close()

    assert new["qkd-testbed:side"] == "master"
    assert (new["qkd-testbed:key_size"], new["qkd-testbed:interval"]) == (512, "2.500")
    for event in events.all:
        validate_notification(event, extended=True)


def test_silent_qc_is_told_of(network: Network, followed):
    """No block for some slots: interface and link are down; when blocks come again, the link is active."""
    key = network.physical("b", "c")["qkdl_id"]
    until(lambda: status(network, "b", key) == "ACTIVE")
    network.qcs.signal(19)  # SIGSTOP
    try:
        down = followed["b"].wait_for("sdqkdn_link_down", lambda c: c["qkd_link"]["qkdl_id"] == key)
        assert down["qkd_link"]["reason"]
        assert followed["b"].wait_for("sdqkdn_interface_down")["qkd_interface"]["reason"]
        interface = network.foreign["b"].get(f"{N}/qkd_interfaces/qkd_interface=2")
        assert interface["etsi-qkd-sdn-node:qkd_interface"][0]["qkdi_status"] == f"{TYPES}:DISABLED"
    finally:
        network.qcs.signal(18)  # SIGCONT
    until(lambda: status(network, "b", key) == "ACTIVE")


def test_overloaded_link_is_told_of(network: Network, followed):
    """Applications that want more than the link makes."""
    far = identity(network, "c")
    key = str(uuid.uuid4())
    link = {"qkdl_id": key, "qkdl_type": f"{TYPES}:VIRT", "virt_next_hop": [far], "virt_bandwidth": 1 << 30}
    path = f"{N}/qkd_links/qkd_link={key}"
    assert network.foreign["b"].call("PUT", path, {"etsi-qkd-sdn-node:qkd_link": [link]}).status == 201

    told = followed["b"].wait_for("sdqkdn_link_overloaded")["qkd_link"]

    assert told["qkdl_id"] == network.physical("b", "c")["qkdl_id"]
    assert told["performance"]["expected_consumption"] >= 1 << 30
    assert told["performance"]["eskr"] == 0
    assert network.foreign["b"].call("DELETE", path).status == 204


def test_withdrawn_registration_is_told_to_our_own_stream_until_it_is_confirmed(network: Network):
    """Whoever listens may have lost the first word of it."""
    agent = network.foreign["b"]
    events = agent.follow("qkd-testbed")
    place = "/restconf/operations/qkd-testbed:application_answer"
    pair = {"server_app_id": network.ids["alice"], "client_app_id": [network.ids["bob"]]}

    def told() -> list[str]:
        envelopes = [event["ietf-restconf:notification"] for event in list(events.all)]
        name = "qkd-testbed:application_withdrawn"
        return [envelope[name]["request"] for envelope in envelopes if name in envelope]

    register = {"peer": network.ids["alice"], "side": "slave", "qos": {}}
    waiting = threading.Thread(target=network.sae, args=("bob", "POST", "/qkd/v1/key_sessions", register))
    waiting.start()
    try:
        events.wait_for("sdqkdn_application_new")
        assert agent.call("POST", place, {"qkd-testbed:input": {**pair, "state": "waiting"}}).status == 200
        waiting.join()
        withdraw = f"/qkd/v1/key_sessions?master_sae={network.ids['alice']}"
        assert network.sae("bob", "DELETE", withdraw).status == 204
        until(lambda: len(told()) >= 2)
        body = {**pair, "state": "withdrawn", "request": told()[:1]}
        assert agent.call("POST", place, {"qkd-testbed:input": body}).status == 200
    finally:
        waiting.join()
        events.close()

    assert len(set(told())) == 1
    for event in events.all:
        validate_notification(event, extended=True)
