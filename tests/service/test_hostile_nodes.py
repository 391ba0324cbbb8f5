"""The real controller among nodes that are slow, lie or say too much: all others are served as before."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import flask
import pytest
from flask import request

from controller import limits
from controller.agents.agents import AgentFailed, Agents
from controller.network.nodes import Agent
from etsi import gs015
from ietf.restconf import parse_target
from mtls import deadline
from mtls.call import Caller
from mtls.identity import Role
from mtls.serve import Problem
from node.tree.model import MODEL, apps, link_id, links
from telemetry import journal
from telemetry.journal import Journal
from tests.support.followed import CONTROLLER, LINKS, QOS, World
from tests.support.played import PlayedNode
from tests.support.waiting import until


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A controller that knows four nodes, of which c goes astray."""
    made = World(tmp_path_factory.mktemp("ctl"))
    try:
        made.start_with_nodes()
        yield made
    finally:
        made.stop()


def misbehaved(world: World, name: str) -> list[str]:
    """What the controller's journal has against a node."""
    events = journal.read(world.directory / "ctl" / "journal.jsonl", "agent_misbehaves")
    return [e["error"] for e in events if e["node"] == name]


def test_node_that_answers_slowly_holds_up_no_other(world):
    """Sixty applications want keys with SAEs at it, at a node that has others to serve as well."""
    go = threading.Event()
    world.nodes["c"].before_edit = lambda: go.wait(20)
    try:
        for pair in [world.pair("c", "a") for _ in range(60)]:
            for node, side in (("c", "master"), ("a", "slave")):
                world.nodes[node].registrations._notify(*pair, side, QOS, implicit=True)
        started = time.monotonic()
        assert world.open("a", "b")["state"] == "open"
        assert time.monotonic() - started < 12, "as long as a few slow calls take, and not sixty"
    finally:
        go.set()
        world.nodes["c"].before_edit = lambda: None
    assert until(lambda: world.nodes["c"].ask(world.pair("c", "d"), "master").status == 202)


def test_agent_that_keeps_its_calls_waiting_is_not_called_again(world, tmp_path):
    """Whoever wants something of it is told soon, and holds up nobody with what waits there."""
    agents = Agents(world.credentials(Role.CONTROLLER, "ctl"), Journal(tmp_path / "journal.jsonl", "ctl"))
    node, go = world.nodes["d"], threading.Event()
    node.before_edit = lambda: go.wait(20)

    def configure(_: int) -> str:
        try:
            agents.configure({Agent("d", node.url): {}})
        except AgentFailed as failure:
            return failure.reason
        return ""

    try:
        with ThreadPoolExecutor(limits.CALLS_TO_ONE + 10) as pool:
            calls = [pool.submit(configure, i) for i in range(limits.CALLS_TO_ONE + 10)]
            refused = [call.result() for call in itertools.islice(as_completed(calls), 10)]
            go.set()
    finally:
        go.set()
        node.before_edit = lambda: None
        agents.close()

    assert set(refused) == {f"it keeps {limits.CALLS_TO_ONE} calls waiting"}


def test_agent_that_is_slow_is_called_by_few_at_a_time(world, tmp_path):
    """Each of its calls is answered in time; but those that wait for their turn hold threads that others need."""
    agents = Agents(world.credentials(Role.CONTROLLER, "ctl"), Journal(tmp_path / "journal.jsonl", "ctl"))
    node = world.nodes["d"]

    def configure(_: int) -> bool:
        with contextlib.suppress(AgentFailed):
            agents.configure({Agent("d", node.url): {}})
            return True
        return False

    try:
        node.before_edit = lambda: time.sleep(1.0)
        with ThreadPoolExecutor(limits.CALLS) as pool:
            slow = list(pool.map(configure, range(limits.CALLS)))
            node.before_edit = lambda: None
            assert all(configure(0) for _ in range(limits.CALLS_TO_ONE))  # which tell that the agent is quick again
            quick = list(pool.map(configure, range(3 * limits.CALLS_TO_ONE)))
    finally:
        node.before_edit = lambda: None
        agents.close()

    assert limits.CALLS_TO_ONE <= sum(slow) < limits.CALLS
    assert all(quick)


