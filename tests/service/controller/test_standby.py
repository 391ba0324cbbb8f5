"""A controller that stands by takes over when the leader is gone or asleep: real processes, a real PostgreSQL."""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Iterator

import pytest

from controller.network.nodes import Agent
from etsi import gs015_testbed
from mtls.call import Caller, Unreachable
from mtls.identity import Identity, Role
from node.tree.model import apps
from tests.support.followed import LINKS
from tests.support.two_controllers import NAMES, TwoControllers
from tests.support.waiting import until


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoControllers]:
    """Two controllers that know four nodes."""
    found = TwoControllers(tmp_path_factory.mktemp("standby"))
    try:
        found.start_both(LINKS)
        yield found
    finally:
        found.stop()


@pytest.fixture
def world(made: TwoControllers) -> Iterator[TwoControllers]:
    """The same, with both controllers up again afterwards."""
    yield made
    if not made.stack.postgres.alive():
        made.stack.start_postgres()
    for name, process in made.processes.items():
        if not process.alive():
            made.begin(name)
        process.wake()
    made.wait_for_nodes()
    until(lambda: {made.standing(name).get("standing") for name in NAMES} == {"leader", "standby"})


def kill_leader(world: TwoControllers) -> tuple[str, str]:
    """kill -9 of the one that leads: its name and that of the other one."""
    name = world.leader
    world.processes[name].kill()
    return name, world.other(name)


def ksids(world: TwoControllers, pair: tuple[str, str]) -> dict[str, list[str]]:
    """The applications of a pair at each node."""
    uris = {f"urn:qkd:sae:{sae}" for sae in pair} | set(pair)
    return {
        name: [a["app_id"] for a in apps(node.datastore.tree) if uris & {a.get("server_app_id", ""),
                                                                        *a.get("client_app_id", [])}]
        for name, node in world.nodes.items()
    }  # fmt: skip


def register(world: TwoControllers, pair: tuple[str, str]) -> str | None:
    """Both sides register: the KSID of their key session, once the store has it as an open one.

    What either side is told is no measure. One that waited is told nothing more, and the slave may have heard of a
    session from a leader that died before it was open everywhere.
    """
    master, slave = pair
    world.nodes[world.saes[slave]].ask(pair, "slave")
    world.nodes[world.saes[master]].ask(pair, "master")
    return next(iter(world.kept_of(master, state="open")), None)


def test_stand_by_sends_operators_to_the_leader_and_tells_what_it_is(world):
    """307 with the same path there; its own standing and figures it tells itself, to operators alone."""
    leader = world.leader
    other = world.other(leader)

    asked = world.ask(other, "/qkd/v1/key_sessions?x=1")
    said = world.standing(other)

    assert (asked.status, asked.detail("leader"), asked.detail("cause")) == (307, leader, "standby")
    assert (said["standing"], said["leader"], said["name"]) == ("standby", leader, other)
    assert said["url"] == f"https://127.0.0.1:{world.ports[leader]}"
    with pytest.raises(Unreachable, match="not JSON"):  # it is Prometheus' text
        world.ask(other, "/metrics")
    assert world.ask(other, "/qkd/v1/status", Role.NODE).status == 401
    assert world.operator("status")["leader"]["term"] == said["term"]


def test_open_sessions_and_parameters_outlive_the_leader_and_new_sessions_open(world):
    """kill -9: all nodes keep what they have, and the other controller goes on with it in the next term."""
    before = world.open("a", "d")
    assert world.set(mode="otp").ok
    term = world.term_of(world.leader)

    _, other = kill_leader(world)
    world.wait_for_leader(other)

    assert world.term_of(other) == term + 1
    after = world.session(before["ksid"])
    assert (after["path"], after["master_sae"]) == (before["path"], before["master_sae"])
    assert world.operator("parameters")["mode"] == "otp"
    assert world.open("b", "c")["state"] == "open"
    led = world.events("leads")[-1]
    assert (led["controller"], led["term"]) == (other, term + 1)
    assert led["silent_s"] > 0
    world.set(mode="basic")


def test_controller_that_was_killed_stands_by_when_it_is_back(world):
    """And leads again when the other one is gone."""
    name, other = kill_leader(world)
    world.wait_for_leader(other)
    world.begin(name)
    said = until(lambda: (found := world.standing(name)).get("leader") == other and found)
    assert said["standing"] == "standby"

    world.processes[other].kill()

    world.wait_for_leader(name)


