"""The real controller over real mutual TLS; nodes are played by the test."""

from __future__ import annotations

import errno
import json
import re
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jsonschema_rs
import pytest
import requests
import schemathesis
from flask import request
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from controller.limits import REWEIGHED_AT_ONCE
from controller.northbound import api
from etsi import gs015
from etsi.gs004 import QoS
from ietf.restconf import parse_target
from mtls.authority import Authority
from mtls.call import Caller, Reply
from mtls.identity import Identity, Role
from node.tree.model import MODEL, Change, apps, link_id, links, node_id
from node.tree.operational_state import QcState
from telemetry import journal
from testbed.machine.processes import Process, ProcessFailed, execute
from testbed.network.loopback import free_port
from testbed.planning.documents import controller_document
from tests.support.described import TRUE, ask
from tests.support.played import Answer, PlayedNode
from tests.support.waiting import until

CONTROLLER = Identity(Role.CONTROLLER, "ctl")
QOS = QoS()
# A triangle with a tail: a-b, b-c, a-c, c-d.
LINKS = {
    "a": {"ab": "b", "ac": "c"},
    "b": {"ab": "a", "bc": "c"},
    "c": {"bc": "b", "ac": "a", "cd": "d"},
    "d": {"cd": "c"},
}


class World:
    """The controller's process, the nodes that it follows, and an operator."""

    def __init__(self, directory: Path, python: str = sys.executable) -> None:
        self.directory = directory
        self.python = python
        self.authority = Authority(directory / "pki")
        self.port = free_port()
        self.saes: dict[str, str] = {}
        self.nodes: dict[str, PlayedNode] = {}
        self.process: Process | None = None
        self.operators = Caller(self.credentials(Role.OPERATOR, "op"))

    def credentials(self, role: Role, name: str):
        """That party's."""
        return self.authority.issue(Identity(role, name), addresses=["127.0.0.1"])

    def write(self, **options: Any) -> Path:
        """The controller's configuration."""
        document = controller_document(
            "ctl", host="127.0.0.1", port=self.port, directory=self.directory / "ctl",
            credentials=self.credentials(Role.CONTROLLER, "ctl"), parameters={},
            agents={name: node.url for name, node in self.nodes.items()},
        )  # fmt: skip
        path = self.directory / "controller.json"
        path.write_text(json.dumps(document | options))
        return path

    def start(self, **options: Any) -> Process:
        """Start the controller."""
        command = [self.python, "-P", "-m", "controller", str(self.write(**options))]
        self.process = Process("controller", partial(execute, command), self.directory / "controller.log")
        return self.process

    def play(self, name: str, qcs: dict[str, str], *, port: int = 0) -> PlayedNode:
        """A node."""
        credentials = self.credentials(Role.NODE, name)
        self.nodes[name] = PlayedNode(self.directory / name, credentials, name, qcs, self.saes, port=port)
        return self.nodes[name]

    def start_with_nodes(self, **options: Any) -> None:
        """Start the nodes and a controller that follows them."""
        for name, qcs in LINKS.items():
            self.play(name, qcs)
        self.start(**options).wait_ready(20)
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        """Return when the controller follows all nodes."""
        assert until(lambda: set(self.nodes) <= set(self.operator("status")["nodes"]))

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """One call of the operator."""
        url = f"https://127.0.0.1:{self.port}/qkd/v1/{path}"
        return self.operators.request(method, url, to=CONTROLLER, body=body, timeout_s=15)

    def operator(self, what: str) -> Any:
        """What the operator sees there."""
        reply = self.call("GET", what)
        assert reply.ok, reply
        return reply.body

    def pair(self, master: str, slave: str) -> tuple[str, str]:
        """Two new SAEs at those nodes."""
        found = str(uuid.uuid4()), str(uuid.uuid4())
        self.saes |= {found[0]: master, found[1]: slave}
        return found

    def request(self, master: str, slave: str, **qos: Any) -> tuple[tuple[str, str], Answer]:
        """Both sides of a new session register, the slave first: the pair, and the answer to the master."""
        pair = self.pair(master, slave)
        assert self.nodes[slave].ask(pair, "slave").status == 202
        return pair, self.nodes[master].ask(pair, "master", **qos)

    def open(self, master: str, slave: str) -> dict[str, Any]:
        """A session between applications at two nodes, opened, as the operator sees it."""
        _, answer = self.request(master, slave)
        assert answer.status == 200, answer
        return self.session(answer.ksid)

    def session(self, ksid: str | None) -> dict[str, Any]:
        """That session as the operator sees it, once it is open."""
        assert until(lambda: ksid in self.open_sessions())
        return self.open_sessions()[ksid]

    def link(self, qc: str) -> dict[str, Any]:
        """That QC as the topology has it."""
        return next(e for e in self.operator("topology")["links"] if e["qc"] == qc)

    def open_sessions(self) -> dict[Any, dict[str, Any]]:
        """All open ones by KSID."""
        return {s["ksid"]: s for s in self.operator("key_sessions")["key_sessions"] if s["state"] == "open"}

    def implicit(self, master: str, slave: str, pair: tuple[str, str] | None = None) -> Answer:
        """The nodes of a pair ask for a session because the master asked for keys."""
        pair = pair or self.pair(master, slave)
        self.nodes[slave].registrations.announce(*pair, QOS)
        return self.nodes[master].ask(pair, "master", implicit=True)

    def waiting(self) -> set[tuple[str, str]]:
        """The pairs of which one side waits for the other."""
        found = self.operator("key_sessions")["key_sessions"]
        return {(s["master_sae"], s["slave_sae"]) for s in found if s["state"] == "waiting"}

    def catch_up(self, name: str) -> None:
        """Return when the controller has taken in all that a node has told so far: it takes one thing after another."""
        slot = self.operator("status")["nodes"][name]["slot"] + 1
        self.nodes[name].report(slot)
        assert until(lambda: self.operator("status")["nodes"][name]["slot"] == slot)

    def set(self, **parameters: Any) -> Reply:
        """The operator changes parameters."""
        return self.call("PATCH", "parameters", parameters)

    def restart(self, **options: Any) -> None:
        """kill -9 of the controller, and its restart."""
        assert self.process is not None
        self.process.kill()
        self.start(**options).wait_ready(20)

    def stop(self) -> None:
        """End everything."""
        self.operators.close()
        if self.process is not None:
            self.process.stop()
        for node in self.nodes.values():
            node.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A controller that knows four nodes."""
    made = World(tmp_path_factory.mktemp("ctl"))
    try:
        made.start_with_nodes()
        yield made
    finally:
        made.stop()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """A world in which nothing is started yet."""
    made = World(tmp_path)
    yield made
    made.stop()


def ids(*names: str) -> list[str]:
    """The qkdn_id of each node."""
    return [node_id(name) for name in names]


@pytest.mark.parametrize("sides", [("slave", "master"), ("master", "slave")])
def test_second_side_opens_the_session_and_both_ends_get_the_application(world, sides):
    """In either order: the first is acknowledged without an ID, then both have a qkd_app of the same one (5.2)."""
    at = {"master": "a", "slave": "d"}
    pair = world.pair("a", "d")
    assert world.nodes[at[sides[0]]].ask(pair, sides[0]).status == 202

    answer = world.nodes[at[sides[1]]].ask(pair, sides[1])

    assert answer.status == 200
    session = world.session(answer.ksid)
    assert (session["path"], session["qcs"]) == (["a", "c", "d"], ["ac", "cd"])
    apps = [world.nodes[n].app(answer.ksid) for n in "ad"]
    for app, (local, remote) in zip(apps, (ids("a", "d"), ids("d", "a")), strict=True):
        assert (app["server_app_id"], app["client_app_id"]) == (pair[0], [pair[1]])
        assert (app["local_qkdn_id"], app["remote_qkdn_id"]) == (local, remote)
        assert app["app_qos"] == {"min_bandwidth": 26}
    assert apps[0]["backing_qkdl_id"] == apps[1]["backing_qkdl_id"]


def test_session_over_several_hops_is_a_virtual_link_on_every_node_of_its_path(world):
    """With previous and next hop; its bandwidth is an INTERNAL application of the links below."""
    session = world.open("a", "d")
    (virtual,) = world.nodes["a"].app(session["ksid"])["backing_qkdl_id"]
    physical = {e["qkdl_local"]["qkdi_id"]: e["qkdl_id"] for e in links(world.nodes["c"].datastore.tree)
                if e["qkdl_type"] == gs015.PHYS}  # fmt: skip

    hops = [(link.get("virt_prev_hop"), link.get("virt_next_hop"))
            for link in (world.nodes[n].link(virtual) for n in "acd")]  # fmt: skip
    internal = world.nodes["c"].app(virtual)

    a, c, d = ids("a", "c", "d")
    assert hops == [(None, [c]), (a, [d]), (c, None)]
    assert internal["app_type"] == gs015.INTERNAL
    assert internal["backing_qkdl_id"] == [physical[2], physical[3]]
    # 128 bits every 5 s, twice that on the first link of BASIC.
    assert internal["app_qos"]["max_bandwidth"] == world.nodes["c"].link(virtual)["virt_bandwidth"] == 52
    assert internal["app_id"] in world.nodes["c"].link(physical[2])["qkdl_applications"]


def test_session_over_one_hop_is_fed_by_the_physical_link(world):
    """No virtual link, and nobody else is told."""
    told = len(world.nodes["c"].told)
    session = world.open("a", "b")

    (backing,) = world.nodes["a"].app(session["ksid"])["backing_qkdl_id"]
    assert world.nodes["a"].link(backing)["qkdl_type"] == gs015.PHYS
    assert world.nodes["b"].app(session["ksid"])["backing_qkdl_id"] == [backing]
    assert len(world.nodes["c"].told) == told


def test_nodes_are_told_in_parallel(world):
    """Each is configured when all are about to be; the master's hears of the KSID when the slave's has it."""
    passed = threading.Event()
    together = threading.Barrier(3, passed.set)
    told_before: list[list[tuple[str, str, str]]] = []

    def meet() -> None:
        if not passed.is_set():
            together.wait(10)

    def meet_and_look() -> None:
        meet()
        told_before.append(list(world.nodes["d"].told))

    for name, step in (("a", meet_and_look), ("c", meet), ("d", meet)):
        world.nodes[name].before_edit = step
    try:
        ksid = world.open("a", "d")["ksid"]
    finally:
        for node in world.nodes.values():
            node.before_edit = lambda: None

    assert ("+", "app", ksid) in told_before[-1]
    assert ("+", "app", ksid) in world.nodes["a"].told


def test_repeated_first_side_still_waits(world):
    """An answer that was lost does no harm."""
    pair = world.pair("a", "b")

    assert [world.nodes["b"].ask(pair, "slave").status for _ in range(2)] == [202, 202]
    assert world.nodes["a"].ask(pair, "master").status == 200


def test_open_session_of_a_pair_is_not_opened_again(world):
    """409 with the KSID that there is; the other direction is another session."""
    pair, answer = world.request("a", "b")

    again = world.nodes["a"].ask(pair, "master")
    assert (again.status, again.detail("cause"), again.detail("ksid")) == (409, "exists", answer.ksid)
    assert world.nodes["a"].ask(pair[::-1], "slave").status == 202


def test_node_cannot_take_over_an_sae_that_another_has_registered(world):
    """409; the session still leads to the node that was first."""
    pair = world.pair("a", "d")
    world.nodes["d"].ask(pair, "slave")

    assert world.nodes["b"].ask(pair, "slave").status == 409
    answer = world.nodes["a"].ask(pair, "master")
    assert world.session(answer.ksid)["path"][-1] == "d"


def test_node_refuses_an_application_that_is_not_its_own(world):
    """A hostile node claims an SAE of d's: a, where the master is, does not take the session over."""
    pair = world.pair("a", "d")
    world.nodes["b"].ask(pair, "slave")

    refused = world.nodes["a"].ask(pair, "master")

    assert (refused.status, refused.detail("cause")) == (503, "agent_unreachable")
    assert "SAE" in refused.message