def test_node_that_comes_again_is_heard_while_another_holds_up_its_sessions(world):
    """Whoever tells the ends of a session something holds it; what a node says does not wait for that."""
    ksid, go = world.open("a", "d")["ksid"], threading.Event()
    there = threading.Event()
    world.nodes["d"].before_edit = lambda: (there.set(), go.wait(20))
    try:
        content = {"qkd_application": {"app_id": ksid, "app_qos": {"jitter": 4}}}
        world.nodes["a"].streams.notify("sdqkdn_application_qos_update", content)
        assert there.wait(10)
        for feed, _, _ in world.nodes["a"].streams._feeds:
            feed.close()
        assert until(lambda: world.nodes["a"].followed and "a" in world.operator("status")["nodes"])
        world.catch_up("a")
    finally:
        go.set()
        world.nodes["d"].before_edit = lambda: None


def test_error_of_eight_megabytes_goes_into_no_journal(world):
    """Nor into an answer: it is cut."""
    node = world.nodes["d"]

    def shout() -> None:
        raise Problem(500, "x" * (8 << 20))

    node.before_edit = shout
    try:
        _, refused = world.request("a", "d")
    finally:
        node.before_edit = lambda: None

    assert refused.detail("cause") == "agent_unreachable"
    assert len(refused.message) < 1000
    (event,) = [e for e in journal.read(world.directory / "ctl" / "journal.jsonl", "application_refused")
                if e.get("node") == "d"]  # fmt: skip
    assert len(event["message"]) < 1000


def test_node_that_shows_the_id_of_one_that_is_away_is_not_taken_for_it(world):
    """Not by a restarted controller either, which has not seen the other one yet."""
    victim = world.nodes["d"]
    victim.stop()
    world.restart()
    directory = world.directory / "mallory"
    # The configuration of d, and a certificate of one's own.
    liar = PlayedNode(directory, world.credentials(Role.NODE, "mallory"), "d", LINKS["d"], world.saes)
    try:
        assert world.call("PUT", "agents/mallory", {"url": liar.url}).status == 204
        assert until(lambda: misbehaved(world, "mallory"))
        assert "no other node has had" in misbehaved(world, "mallory")[0]
        assert "mallory" not in world.operator("status")["nodes"]
    finally:
        world.call("DELETE", "agents/mallory")
        liar.stop()
        world.play("d", LINKS["d"], port=victim.server.port)
    world.wait_for_nodes()


def test_node_that_registers_an_sae_of_another_does_not_keep_that_one_out(world):
    """The controller knows which SAE is at which node, as nodes do."""
    pair = world.pair("a", "b")
    world.restart(saes=world.saes)
    world.wait_for_nodes()
    for side, peer in (("slave", pair), ("master", pair[::-1])):
        world.nodes["c"].registrations._notify(*peer, side, QOS, implicit=False)
    world.catch_up("c")
    assert world.nodes["c"].ask(pair, "slave").detail("cause") == "foreign"

    assert world.nodes["b"].ask(pair, "slave").status == 202
    assert world.nodes["a"].ask(pair, "master").status == 200


def test_slot_of_a_liar_does_not_stop_admission(world):
    """Nor what it says of QCs that are not its own."""
    world.set(admission="eq1")
    try:
        for slot in range(1, 6):
            for name, node in world.nodes.items():
                node.report(slot, **dict.fromkeys(LINKS[name], (40, 0, 0)))
        world.nodes["c"].report(1 << 62, ac=(0, 0, 0), ab=(0, 1 << 60, 0))
        world.catch_up("b")
        assert until(lambda: world.operator("status")["nodes"]["c"]["slot"] == 1 << 62)

        assert world.request("a", "c")[1].status == 200
        assert world.request("a", "b")[1].status == 200
    finally:
        world.set(admission="none")