def test_leader_that_slept_past_its_lease_opens_nothing_and_stands_by(world):
    """kill -STOP, and -CONT when the other one leads: the same process, which has changed no node."""
    session = world.open("a", "b")
    name = world.leader
    other = world.other(name)
    process = world.processes[name]
    pid = process.pid
    process.pause()
    world.wait_for_leader(other)
    told = {node: list(played.told) for node, played in world.nodes.items()}

    process.wake()

    said = until(lambda: (found := world.standing(name)).get("leader") == other and found)
    assert (process.alive(), process.pid, said["standing"]) == (True, pid, "standby")
    assert {node: list(played.told) for node, played in world.nodes.items()} == told
    assert world.session(session["ksid"])["path"] == session["path"]
    assert world.open("a", "b")["state"] == "open"


@pytest.mark.parametrize("point", ["before the first node is told", "when the first node has been told",
                                   "when the last node has been told"])  # fmt: skip
def test_session_that_was_being_opened_is_opened_once(world, point):
    """kill -9 in the middle: nodes forget what they were told, and the pair has one session when it asks again."""
    pair = world.pair("a", "b")
    name = world.leader
    other = world.other(name)
    killed, told = threading.Event(), threading.Lock()
    wanted = {"before the first node is told": 0, "when the first node has been told": 1}.get(point, 2)
    count = [0]

    def stumble(moment: str) -> None:
        with told:
            count[0] += 1 if moment == "after" else 0
            if count[0] >= wanted and not killed.is_set():
                killed.set()
                world.processes[name].kill()

    for node in world.nodes.values():
        node.before_edit = (lambda: stumble("before")) if wanted == 0 else lambda: None
        node.after_edit = lambda: stumble("after")
    try:
        assert world.nodes["b"].ask(pair, "slave").status == 202
        first = threading.Thread(target=world.nodes["a"].ask, args=(pair, "master"))
        first.start()
        assert killed.wait(60)
    finally:
        for node in world.nodes.values():
            node.before_edit = node.after_edit = lambda: None
    world.wait_for_leader(other)
    first.join()

    ksid = until(lambda: register(world, pair))

    until(lambda: {name: found for name, found in ksids(world, pair).items() if found} == {"a": [ksid], "b": [ksid]},
          else_tell=lambda: (ksids(world, pair), world.kept_of(pair[0])))  # fmt: skip
    until(lambda: [s["ksid"] for s in world.open_sessions().values() if s["master_sae"] == pair[0]] == [ksid])
    until(lambda: world.kept_of(pair[0]) == [ksid])