def test_saes_at_one_node_need_no_session(world):
    """400."""
    pair = world.pair("a", "a")
    world.nodes["a"].ask(pair, "slave")

    assert world.nodes["a"].ask(pair, "master").status == 400


def test_node_that_fails_refuses_the_session_everywhere(world):
    """503 names the node; who took the session over is told to drop it, and the pair may try again."""
    world.nodes["c"].broken = True
    pair = world.pair("a", "d")
    world.nodes["d"].ask(pair, "slave")
    try:
        refused = world.nodes["a"].ask(pair, "master")
    finally:
        world.nodes["c"].broken = False

    assert (refused.status, refused.detail("cause"), refused.detail("node")) == (503, "agent_unreachable", "c")
    assert until(lambda: [world.nodes[n].told[-1][:2] for n in "ad"] == [("-", "link")] * 2)
    assert world.operator("refusals")["refusals"][-1]["cause"] == "agent_unreachable"
    # The refusal may reach d only now, and then it is the answer to this.
    assert until(lambda: world.nodes["d"].ask(pair, "slave").status == 202)


def test_half_open_session_is_dropped_after_its_time(alone):
    """The second side then is a first one, which waits."""
    alone.start_with_nodes(half_open_timeout_s=0.5)
    pair = alone.pair("a", "d")
    alone.nodes["d"].ask(pair, "slave")

    def dropped() -> bool:
        alone.catch_up("b")  # each report is an occasion to look
        return pair not in alone.waiting()

    assert until(dropped)
    assert alone.nodes["a"].ask(pair, "master").status == 202