def test_node_with_one_session_does_not_have_others_refused(world):
    """It claims more of the others' QCs than they make; what it can have asked of them is little."""
    world.open("d", "a")  # over cd, and ac
    world.set(admission="eq1")
    try:
        for slot in range(101, 118):
            for name in "abc":
                world.nodes[name].report(slot, **dict.fromkeys(LINKS[name], (40, 0, 0)))
            world.nodes["d"].report(slot, cd=(40, 0, 0), ac=(0, 1 << 20, 0), bc=(0, 1 << 20, 0))
        for name in world.nodes:
            world.catch_up(name)

        asked = {q["qc"]: q["requested_per_slot"] for q in world.operator("qcs")["qcs"]}
        assert 0 < asked["ac"] < 10
        assert world.request("a", "c")[1].status == 200
    finally:
        world.set(admission="none")


def test_end_whose_word_was_lost_is_found_in_the_nodes_data(world):
    """The session is not configured anew, and the node need not tell of it again."""
    ksid = world.open("a", "d")["ksid"]
    node = world.nodes["a"]
    told = len(node.told)

    node.end_in_silence(ksid)

    assert until(lambda: ksid not in world.open_sessions())
    assert until(lambda: node.ended == [])
    assert until(lambda: world.nodes["d"].sessions.get(ksid) is None)
    assert ("+", "app", ksid) not in node.told[told:]


def deafen(node: PlayedNode) -> None:
    """What the node says from now on gets lost, until the controller has noticed that the connection is dead."""
    for feed, _, _ in node.streams._feeds:
        feed.publish = lambda _: None


def wake(node: PlayedNode) -> None:
    """The controller notices."""
    for feed, _, _ in node.streams._feeds:
        feed.close()


def test_withdrawal_whose_word_was_lost_is_told_again(world):
    """No master gets a session with a slave that has gone."""
    node, pair = world.nodes["d"], world.pair("a", "d")
    assert node.ask(pair, "slave").status == 202
    deafen(node)
    node.registrations.withdraw(*pair)

    wake(node)

    assert until(lambda: pair not in world.waiting())
    assert world.nodes["a"].ask(pair, "master").status == 202


def test_registration_that_still_waits_for_its_turn_when_it_is_withdrawn_comes_to_nothing(world):
    """The node keeps the controller busy; what it has announced is done later than its withdrawal is heard."""
    node, go = world.nodes["c"], threading.Event()
    pair, later = world.pair("a", "c"), world.pair("a", "c")
    node.before_edit = lambda: go.wait(20)
    try:
        for busy in [world.pair("c", "a") for _ in range(2 * limits.STEPS_FOR_ONE)]:
            for name, side in (("a", "slave"), ("c", "master")):
                world.nodes[name].registrations._notify(*busy, side, QOS, implicit=True)
        node.registrations._notify(*pair, "slave", QOS, implicit=False)
        node.registrations.withdraw(*pair)
        node.registrations._notify(*later, "slave", QOS, implicit=False)
        world.catch_up("c")
    finally:
        go.set()
        node.before_edit = lambda: None

    assert until(lambda: later in world.waiting())
    assert pair not in world.waiting()


def test_session_whose_slave_had_withdrawn_before_its_master_came_ends(world):
    """The word of it came late."""
    node, pair = world.nodes["d"], world.pair("a", "d")
    assert node.ask(pair, "slave").status == 202
    deafen(node)
    node.registrations.withdraw(*pair)
    ksid = world.nodes["a"].ask(pair, "master").ksid
    world.session(ksid)

    wake(node)

    assert until(lambda: ksid not in world.open_sessions())
    assert until(lambda: world.nodes["a"].sessions.get(ksid) is None)