def test_many_pairs_that_ask_while_the_leader_dies_have_one_session_each(world):
    """Those that were refused meanwhile ask again; so do those that had it for the moment before it was kept."""
    pairs = [world.pair(*ends) for ends in [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")] * 3]

    def open_one(pair: tuple[str, str]) -> None:
        until(lambda: register(world, pair))

    threads = [threading.Thread(target=open_one, args=(pair,)) for pair in pairs]
    for thread in threads[:8]:
        thread.start()
    _, other = kill_leader(world)
    for thread in threads[8:]:
        thread.start()
    for thread in threads:
        thread.join()
    world.wait_for_leader(other)

    def has_one(pair: tuple[str, str]) -> bool:
        there = {name: ids for name, ids in ksids(world, pair).items() if ids}
        if not there:
            open_one(pair)
        return there == {world.saes[sae]: world.kept_of(pair[0]) for sae in pair} and len(world.kept_of(pair[0])) == 1

    world.wait_for_nodes()
    for pair in pairs:
        until(lambda pair=pair: has_one(pair), else_tell=lambda pair=pair: (ksids(world, pair), world.kept_of(pair[0])))


def test_session_that_ends_while_nobody_leads_is_over_everywhere(world):
    """The node tells it to whoever leads next."""
    session = world.open("a", "d")
    kill_leader(world)

    world.nodes["a"].end_in_silence(session["ksid"])

    until(lambda: session["ksid"] not in world.open_sessions())
    until(lambda: not any(ksids(world, (session["master_sae"], session["slave_sae"])).values()))


def test_without_the_database_nothing_is_opened_and_the_leader_stays(world):
    """One line says why. Open sessions go on, and when the database is back, so does the leader, in the same term."""
    session = world.open("a", "b")
    name = world.leader
    term = world.term_of(name)
    world.stack.postgres.kill()

    _, refused = world.request("a", "b")
    until(lambda: world.standing(name).get("standing") == "unsure")
    _, at_once = world.request("a", "c")

    assert (refused.status, refused.detail("cause")) == (503, "not_kept")
    assert (at_once.status, at_once.detail("cause")) == (503, "not_kept")
    assert "\n" not in at_once.message
    reply = world.operators.request(
        "PATCH", f"https://127.0.0.1:{world.ports[name]}/qkd/v1/parameters", to=Identity(Role.CONTROLLER, name),
        body={"keys_ahead": 2},
    )  # fmt: skip
    assert (reply.status, reply.detail("cause")) == (503, "not_kept")
    assert world.nodes["a"].app(session["ksid"])["app_id"] == session["ksid"]

    world.stack.start_postgres()

    until(lambda: world.standing(name).get("standing") == "leader")
    assert world.term_of(name) == term
    world.wait_for_nodes()
    assert world.open("a", "b")["state"] == "open"
    assert world.open_sessions()[session["ksid"]]["path"] == session["path"]


def test_term_goes_above_that_of_nodes_when_the_database_has_lost_commits(world):
    """As a standby without them does that was promoted: nodes know a later term than the database gives."""
    session = world.open("a", "b")
    term = world.term_of(world.leader) + 10
    world.sql("UPDATE leader SET term = term + 10")
    until(lambda: world.term_of(world.leader) >= term)
    world.wait_for_nodes()
    assert world.set(keys_ahead=3).status == 200  # and all nodes have heard of that term

    world.sql("UPDATE leader SET term = 1")

    until(lambda: world.term_of(world.leader) > term)
    world.wait_for_nodes()
    until(lambda: session["ksid"] in world.open_sessions())
    assert world.open("a", "b")["state"] == "open"


def test_leader_that_ends_in_order_is_followed_at_once(world):
    """It resigns."""
    name = world.leader
    world.processes[name].stop()

    other = world.other(name)
    world.wait_for_leader(other)
    assert world.events("stopped")[-1]["time"] <= world.events("leads")[-1]["time"] + 60
    world.begin(name)


class Controller:
    """A controller of the test's that speaks to a node in a term, or without one."""

    def __init__(self, world: TwoControllers, node: str, name: str, role: Role = Role.CONTROLLER) -> None:
        self._caller = Caller(world.credentials(role, name))
        self._agent = Agent(node, world.nodes[node].url)

    def edit(self, term: int | None):
        """Set a parameter."""
        at = "/restconf/data/qkd-testbed:node/parameters"
        headers = {} if term is None else {gs015_testbed.TERM_HEADER: str(term)}
        return self._caller.request(
            "PATCH", self._agent.url + at, to=Identity(Role.NODE, self._agent.name),
            body={"qkd-testbed:parameters": {"keys_ahead": 3}}, conditions=headers,
        )  # fmt: skip


def test_node_does_what_the_controller_of_the_latest_term_says_and_nobody_else(world):
    """409 in RESTCONF's form, with that term; an operator may do what he likes; and anybody may read."""
    node = f"n{uuid.uuid4().hex[:6]}"
    world.play(node, {"q": "elsewhere"})
    try:
        old, new = Controller(world, node, "ctl"), Controller(world, node, "ctl2")
        assert old.edit(None).status == 204  # nobody has spoken of a term
        assert old.edit(4).status == 204
        assert new.edit(5).status == 204

        for refused in (old.edit(4), old.edit(5), old.edit(None)):
            error = refused.body["ietf-restconf:errors"]["error"][0]
            assert (refused.status, error["error-tag"]) == (409, "in-use")
            assert gs015_testbed.later_term(refused.body) == 5
            assert "goes by controller ctl2, which leads in term 5" in error["error-message"]
        assert new.edit(5).status == 204
        assert Controller(world, node, "op", Role.OPERATOR).edit(None).status == 204
        assert old.edit(6).status == 204
        assert old._caller.request(
            "GET", f"{old._agent.url}/restconf/data/qkd-testbed:node", to=Identity(Role.NODE, node),
            conditions={gs015_testbed.TERM_HEADER: "1"},
        ).ok  # fmt: skip
    finally:
        world.nodes.pop(node).stop()


def test_signal_ends_a_stand_by(world):
    """In order, as it ends a leader."""
    name = world.other(world.leader)
    process = world.processes[name]
    process.stop()

    assert process.status == 0
    with pytest.raises(Unreachable):
        world.ask(name, "/qkd/v1/leader")
    assert signal.SIGTERM  # by which it was asked
    world.begin(name)