def test_withdrawn_registration_is_forgotten(world):
    """By the node that made it; another one cannot."""
    pair = world.pair("a", "d")
    world.nodes["d"].ask(pair, "slave")
    world.nodes["b"].registrations.withdraw(*pair)
    world.catch_up("b")
    assert world.nodes["a"].ask(pair, "master").status == 200

    pair = world.pair("a", "d")
    world.nodes["d"].ask(pair, "slave")
    world.nodes["d"].registrations.withdraw(*pair)
    world.catch_up("d")
    assert world.nodes["a"].ask(pair, "master").status == 202


@pytest.mark.parametrize("end", ["a", "d"])
def test_session_ends_by_the_notification_of_one_of_its_ends(world, end):
    """Not by a node between; all nodes of the path are told."""
    session = world.open("a", "d")
    ksid = session["ksid"]
    world.nodes["c"].registrations.ended(ksid)
    world.catch_up("c")
    assert ksid in world.open_sessions()

    world.nodes[end].registrations.ended(ksid)

    assert until(lambda: ksid not in world.open_sessions())
    assert until(lambda: all(world.nodes[n].told[-1][:2] == ("-", "link") for n in "acd"))
    assert all(world.nodes[n].sessions.get(ksid) is None for n in "ad")


def test_session_that_one_end_is_done_with_at_once_ends_everywhere(world):
    """Its node tells of the end before the controller has the node's answer that the session is configured."""
    node, over = world.nodes["a"], threading.Event()

    def done(change: Change) -> None:
        clients = (a for a in apps(change.new) if a["app_type"] == gs015.CLIENT)
        ksids = [a["app_id"] for a in clients if a["server_app_id"] == pair[0]]
        if ksids and not over.is_set():
            over.set()
            node.registrations.ended(ksids[0])
            world.catch_up("a")

    pair = world.pair("a", "b")
    world.nodes["b"].ask(pair, "slave")
    node.datastore.on_change(done)

    ksid = node.ask(pair, "master").ksid

    assert over.is_set()
    assert until(lambda: all(world.nodes[n].sessions.get(ksid) is None for n in "ab"))
    assert ksid not in {s["ksid"] for s in world.operator("key_sessions")["key_sessions"]}


def test_operator_ends_a_session(world):
    """The nodes know when the answer comes; the second time there is none."""
    ksid = world.open("a", "d")["ksid"]

    assert world.call("DELETE", f"key_sessions/{ksid}").status == 204
    assert all(world.nodes[n].sessions.get(ksid) is None for n in "ad")
    assert world.call("DELETE", f"key_sessions/{ksid}").status == 404


def test_no_path_is_refused_with_its_cause(world):
    """A node whose QCs nobody confirms is an island."""
    island = world.play("island", {"x": "nowhere"})
    assert world.call("PUT", "agents/island", {"url": island.url}).status == 204
    world.wait_for_nodes()

    _, refused = world.request("a", "island")

    assert (refused.status, refused.detail("cause")) == (503, "no_path")
    assert world.call("DELETE", "agents/island").status == 204
    world.nodes.pop("island").stop()
    assert "island" not in world.operator("status")["nodes"]
    assert world.call("DELETE", "agents/island").status == 404


def test_no_new_session_takes_a_link_that_is_switched_off(world):
    """qkdl_enable=false at one end is enough; the sessions that are open stay, and the link is found again."""
    running = world.open("a", "c")
    assert running["path"] == ["a", "c"]
    assert world.call("PUT", "qcs/ac/generation", {"enabled": False}).status == 204
    try:
        link = world.link("ac")
        assert link["enabled"] is False
        assert all(world.nodes[n].link(link["qkdl_id"])["qkdl_enable"] is False for n in "ac")
        assert world.open("a", "c")["path"] == ["a", "b", "c"]
        assert running["ksid"] in world.open_sessions()
    finally:
        assert world.call("PUT", "qcs/ac/generation", {"enabled": True}).status == 204
    assert world.open("a", "c")["path"] == ["a", "c"]
    assert world.call("PUT", "qcs/zz/generation", {"enabled": True}).status == 404
    assert world.call("PUT", "qcs/ac/generation", {"enabled": 1}).detail("field") == "enabled"


def test_change_that_a_node_tells_of_is_read(world):
    """Another controller, or the device itself, changed a link there: the notification has no more than the status."""
    key = link_id("ac")
    target = parse_target(MODEL, f"{gs015.NODE}/qkd_links/qkd_link={key}/qkdl_enable")
    for enabled, name in ((False, "alarm"), (True, "event")):
        world.nodes["a"].datastore.edit("PUT", target, {"etsi-qkd-sdn-node:qkdl_enable": enabled})

        world.nodes["a"].streams.notify(name, {"link": {"qkdl_id": key, "qkdl_status": gs015.PASSIVE}})

        assert until(lambda wanted=enabled: world.link("ac")["enabled"] is wanted)