def test_end_of_a_session_that_the_controller_does_not_know_is_confirmed_too(world):
    """Or the node would tell of it for ever."""
    known: list[str] = []
    node = world.nodes["b"]
    node.registrations.on_end_known(known.append)

    node.registrations.ended("99999999-0000-4000-8000-000000000000")

    assert until(lambda: known == ["99999999-0000-4000-8000-000000000000"])


def test_removal_that_a_node_stumbles_over_is_tried_again(world):
    """Though the node was never away."""
    ksid = world.open("a", "d")["ksid"]
    (link,) = world.nodes["a"].app(ksid)["backing_qkdl_id"]
    world.nodes["c"].broken = True
    try:
        assert world.call("DELETE", f"key_sessions/{ksid}").status == 204
    finally:
        world.nodes["c"].broken = False

    def left() -> list[str]:
        return [e["qkdl_id"] for e in links(world.nodes["c"].datastore.tree) if e["qkdl_id"] == link]

    assert until(lambda: left() == [])


def test_implicit_half_does_not_hold_up_a_registered_session(world):
    """Somebody asked for keys while the two were registering; the other half of that never comes."""
    pair = world.pair("a", "b")
    world.nodes["b"].registrations.announce(*pair, QOS)
    assert until(lambda: pair in world.waiting())
    assert world.nodes["b"].ask(pair, "slave").status == 202
    started = time.monotonic()

    assert world.nodes["a"].ask(pair, "master").status == 200
    assert time.monotonic() - started < 10
    assert pair not in world.waiting()


def test_change_of_an_application_while_another_is_read_is_kept(world):
    """The controller writes what it has read only if nobody has written meanwhile."""
    ksid = world.open("a", "d")["ksid"]
    node, first = world.nodes["a"], threading.Semaphore(1)

    def interfere() -> None:
        if request.method == "PUT" and first.acquire(blocking=False):
            entry = {**node.app(ksid), "app_priority": 7}
            target = parse_target(MODEL, f"{gs015.NODE}/qkd_applications/qkd_app={ksid}")
            node.datastore.edit("PUT", target, {"etsi-qkd-sdn-node:qkd_app": [entry]})

    node.before_edit = interfere
    try:
        content = {"qkd_application": {"app_id": ksid, "app_qos": {"jitter": 4}}}
        node.streams.notify("sdqkdn_application_qos_update", content)
        assert until(lambda: node.app(ksid)["app_qos"].get("jitter") == 4)
    finally:
        node.before_edit = lambda: None

    assert node.app(ksid)["app_priority"] == 7


def test_application_that_another_makes_while_it_is_looked_for_is_kept(world):
    """It was not there when the controller looked."""
    ksid = world.open("a", "b")["ksid"]
    node, first = world.nodes["a"], threading.Semaphore(1)
    entry = {**node.app(ksid), "app_priority": 7}
    node.datastore.end_app(ksid)

    def interfere() -> None:
        if request.method == "PUT" and first.acquire(blocking=False):
            target = parse_target(MODEL, f"{gs015.NODE}/qkd_applications/qkd_app={ksid}")
            node.datastore.edit("PUT", target, {"etsi-qkd-sdn-node:qkd_app": [entry]})

    def made() -> list[int | None]:
        return [a["app_qos"].get("jitter") for a in apps(node.datastore.tree) if a["app_id"] == ksid]

    node.before_edit = interfere
    try:
        content = {"qkd_application": {"app_id": ksid, "app_qos": {"jitter": 4}}}
        node.streams.notify("sdqkdn_application_qos_update", content)
        assert until(lambda: made() == [4])
    finally:
        node.before_edit = lambda: None

    assert node.app(ksid)["app_priority"] == 7


@pytest.fixture
def stumbling(world) -> Iterator[PlayedNode]:
    """c does nothing that it is told, until the test has it do so."""
    world.nodes["c"].broken = True
    yield world.nodes["c"]
    world.nodes["c"].broken = False