def test_full_disk_of_a_node_is_a_refusal_in_its_words_and_no_bug(world):
    """503, and the master reads what is full where."""
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    world.nodes["c"].before_edit = full
    try:
        _, refused = world.request("a", "c")
    finally:
        world.nodes["c"].before_edit = lambda: None

    assert refused.status == 503
    assert "the machine of this node refuses: No space left on device" in refused.message


def test_status_read_in_a_bad_moment_is_read_again_once_keys_are_made(world):
    """A node that was read between two looks of its own sees no change, and tells of none."""
    node = world.nodes["a"]
    node.fail("ac")
    try:
        assert until(lambda: world.link("ac")["status"] == "OFF")
        node.qcs["ac"] = QcState(generated=2, rate_bps=320.0, alive=True)

        node.report(world.operator("status")["nodes"]["a"]["slot"] + 1, ac=(40, 0, 40))

        assert until(lambda: world.link("ac")["status"] == "PENDING")  # as the other end has it
    finally:
        node.qcs.pop("ac")
        node.streams.notify("event", {})
        world.catch_up("a")


def test_no_new_session_passes_a_node_that_relays_nothing(world):
    """key_relay_mode_enable=false, as the node shows it; sessions that end there are none of its relays."""
    target = parse_target(MODEL, f"{gs015.NODE}/qkdn_capabilities/key_relay_mode_enable")
    node, leaf = world.nodes["c"], "etsi-qkd-sdn-node:key_relay_mode_enable"
    node.datastore.edit("PUT", target, {leaf: False})
    try:
        node.streams.notify("event", {})
        world.catch_up("c")
        _, refused = world.request("a", "d")
        assert (refused.status, refused.detail("cause")) == (503, "no_path")
        assert world.open("a", "c")["path"] == ["a", "c"]
    finally:
        node.datastore.edit("PUT", target, {leaf: True})
        node.streams.notify("event", {})
        world.catch_up("c")
    assert world.open("a", "d")["path"] == ["a", "c", "d"]


def test_restarted_node_is_told_of_its_sessions_again(alone):
    """As far as it has lost them; and of those that ended meanwhile it is told that they are over."""
    alone.start_with_nodes()
    kept, ended = alone.open("a", "d")["ksid"], alone.open("a", "d")["ksid"]
    old = alone.nodes["c"]
    port = old.server.port
    old.server.stop()
    assert until(lambda: "c" not in alone.operator("status")["nodes"])
    assert alone.call("DELETE", f"key_sessions/{ended}").status == 204
    (virtual,) = alone.nodes["a"].app(kept)["backing_qkdl_id"]
    old.datastore.end_app(virtual)
    before = {e["qkdl_id"] for e in links(old.datastore.tree)}
    old.store.close()

    new = alone.play("c", LINKS["c"], port=port)

    def there() -> set[str]:
        return {e["qkdl_id"] for e in links(new.datastore.tree)}

    assert until(lambda: virtual in there() and len(before - there()) == 1)


def test_unreachable_node_is_avoided_and_named(alone):
    """Paths lead around it; sessions that end there are refused with its name."""
    alone.start_with_nodes()
    alone.nodes.pop("c").stop()
    assert until(lambda: "c" not in alone.operator("status")["nodes"])
    assert alone.open("a", "b")["path"] == ["a", "b"]

    _, refused = alone.request("a", "d")

    assert (refused.status, refused.detail("cause")) == (503, "no_path")
    found = {n["name"]: n["status"] for n in alone.operator("topology")["nodes"]}
    assert found == {"a": "OPERATING", "b": "OPERATING", "c": "FAILURE", "d": "OPERATING"}


def test_killed_controller_goes_on_with_what_was_open_and_set(alone):
    """Sessions with path and mode, parameters, rates; an end is as final as before."""
    alone.start_with_nodes()
    closed, kept = alone.open("a", "c")["ksid"], alone.open("a", "d")
    alone.call("DELETE", f"key_sessions/{closed}")
    alone.set(ttl_slots=20)
    alone.call("PUT", "qcs/ab/rate", {"low": 7, "high": 8})
    before = alone.open_sessions()

    alone.restart()

    assert alone.open_sessions() == before
    assert before[kept["ksid"]]["path"] == kept["path"]
    assert closed not in before
    assert alone.operator("parameters")["ttl_slots"] == 20
    alone.wait_for_nodes()
    assert alone.open("a", "d")["path"] == ["a", "c", "d"]


def test_without_a_controller_new_sessions_get_a_clear_error(alone):
    """At once; and when it is back, its nodes are known and sessions open."""
    alone.start_with_nodes()
    assert alone.process is not None
    alone.process.kill()
    assert until(lambda: not any(node.followed for node in alone.nodes.values()))

    refused = alone.nodes["a"].ask(alone.pair("a", "d"), "master")

    assert (refused.status, refused.detail("cause")) == (503, "controller_unreachable")
    alone.start().wait_ready(20)
    alone.wait_for_nodes()
    assert alone.implicit("a", "d").status == 200


def test_session_that_was_being_opened_when_the_controller_was_killed_is_forgotten_by_all(alone):
    """Nobody was given its KSID: nodes that heard of it are told that it is over."""
    alone.start_with_nodes()
    killed = threading.Event()
    alone.nodes["c"].before_edit = lambda: killed.wait(20)
    told = len(alone.nodes["d"].told)
    pair = alone.pair("a", "d")
    alone.nodes["d"].ask(pair, "slave")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(alone.nodes["a"].ask, pair, "master")
        assert until(lambda: len(alone.nodes["d"].told) > told)
        alone.process.kill()
        killed.set()
        alone.start().wait_ready(20)

        def kept() -> list[Any]:
            tree = alone.nodes["d"].datastore.tree
            return [*apps(tree), *(e for e in links(tree) if e["qkdl_type"] != gs015.PHYS)]

        assert until(lambda: kept() == [])
        assert alone.open_sessions() == {}


def test_operator_sees_links_with_rates_and_stock(alone):
    """Generated is what either end saw, not the sum; requests add up, those of the masters of sessions over it too."""
    alone.start_with_nodes()
    assert alone.open("d", "b")["qcs"] == ["cd", "bc"]
    for slot in (1, 2):
        alone.nodes["b"].report(slot, bc=(40, 16, 40 * slot, 48))
        alone.nodes["c"].report(slot, bc=(40, 0, 40 * slot))
        alone.nodes["d"].report(slot, bc=(None, 32, None))

    def link() -> Any:
        return next(q for q in alone.operator("links")["links"] if q["qc"] == "bc")

    assert until(lambda: link()["requested_per_slot"] == 48.0)
    assert link() == {
        "qc": "bc", "qkdl_id": link()["qkdl_id"], "ends": ["b", "c"], "status": "PENDING", "enabled": True,
        "qber_percent": None, "generated_per_slot": 40.0, "requested_per_slot": 48.0, "reserved_per_slot": 3.2,
        "stored_bytes": 80,
    }  # fmt: skip


def test_what_sessions_asked_that_are_over_by_their_nodes_report_counts(alone):
    """In an overload many end at once, with a request that was not met: one of each counts on QCs of others."""
    alone.start_with_nodes()
    for _ in range(3):
        ksid = alone.open("d", "b")["ksid"]  # over cd, bc
        assert alone.call("DELETE", f"key_sessions/{ksid}").status == 204
    for name in "bc":
        alone.nodes[name].report(1, bc=(40, 0, 40))
    alone.nodes["d"].report(1, bc=(None, 1000, None))

    def asked() -> float:
        return next(q for q in alone.operator("links")["links"] if q["qc"] == "bc")["requested_per_slot"]

    assert until(lambda: asked() == 3 * 16)


def test_operator_sees_nodes_and_parameters(world):
    """And the sessions with their states."""
    session = world.open("b", "c")
    status = world.operator("status")

    assert set("abcd") <= set(status["nodes"])
    assert status["parameters"] == {
        "mode": "basic", "ttl_slots": 15, "keys_ahead": 4, "implicit_idle_s": 60, "admission": "none",
        "path_policy": "shortest",
    }  # fmt: skip
    assert (session["state"], session["path"], session["mode"]) == ("open", ["b", "c"], "basic")


def test_journal_has_the_times_of_an_initialisation(world):
    """Each side's registration; then, since the second one: path chosen, agents informed, KSID assigned."""
    session = world.open("a", "d")

    events = journal.read(world.directory / "ctl" / "journal.jsonl")
    mine = [e for e in events if e.get("master_sae") == session["master_sae"]]
    assert [e["event"] for e in mine] == ["application_registered"] * 2 + ["ksid_assigned"]
    assert 0 < mine[2]["path_chosen"] <= mine[2]["agents_informed"] <= mine[2]["ksid_assigned"]


def declare(world: World, name: str, ksid: str | None, **members: Any) -> None:
    """A node tells of another QoS of an application."""
    content = {"qkd_application": {"app_id": ksid, **members}}
    world.nodes[name].streams.notify("sdqkdn_application_qos_update", content)


@pytest.mark.parametrize("end", ["a", "d"])
def test_application_that_declares_another_qos_gets_it(world, end):
    """At both ends, whichever told of it; its links carry that much more, and what it did not name stays."""
    ksid = world.open("a", "d")["ksid"]
    declare(world, end, ksid, app_qos={"min_bandwidth": 1000, "jitter": 4}, app_priority=2)

    def qos(app: dict[str, Any]) -> Any:
        return app["app_qos"], app.get("app_priority")

    wanted = {"min_bandwidth": 1000, "jitter": 4}, 2
    assert until(lambda: [qos(world.nodes[n].app(ksid)) for n in "ad"] == [wanted] * 2)
    assert until(lambda: figures(world, ksid) == [2000] * 6)
    declare(world, end, ksid, app_qos={"ttl": 60})
    assert until(lambda: [world.nodes[n].app(ksid)["app_qos"].get("ttl") for n in "ad"] == [60] * 2)
    assert figures(world, ksid) == [2000] * 6
    assert world.open_sessions()[ksid]["qos"] == {"key_size_bits": 1000, "interval_s": 1.0}


def test_node_between_declares_nothing(world):
    """Only the ends have a word; nor does anybody of a session that there is not."""
    ksid = world.open("a", "d")["ksid"]
    declare(world, "c", ksid, app_qos={"min_bandwidth": 1000})
    declare(world, "a", str(uuid.uuid4()), app_qos={"min_bandwidth": 1000})
    for name in "ca":
        world.catch_up(name)
    declare(world, "a", ksid, app_priority=1)

    assert until(lambda: world.nodes["a"].app(ksid).get("app_priority") == 1)
    assert world.nodes["a"].app(ksid)["app_qos"] == {"min_bandwidth": 26}


def test_node_that_stumbles_over_a_qos_takes_it_over_later(world):
    """It is told again."""
    ksid = world.open("a", "b")["ksid"]
    node, stumbled = world.nodes["b"], threading.Event()
    node.before_edit = lambda: stumble(node, stumbled)
    try:
        declare(world, "a", ksid, app_priority=9)
        assert until(stumbled.is_set)
    finally:
        node.before_edit = lambda: None
        node.broken = False

    assert until(lambda: [world.nodes[n].app(ksid).get("app_priority") for n in "ab"] == [9] * 2)


@pytest.fixture
def admitting(alone) -> World:
    """A controller of its own, whose QCs have made 40 bytes a slot for 5 slots, but `cd` only 4."""
    alone.start_with_nodes()
    made = {"ab": 40, "bc": 40, "ac": 40, "cd": 4}
    for slot in range(1, 6):
        for name, node in alone.nodes.items():
            # One end says what was asked for, both what was made.
            asked = {qc: int(name < peer) for qc, peer in LINKS[name].items()}
            node.report(slot, **{qc: (made[qc], asked[qc], 0) for qc in LINKS[name]})
    known = {"ab": 40, "ac": 40, "bc": 40, "cd": 4}
    assert until(
        lambda: {q["qc"]: (q["generated_per_slot"], q["requested_per_slot"]) for q in alone.operator("links")["links"]}
        == {qc: (rate, 1) for qc, rate in known.items()}
        and all(n["slot"] == 5 for n in alone.operator("status")["nodes"].values())
    )
    return alone