def test_setting_that_a_node_did_not_take_over_is_told_again_and_the_operator_knows(world, stumbling):
    """202 names the node; nothing is undone at the others, and the node stays part of the network."""
    reply = world.set(ttl_slots=21)
    assert (reply.status, reply.body["not_yet"]) == (202, ["c"])
    ttl = [n.datastore.tree["qkd-testbed:node"]["parameters"]["ttl_slots"] for n in world.nodes.values()]
    assert ttl == [21, 21, 15, 21]
    assert "c" in world.operator("status")["nodes"]

    stumbling.broken = False

    assert until(lambda: stumbling.datastore.tree["qkd-testbed:node"]["parameters"]["ttl_slots"] == 21)
    assert world.set(ttl_slots=15).status == 200


def test_generation_that_one_end_did_not_take_over_is_told_again_by_a_new_controller_too(world, stumbling):
    """The wish is kept until both ends have it, and no longer: others may change it then."""
    reply = world.call("PUT", "qcs/ac/generation", {"enabled": False})
    assert (reply.status, reply.body) == (202, {"not_yet": ["c"]})
    key = world.link("ac")["qkdl_id"]
    world.restart()
    stumbling.broken = False

    assert until(lambda: stumbling.link(key)["qkdl_enable"] is False)
    world.wait_for_nodes()
    assert until(lambda: world.call("PUT", "qcs/ac/generation", {"enabled": True}).status == 204)
    assert [world.nodes[n].link(key)["qkdl_enable"] for n in "ac"] == [True, True]


def test_wish_about_a_link_that_a_node_does_not_show_now_waits_for_it(world, stumbling):
    """Another controller has taken the link away for a while; the operator's wish has reached nobody there."""
    key, feeds = world.link("ac")["qkdl_id"], gs015.NODE + "/qkd_links/qkd_link="
    link = stumbling.link(key)
    try:
        assert world.call("PUT", "qcs/ac/generation", {"enabled": False}).status == 202
        stumbling.datastore.edit("DELETE", parse_target(MODEL, feeds + key), None)
        stumbling.fail("cd")  # so that the node is read again
        assert until(lambda: "ac" not in {e["qc"] for e in world.operator("topology")["qcs"]})
        stumbling.broken = False
        assert until(lambda: world.set(ttl_slots=15).body.get("not_yet") == ["c"])

        stumbling.datastore.edit("PUT", parse_target(MODEL, feeds + key), {"etsi-qkd-sdn-node:qkd_link": [link]})
        stumbling.heal("cd")

        assert until(lambda: stumbling.link(key)["qkdl_enable"] is False)
        assert until(lambda: world.set(ttl_slots=15).status == 200)
    finally:
        stumbling.broken = False
        stumbling.datastore.edit("PUT", parse_target(MODEL, feeds + key), {"etsi-qkd-sdn-node:qkd_link": [link]})
        stumbling.heal("cd")
        assert until(lambda: world.call("PUT", "qcs/ac/generation", {"enabled": True}).status == 204)


class Late:
    """A node, and one who calls it: the first change of it that the node hears of is obeyed when `obey` is called."""

    def __init__(self, world: World, directory: Path) -> None:
        self.node = PlayedNode(directory / "late", world.credentials(Role.NODE, "d"), "d", LINKS["d"], world.saes)
        self.agents = Agents(world.credentials(Role.CONTROLLER, "ctl"), Journal(directory / "journal.jsonl", "ctl"))
        self.agent = Agent("d", self.node.url)
        self._first, self._go, self._obeyed = threading.Semaphore(1), threading.Event(), threading.Event()
        self.node.before_edit = self._sleep
        self.node.after_edit = self._note

    def _sleep(self) -> None:
        if self._first.acquire(blocking=False):
            flask.g.late = True
            self._go.wait(20)

    def _note(self) -> None:
        if flask.g.get("late"):
            self._obeyed.set()

    def given_up(self, change: Callable[[], None]) -> None:
        """The controller does not wait for the answer any more."""
        with deadline.until(time.monotonic() + 1), pytest.raises(AgentFailed):
            change()

    def obey(self) -> None:
        """Return when the node has done, or refused, what it was told first."""
        self._go.set()
        assert self._obeyed.wait(10)

    def stop(self) -> None:
        """End them."""
        self._go.set()
        self.agents.close()
        self.node.stop()