def test_equation_1_refuses_what_measured_rates_do_not_cover(admitting):
    """20 generated minus 5 requested on cd is less than a key of 128 bits; other paths and smaller keys are fine."""
    admitting.set(admission="eq1")

    _, refused = admitting.request("a", "d")

    assert (refused.status, refused.detail("cause"), refused.detail("qc")) == (503, "refused", "cd")
    assert (refused.detail("needed_bytes"), refused.detail("available_bytes")) == (16, 15)
    assert "cd" in refused.message
    assert admitting.operator("refusals")["refusals"][-1]["qc"] == "cd"
    assert admitting.request("a", "d", size=120)[1].status == 200
    assert admitting.request("a", "c")[1].status == 200


def test_equation_1_sums_over_one_slot_more_than_a_ttl(admitting):
    """From n0 - TTL to n0, both included: at TTL 2, three slots. In each, cd made 4 bytes and 1 was asked for."""
    admitting.set(admission="eq1", ttl_slots=2)

    _, refused = admitting.request("a", "d")

    assert refused.detail("available_bytes") == 9


def test_reserve_refuses_what_declared_rates_exceed_and_ends_give_back(admitting):
    """128 bits every 0.5 s are 32 bytes a slot of 40 on a link: one such session fits, two do not."""
    admitting.set(admission="reserve")

    _, first = admitting.request("a", "c", size=128, interval_s=0.5)
    _, second = admitting.request("c", "a", size=128, interval_s=0.5)

    assert first.status == 200
    assert (second.status, second.detail("qc")) == (503, "ac")
    assert (second.detail("needed_bytes"), second.detail("available_bytes")) == (160, 40)
    link = next(q for q in admitting.operator("links")["links"] if q["qc"] == "ac")
    assert link["reserved_per_slot"] == 32.0
    admitting.session(first.ksid)
    assert admitting.call("DELETE", f"key_sessions/{first.ksid}").status == 204
    assert admitting.request("c", "a", size=128, interval_s=0.5)[1].status == 200


def test_qos_that_the_path_does_not_carry_is_not_admitted(admitting):
    """The session goes on as it was, and its nodes are told so; less than that is taken over."""
    admitting.set(admission="reserve")
    _, answer = admitting.request("a", "c", size=128, interval_s=0.5)  # 32 bytes a slot of 40
    target = parse_target(MODEL, f"{gs015.NODE}/qkd_applications/qkd_app={answer.ksid}/app_qos/min_bandwidth")
    admitting.session(answer.ksid)
    admitting.nodes["a"].datastore.edit("PUT", target, {"etsi-qkd-sdn-node:min_bandwidth": 328})

    declare(admitting, "a", answer.ksid, app_qos={"min_bandwidth": 328})

    def asked() -> list[int]:
        return [admitting.nodes[n].app(answer.ksid)["app_qos"]["min_bandwidth"] for n in "ac"]

    assert until(lambda: asked() == [256] * 2)
    events = journal.read(admitting.directory / "ctl" / "journal.jsonl")
    (refused,) = [e for e in events if e["event"] == "change_refused"]
    assert refused["ksid"] == answer.ksid
    assert "QC ac cannot carry" in refused["message"]
    declare(admitting, "a", answer.ksid, app_qos={"min_bandwidth": 320})
    assert until(lambda: asked() == [320] * 2)


def test_reserve_counts_the_cost_of_the_mode(admitting):
    """Over two links QKP takes a quarter of an AES key of the second one, however short the keys are."""
    admitting.set(admission="reserve")

    assert admitting.request("a", "d", size=128, interval_s=16 / 3)[1].status == 200
    admitting.set(mode="qkp")
    assert admitting.request("a", "d", size=128, interval_s=5)[1].status == 200
    _, answer = admitting.request("a", "d", size=8, interval_s=1)
    assert (answer.status, answer.facts["qc"], answer.facts["needed_bytes"]) == (503, "cd", 5 * 4)


def test_request_for_keys_opens_an_implicit_session_for_both_sides(world):
    """Nobody registers; both nodes say that the session is implicit, in either order."""
    answer = world.implicit("a", "d")

    assert answer.status == 200
    assert world.session(answer.ksid)["implicit"] is True
    pair = world.pair("a", "d")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(world.nodes["a"].ask, pair, "master", implicit=True)
        assert until(lambda: pair in world.waiting())
        world.nodes["d"].registrations.announce(*pair, QOS)
        assert asked.result(10).status == 200


def test_node_that_lost_its_implicit_session_is_told_of_it_again(world):
    """The same KSID, and nobody else hears of it twice."""
    pair = world.pair("a", "b")
    first = world.implicit("a", "b", pair)
    world.session(first.ksid)
    world.nodes["a"].datastore.end_app(first.ksid)
    told = len(world.nodes["b"].told)

    again = world.implicit("a", "b", pair)

    assert again.ksid == first.ksid
    assert world.nodes["a"].told[-1] == ("+", "app", first.ksid)
    assert [entry for entry in world.nodes["b"].told[told:] if entry[1] == "app"] == []


def test_implicit_session_that_its_end_has_lost_is_over(alone):
    """Its word of the end was lost with a controller: configured again, it would be taken for one that never idles."""
    alone.start_with_nodes()
    lost, registered = alone.implicit("a", "d").ksid, alone.open("a", "d")["ksid"]
    alone.session(lost)
    alone.process.kill()
    for ksid in (lost, registered):
        alone.nodes["a"].datastore.end_app(ksid)
    told = len(alone.nodes["a"].told)

    alone.start().wait_ready(20)

    assert until(lambda: all(alone.nodes[n].sessions.get(registered) for n in "ad"))
    assert until(lambda: list(alone.open_sessions()) == [registered])
    assert until(lambda: alone.nodes["d"].sessions.get(lost) is None)
    assert ("+", "app", lost) not in alone.nodes["a"].told[told:]


def test_implicit_session_gives_way_to_one_that_both_sides_register(world):
    """The old KSID is removed before the nodes hear of the new one."""
    pair = world.pair("a", "b")
    old = world.implicit("a", "b", pair).ksid
    world.session(old)
    world.nodes["b"].ask(pair, "slave")

    new = world.nodes["a"].ask(pair, "master").ksid

    told = [entry for entry in world.nodes["a"].told if entry[1] == "app"]
    assert told[-2:] == [("-", "app", old), ("+", "app", new)]
    world.session(new)
    assert world.implicit("a", "b", pair).ksid == new


def test_implicit_session_beside_a_registration_that_waits(world):
    """A slave that runs our software and a master that does not: the master gets its keys."""
    pair = world.pair("a", "b")
    assert world.nodes["b"].ask(pair, "slave").status == 202

    assert world.implicit("a", "b", pair).status == 200


def test_implicit_session_passes_admission(admitting):
    """It is refused like any other where the network cannot carry it."""
    admitting.set(admission="eq1")

    refused = admitting.implicit("a", "d")

    assert (refused.status, refused.detail("cause"), refused.detail("qc")) == (503, "refused", "cd")
    assert admitting.implicit("a", "c").status == 200


def parameters_at(world: World, name: str) -> dict[str, Any]:
    """Those that a node follows."""
    return world.nodes[name].datastore.tree["qkd-testbed:node"]["parameters"]


def test_parameters_change_at_run_time_and_reach_the_nodes(world):
    """They follow when the answer comes; sessions go on, and the journal has the change."""
    session = world.open("b", "c")
    wanted = {"mode": "otp", "ttl_slots": 20, "keys_ahead": 4, "implicit_idle_s": 60}
    try:
        assert world.set(mode="otp", ttl_slots=20).body["mode"] == "otp"
        assert [parameters_at(world, n) for n in "abcd"] == [wanted] * 4
    finally:
        world.set(mode="basic", ttl_slots=15)

    assert session["ksid"] in world.open_sessions()
    events = journal.read(world.directory / "ctl" / "journal.jsonl")
    assert [e["mode"] for e in events if e["event"] == "parameters"][-2:] == ["otp", "basic"]


def figures(world: World, ksid: str) -> list[int]:
    """What each node of a-c-d has as the bandwidth of the session's link, and of its INTERNAL application."""
    (virtual,) = world.nodes["a"].app(ksid)["backing_qkdl_id"]
    found: list[int] = []
    for node in (world.nodes[n] for n in "acd"):
        found += node.link(virtual)["virt_bandwidth"], node.app(virtual)["app_qos"]["max_bandwidth"]
    return found


def test_open_sessions_need_what_the_new_mode_takes(world):
    """128 bits every 5 s: BASIC takes two units of a link, OTP one. Nothing else is told to the nodes."""
    ksid = world.open("a", "d")["ksid"]
    (virtual,) = world.nodes["a"].app(ksid)["backing_qkdl_id"]
    assert figures(world, ksid) == [52] * 6
    told = len(world.nodes["a"].told)
    try:
        world.set(mode="otp")
        assert until(lambda: figures(world, ksid) == [26] * 6)
        mine = [e for e in world.nodes["a"].told[told:] if e[2] in (virtual, ksid)]
        assert mine == [("+", "app", virtual), ("+", "link", virtual)]
    finally:
        world.set(mode="basic")
    assert until(lambda: figures(world, ksid) == [52] * 6)


def test_change_of_mode_is_no_storm(world):
    """However many sessions there are, a node is asked for few changes at a time, and in the end has all."""
    ksids = [world.open("a", "d")["ksid"] for _ in range(REWEIGHED_AT_ONCE + 4)]
    there, go = threading.Semaphore(0), threading.Event()

    def wait() -> None:
        found = (request.json or {}).get(gs015.NODE, {}).get("qkd_links", {}).get("qkd_link", [])
        if any(e.get("qkdl_type") == gs015.VIRT for e in found):
            there.release()
            go.wait(10)

    world.nodes["c"].before_edit = wait
    try:
        world.set(mode="otp")
        assert all(there.acquire(timeout=10) for _ in range(REWEIGHED_AT_ONCE))
        assert world.open("a", "b")["state"] == "open", "others are served meanwhile"
        assert not there.acquire(blocking=False)
        go.set()
        assert until(lambda: all(figures(world, ksid) == [26] * 6 for ksid in ksids))
    finally:
        go.set()
        world.nodes["c"].before_edit = lambda: None
        world.set(mode="basic")


def test_node_that_stumbles_over_a_change_of_mode_takes_it_over_later(world):
    """It is asked again."""
    ksid = world.open("a", "d")["ksid"]
    node, stumbled = world.nodes["c"], threading.Event()
    try:
        world.set(mode="otp", keys_ahead=4)
        assert until(lambda: figures(world, ksid) == [26] * 6)
        node.before_edit = lambda: request.path.endswith("qkd_node") and stumble(node, stumbled)
        world.set(mode="basic")
        assert until(stumbled.is_set)
    finally:
        node.before_edit = lambda: None
        node.broken = False
        world.set(mode="basic")
    assert until(lambda: figures(world, ksid) == [52] * 6)


def stumble(node: PlayedNode, stumbled: threading.Event) -> None:
    """From now on the node does nothing that it is told."""
    node.broken = True
    stumbled.set()


def test_node_that_was_away_when_the_mode_changed_follows_it(alone):
    """When it is found again."""
    alone.start_with_nodes()
    ksid = alone.open("a", "d")["ksid"]
    old = alone.nodes["c"]
    old.stop()
    assert until(lambda: "c" not in alone.operator("status")["nodes"])
    alone.set(mode="otp")
    (virtual,) = alone.nodes["a"].app(ksid)["backing_qkdl_id"]
    assert until(lambda: alone.nodes["a"].link(virtual)["virt_bandwidth"] == 26)

    alone.play("c", LINKS["c"], port=old.server.port)

    assert until(lambda: figures(alone, ksid) == [26] * 6)


def test_node_that_comes_later_follows_the_parameters_of_now(alone):
    """It is told when it is found."""
    alone.start_with_nodes()
    alone.set(ttl_slots=33)
    late = alone.play("late", {"y": "a"})
    assert alone.call("PUT", "agents/late", {"url": late.url}).status == 204

    alone.wait_for_nodes()

    assert until(lambda: parameters_at(alone, "late")["ttl_slots"] == 33)