@pytest.fixture
def late(world, tmp_path) -> Iterator[Late]:
    """A node that sleeps over the first change."""
    made = Late(world, tmp_path)
    yield made
    made.stop()


def test_parameters_that_a_node_takes_over_late_do_not_replace_newer_ones(late):
    """A call that was given up may be done all the same: the node was asleep, and the request lay in its socket."""
    ttls = [{"parameters": {"ttl_slots": slots}} for slots in (20, 30)]
    late.given_up(lambda: late.agents.set_additions(late.agent, ttls[0]))
    late.agents.set_additions(late.agent, ttls[1])

    late.obey()

    assert late.node.datastore.tree["qkd-testbed:node"]["parameters"]["ttl_slots"] == 30


def test_generation_that_a_node_takes_over_late_does_not_replace_a_newer_wish(late):
    """Nor if the newer one is what the link does already."""
    key = link_id("cd")
    late.given_up(lambda: late.agents.enable(late.agent, key, enabled=False))
    late.agents.enable(late.agent, key, enabled=True)

    late.obey()

    assert late.node.link(key)["qkdl_enable"] is True


def test_requests_of_one_party_that_take_long_hold_up_no_other_operator(world):
    """A node takes over nothing that is set, and somebody sets it again and again."""
    many, go = 4 * limits.OPERATORS, threading.Event()
    flooding = Caller(world.credentials(Role.OPERATOR, "mallory"), connections=many)
    world.nodes["c"].before_edit = lambda: go.wait(30)
    url = f"https://127.0.0.1:{world.port}/qkd/v1/parameters"
    path = world.directory / "ctl" / "journal.jsonl"
    before = len(journal.read(path, "parameters"))

    def set_again() -> None:
        flooding.request("PATCH", url, to=CONTROLLER, body={"ttl_slots": 15}, timeout_s=30)

    with ThreadPoolExecutor(many) as pool:
        flood = [pool.submit(set_again) for _ in range(many)]
        try:
            assert until(lambda: len(journal.read(path, "parameters")) >= before + limits.OPERATORS_FOR_ONE)
            answered_meanwhile = 0
            for _ in range(20):
                assert world.operator("status")
                answered_meanwhile += not any(request.done() for request in flood)
            assert answered_meanwhile
        finally:
            go.set()
            world.nodes["c"].before_edit = lambda: None
    flooding.close()
    assert until(lambda: world.set(ttl_slots=15).status == 200)


def test_registrations_beyond_what_can_wait_are_refused_to_that_node_alone(world):
    """A flood of announcements takes its own share of the threads; the journal has a line now and then."""
    node, go = world.nodes["c"], threading.Event()
    node.before_edit = lambda: go.wait(60)
    before, pairs = len(misbehaved(world, "c")), [world.pair("a", "c") for _ in range(900)]
    try:
        for pair in [world.pair("c", "a") for _ in range(2 * limits.STEPS_FOR_ONE)]:  # which keep c's threads
            for name, side in (("a", "slave"), ("c", "master")):
                world.nodes[name].registrations._notify(*pair, side, QOS, implicit=True)
        with ThreadPoolExecutor(1) as pool:
            flood = pool.submit(lambda: [node.registrations.announce(*pair, QOS) for pair in pairs])
            assert world.open("a", "b")["state"] == "open"
            flood.result()
        assert world.open("a", "b")["state"] == "open"
    finally:
        go.set()
        node.before_edit = lambda: None

    # None where calls to c are given up so soon that its announcements do not pile up (test_turns has their bound).
    assert len(misbehaved(world, "c")) - before < 20