def test_node_that_is_being_told_parameters_when_they_change_is_told_the_new_ones(alone):
    """What changes between the first telling and the end of finding a node is not lost, nor overtaken by the old."""
    alone.start_with_nodes()
    telling, changed = threading.Event(), threading.Event()
    late = alone.play("late", {"y": "a"})
    late.before_edit = lambda: (telling.set(), changed.wait(10))
    assert alone.call("PUT", "agents/late", {"url": late.url}).status == 204
    assert telling.wait(10)

    with ThreadPoolExecutor(1) as operator:
        answer = operator.submit(alone.set, ttl_slots=34)
        assert until(lambda: alone.operator("parameters")["ttl_slots"] == 34)
        changed.set()
        assert answer.result().status == 200

    assert until(lambda: parameters_at(alone, "late")["ttl_slots"] == 34)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"mode": "magic"}, "mode"), ({"ttl_slots": 0}, "ttl_slots"), ({"keys_ahead": "4"}, "keys_ahead"),
     ({"implicit_idle_s": 0}, "implicit_idle_s"), ({"admission": "maybe"}, "admission"),
     ({"path_policy": "longest"}, "path_policy"), ({"colour": 1}, "colour")],
)  # fmt: skip
def test_wrong_parameter_is_refused_by_name_and_changes_nothing(world, change, field):
    """Not even the right ones beside it."""
    before = world.operator("parameters")

    reply = world.set(**({"keys_ahead": 7} | change))

    assert (reply.status, reply.detail("field")) == (400, field)
    assert world.operator("parameters") == before


def test_rate_of_a_qc_reaches_the_nodes_at_its_ends(world):
    """And no other; an unknown QC is 404."""
    assert world.call("PUT", "qcs/ab/rate", {"low": 1, "high": 2}).status == 204
    rates = {
        n: {q["name"]: q["rate"] for q in world.nodes[n].datastore.tree["qkd-testbed:node"]["qcs"]["qc"] if "rate" in q}
        for n in "abcd"
    }

    assert rates == {"a": {"ab": {"low": 1, "high": 2}}, "b": {"ab": {"low": 1, "high": 2}}, "c": {}, "d": {}}
    assert world.call("PUT", "qcs/xy/rate", {"low": 1, "high": 2}).status == 404
    assert world.call("PUT", "qcs/ab/rate", {"low": 2, "high": 1}).status == 400


@pytest.mark.parametrize(
    ("body", "field"),
    [({"url": "http://x"}, "url"), ({"url": 3}, "url"), ({}, "url"), ({"url": "https://x", "colour": 1}, "url")],
)
def test_wrong_agent_is_refused_by_name(world, body, field):
    """400, and nobody is followed."""
    reply = world.call("PUT", "agents/new", body)

    assert (reply.status, reply.detail("field")) == (400, field)
    assert "new" not in {a["name"] for a in world.operator("agents")["agents"]}


def test_agents_that_are_added_at_once_are_all_known_to_the_next_controller(alone):
    """Each addition reads what is kept, and writes it anew."""
    alone.start().wait_ready(20)
    names = [f"n{i}" for i in range(24)]
    with ThreadPoolExecutor(len(names)) as operators:
        add = lambda name: alone.call("PUT", f"agents/{name}", {"url": "https://127.0.0.1:9"}).status  # noqa: E731
        assert set(operators.map(add, names)) == {204}

    alone.restart()

    assert {a["name"] for a in alone.operator("agents")["agents"]} == set(names)


def test_description_has_all_routes_and_no_others(world):
    """OpenAPI; the description itself and the metrics, which are not of this interface, aside."""
    app = api.make_app(*[Mock()] * 4, book=Mock(), choice=Mock(), settings=Mock(), switches=dict)
    routes = {
        (method.lower(), re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    } - {("get", "/qkd/v1/openapi.json"), ("get", "/metrics")}
    paths = world.operator("openapi.json")["paths"]

    assert {(m, path) for path, found in paths.items() for m in found if m != "parameters"} == routes


def test_answers_are_as_described(world):
    """With sessions in all states that last, and a refusal."""
    world.open("a", "d")
    world.nodes["b"].ask(world.pair("a", "b"), "slave")
    world.nodes["a"].ask(world.pair("a", "a"), "master")
    _, refused = world.request("a", "d")
    assert refused.status == 200
    paths = world.operator("openapi.json")["paths"]
    for path, operations in paths.items():
        if "get" in operations:
            schema = operations["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema_rs.Draft202012Validator(schema).validate(world.operator(path.removeprefix("/qkd/v1/")))


def test_whatever_is_asked_is_answered_as_described(alone):
    """Right and wrong requests alike get no other status or shape; what the description forbids is refused."""
    alone.start_with_nodes()
    alone.open("a", "d")
    schema = schemathesis.openapi.from_dict(alone.operator("openapi.json"))
    url, credentials = f"https://127.0.0.1:{alone.port}", alone.credentials(Role.OPERATOR, "asker")
    with requests.Session() as session:
        for operation in (found.ok() for found in schema.get_all_operations()):
            ask(operation.as_strategy(), TRUE, url, credentials, session, examples=10)
            if operation.body:
                wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
                ask(wrong, [*TRUE, negative_data_rejection], url, credentials, session, examples=10)


def test_port_in_use_is_one_line(alone):
    """REST and OpenFlow alike: address and port, exit status 2."""
    switch = {"name": "s1", "dpid": 1, "ports": [], "hosts": []}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        openflow = {"host": "127.0.0.1", "port": port, "fabric": {"switches": [switch]}}
        for options in ({"port": port}, {"openflow": openflow}):
            alone.directory.joinpath("controller.log").unlink(missing_ok=True)
            process = alone.start(**options)
            with pytest.raises(ProcessFailed, match=f"cannot listen on 127.0.0.1:{port}"):
                process.wait_ready(20)
            assert process.status == 2
            assert len(process.log.read_text().splitlines()) == 1
            process.stop()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"parameters": {"mode": "x"}}, "mode"), ({"colour": 1}, "colour"), ({"openflow": 3}, "openflow")],
)
def test_malformed_configuration_is_one_line(alone, change, said):
    """Names the member; exit status 2."""
    process = alone.start(**change)

    with pytest.raises(ProcessFailed, match=said):
        process.wait_ready(20)
    assert process.status == 2
