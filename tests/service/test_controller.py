"""The real controller over real mutual TLS; agents are played by the test."""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtls.authority import Authority
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role
from mtls.serve import Problem, allow, json_body, new_app
from mtls.server import Server
from telemetry import journal
from testbed.loopback import free_port
from testbed.processes import Process, ProcessFailed

CONTROLLER = Identity(Role.CONTROLLER, "ctl")
# A triangle with a tail: a-b, b-c, a-c, c-d.
LINKS = {
    "a": {"ab": "b", "ac": "c"},
    "b": {"ab": "a", "bc": "c"},
    "c": {"bc": "b", "ac": "a", "cd": "d"},
    "d": {"cd": "c"},
}


class Agent:
    """A node's agent: remembers what the controller told it."""

    def __init__(self, world: World, name: str) -> None:
        self.told: list[tuple[str, str, Any]] = []
        self.broken = False
        self.delay_s = 0.0
        app = new_app(name)

        @app.put("/qkd/v1/key_sessions/<ksid>")
        @allow(Role.CONTROLLER)
        def put(ksid: str) -> tuple[str, int]:
            time.sleep(self.delay_s)
            if self.broken:
                raise Problem(500, "out of order")
            self.told.append(("PUT", ksid, json_body()))
            return "", 204

        @app.delete("/qkd/v1/key_sessions/<ksid>")
        @allow(Role.CONTROLLER)
        def delete(ksid: str) -> tuple[str, int]:
            self.told.append(("DELETE", ksid, None))
            return "", 204

        self.server = Server(app, "127.0.0.1", 0, world.credentials(Role.NODE, name), threads=2)
        self.server.start()


class World:
    """The controller's process, its agents, and clients of all roles."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory / "pki")
        self.port = free_port()
        self.callers: dict[tuple[Role, str], Caller] = {}
        self.agents: dict[str, Agent] = {}
        self.process: Process | None = None

    def credentials(self, role: Role, name: str):
        """That party's."""
        return self.authority.issue(Identity(role, name), addresses=["127.0.0.1"])

    def write(self, **options: Any) -> Path:
        """The controller's configuration."""
        document = {
            "name": "ctl", "host": "127.0.0.1", "port": self.port, "directory": str(self.directory / "ctl"),
            "credentials": self.credentials(Role.CONTROLLER, "ctl").to_config(), "openflow": None,
        }  # fmt: skip
        path = self.directory / "controller.json"
        path.write_text(json.dumps(document | options))
        return path

    def start(self, **options: Any) -> Process:
        """Start the controller."""
        command = [sys.executable, "-P", "-m", "controller", str(self.write(**options))]
        self.process = Process("controller", command, self.directory / "controller.log")
        return self.process

    def start_agents(self) -> None:
        """Start an agent a node and register them."""
        for name in LINKS:
            self.agents[name] = Agent(self, name)
            assert self.register(name).ok

    def register(self, name: str, caller: str | None = None) -> Reply:
        """A node's registration."""
        links = [{"qc": qc, "peer": peer} for qc, peer in LINKS[name].items()]
        body = {"agent_url": f"https://127.0.0.1:{self.agents[name].server.port}", "links": links}
        return self.call(Role.NODE, caller or name, "PUT", f"/qkd/v1/nodes/{name}", body)

    def call(self, role: Role, name: str, method: str, path: str, body: Any = None) -> Reply:
        """One call as that party."""
        if (role, name) not in self.callers:
            self.callers[role, name] = Caller(self.credentials(role, name))
        return self.callers[role, name].request(
            method, f"https://127.0.0.1:{self.port}{path}", to=CONTROLLER, body=body, timeout_s=15
        )

    def new_app(self, node: str, pair: tuple[str, str], side: str, change: Any = None) -> Reply:
        """One side's registration of a session."""
        document = {"node": node, "master_sae": pair[0], "slave_sae": pair[1], "side": side, "qos": {}}
        document |= change or {}
        return self.call(Role.NODE, node, "POST", "/qkd/v1/applications", document)

    def open(self, master: str, slave: str) -> dict[str, Any]:
        """A session between applications at two nodes, opened."""
        pair = new_pair()
        assert self.new_app(slave, pair, "slave").status == 202
        reply = self.new_app(master, pair, "master")
        assert reply.status == 200, reply
        return {"pair": pair, **reply.body}

    def operator(self, what: str) -> Any:
        """What the operator sees there."""
        reply = self.call(Role.OPERATOR, "op", "GET", f"/qkd/v1/{what}")
        assert reply.ok, reply
        return reply.body

    def stop(self) -> None:
        """End everything."""
        for caller in self.callers.values():
            caller.close()
        if self.process is not None:
            self.process.stop()
        for agent in self.agents.values():
            agent.server.stop()


def new_pair() -> tuple[str, str]:
    """Two new SAEs."""
    return str(uuid.uuid4()), str(uuid.uuid4())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A controller that knows four nodes."""
    made = World(tmp_path_factory.mktemp("ctl"))
    try:
        made.start(half_open_timeout_s=1.0).wait_ready(20)
        made.start_agents()
        yield made
    finally:
        made.stop()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """A world in which nothing is started yet."""
    made = World(tmp_path)
    yield made
    made.stop()


def eventually(what, timeout_s: float = 5.0) -> bool:
    """Whether `what` comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(what())


@pytest.mark.parametrize("sides", [("slave", "master"), ("master", "slave")])
def test_second_side_opens_the_session_and_all_agents_of_the_path_are_told(world, sides):
    """In either order: 202 for the first, 200 with KSID and path for the second, the same words to all nodes."""
    pair, at = new_pair(), {"master": "a", "slave": "d"}
    first = world.new_app(at[sides[0]], pair, sides[0])
    assert (first.status, first.body) == (202, {"status": "waiting"})

    second = world.new_app(at[sides[1]], pair, sides[1])

    assert second.status == 200
    assert second.body["path"] == ["a", "c", "d"]
    assert second.body["qcs"] == ["ac", "cd"]
    told = [world.agents[n].told[-1] for n in ("a", "c", "d")]
    assert told[0][:2] == ("PUT", second.body["ksid"])
    assert told[0][2] == {
        "ksid": second.body["ksid"], "master_sae": pair[0], "slave_sae": pair[1], "path": ["a", "c", "d"],
        "qcs": ["ac", "cd"], "mode": "basic", "qos": {"key_size_bits": 128, "interval_s": 5.0},
        "implicit": False,
    }  # fmt: skip
    assert told[0] == told[1] == told[2]


def test_agents_are_told_in_parallel(world):
    """Three slow agents take as long as one."""
    for agent in world.agents.values():
        agent.delay_s = 0.5
    try:
        timings = world.open("a", "d")["timings_ms"]
    finally:
        for agent in world.agents.values():
            agent.delay_s = 0.0

    assert 500 <= timings["agents_informed"] < 1500


def test_repeated_first_side_still_waits(world):
    """An answer that was lost does no harm."""
    pair = new_pair()

    assert [world.new_app("b", pair, "slave").status for _ in range(2)] == [202, 202]
    assert world.new_app("a", pair, "master").status == 200


def test_open_session_of_a_pair_is_not_opened_again(world):
    """409 with the KSID that there is; the other direction is another session."""
    session = world.open("a", "b")
    master, slave = session["pair"]

    again = world.new_app("a", (master, slave), "master")
    assert (again.status, again.detail("ksid")) == (409, session["ksid"])
    assert world.new_app("a", (slave, master), "slave").status == 202


def test_node_cannot_take_over_an_sae_that_another_has_registered(world):
    """409; the session still leads to the node that was first."""
    pair = new_pair()
    world.new_app("d", pair, "slave")

    assert world.new_app("b", pair, "slave").status == 409
    assert world.new_app("a", pair, "master").body["path"][-1] == "d"


def test_saes_at_one_node_need_no_session(world):
    """400."""
    pair = new_pair()
    world.new_app("a", pair, "slave")

    assert world.new_app("a", pair, "master").status == 400


def test_agent_that_fails_refuses_the_session_everywhere(world):
    """503 names the node; who took the session over is told to drop it, and the pair may try again."""
    world.agents["c"].broken = True
    pair = new_pair()
    world.new_app("d", pair, "slave")
    try:
        refused = world.new_app("a", pair, "master")
    finally:
        world.agents["c"].broken = False

    assert (refused.status, refused.detail("cause"), refused.detail("node")) == (503, "agent_unreachable", "c")
    assert [world.agents[n].told[-1][0] for n in "ad"] == ["DELETE", "DELETE"]
    assert world.operator("refusals")["refusals"][-1]["cause"] == "agent_unreachable"
    assert world.new_app("d", pair, "slave").status == 202


def test_half_open_session_is_dropped_after_its_time(world):
    """The second side then is a first one, which waits."""
    pair = new_pair()
    world.new_app("d", pair, "slave")
    time.sleep(1.1)

    assert world.new_app("a", pair, "master").status == 202


def test_withdrawn_registration_is_forgotten(world):
    """By the node that made it; another one cannot."""
    pair = new_pair()
    path = f"/qkd/v1/applications?master_sae={pair[0]}&slave_sae={pair[1]}"
    world.new_app("d", pair, "slave")

    assert world.call(Role.NODE, "b", "DELETE", path).status == 204
    assert world.call(Role.NODE, "d", "DELETE", path).status == 204
    assert world.new_app("a", pair, "master").status == 202


def test_session_ends_by_one_of_its_ends_or_the_operator(world):
    """Not by a node between; all agents of the path are told."""
    for role, name in ((Role.NODE, "a"), (Role.NODE, "d"), (Role.OPERATOR, "op")):
        path = f"/qkd/v1/key_sessions/{world.open('a', 'd')['ksid']}"

        assert world.call(Role.NODE, "c", "DELETE", path).status == 404
        assert world.call(role, name, "DELETE", path).status == 204
        assert [world.agents[n].told[-1][0] for n in "acd"] == ["DELETE"] * 3
        assert world.call(role, name, "DELETE", path).status == 404


def test_no_path_is_refused_with_its_cause(world):
    """A node whose QCs nobody confirms is an island."""
    LINKS["island"] = {"x": "nowhere"}
    try:
        world.agents["island"] = Agent(world, "island")
        world.register("island")
    finally:
        del LINKS["island"]
    pair = new_pair()
    world.new_app("island", pair, "slave")

    refused = world.new_app("a", pair, "master")

    assert (refused.status, refused.detail("cause")) == (503, "no_path")


def test_restarted_node_is_told_of_its_sessions_again(world):
    """When it registers, and only of those that run over it."""
    ksid = world.open("a", "d")["ksid"]
    before = len(world.agents["c"].told)

    world.register("c")

    assert eventually(lambda: ("PUT", ksid) in [t[:2] for t in world.agents["c"].told[before:]])


def restarted(world: World) -> None:
    """kill -9 of the controller, and its restart; no node has registered yet."""
    assert world.process is not None
    world.process.kill()
    world.start().wait_ready()


def open_sessions(world: World) -> dict[str, Any]:
    """Those that both sides have registered, by KSID."""
    return {s["ksid"]: s for s in world.operator("key_sessions")["key_sessions"] if s["state"] == "open"}


def test_killed_controller_goes_on_with_what_was_open_and_set(world):
    """Sessions with path and mode, parameters, rates; an end is as final as before."""
    closed, kept = world.open("a", "c")["ksid"], world.open("a", "d")
    world.call(Role.OPERATOR, "op", "DELETE", f"/qkd/v1/key_sessions/{closed}")
    set_parameters(world, ttl_slots=20)
    world.call(Role.OPERATOR, "op", "PUT", "/qkd/v1/qcs/ab/rate", {"low": 7, "high": 8})
    before = open_sessions(world)
    try:
        restarted(world)

        assert open_sessions(world) == before
        assert before[kept["ksid"]]["path"] == kept["path"]
        assert closed not in before
        assert world.operator("parameters")["ttl_slots"] == 20
        assert world.register("a").body["rates"]["ab"] == [7, 8]
    finally:
        set_parameters(world, ttl_slots=15)
        for name in LINKS:
            world.register(name)


def test_killed_controller_opens_no_session_over_nodes_that_it_does_not_know_yet(world):
    """A clear error, and no path that leads around them; once they have registered it goes on."""
    restarted(world)
    try:
        refused = implicit(world, "a", new_pair(), "d")

        assert (refused.status, refused.detail("cause")) == (503, "unknown_node")
        assert "node a is not known" in refused.message
    finally:
        for name in LINKS:
            world.register(name)
    assert implicit(world, "a", new_pair(), "d").ok


def test_session_that_was_being_opened_when_the_controller_was_killed_is_forgotten_by_all(world):
    """Nobody was given its KSID: agents that heard of it are told that it is over."""
    pair = new_pair()
    world.agents["b"].delay_s = 3.0
    before = len(world.agents["c"].told)
    try:
        opening = threading.Thread(target=ask_in_vain, args=(world, pair))
        opening.start()
        assert eventually(lambda: len(world.agents["c"].told) > before)
        (_, ksid, _) = world.agents["c"].told[before]
        restarted(world)
        opening.join()
    finally:
        world.agents["b"].delay_s = 0.0
        for name in LINKS:
            world.register(name)

    assert ksid not in {s["ksid"] for s in world.operator("key_sessions")["key_sessions"]}
    assert eventually(lambda: ("DELETE", ksid) in [t[:2] for t in world.agents["c"].told[before:]])


def ask_in_vain(world: World, pair: tuple[str, str]) -> None:
    """A request for a session, which gets no answer."""
    with pytest.raises(Unreachable):
        implicit(world, "b", pair, "c")


def test_status_of_an_unknown_node_is_404(world):
    """So that it registers with a controller that was restarted."""
    world.agents.setdefault("stranger", world.agents["a"])

    reply = world.call(Role.NODE, "stranger", "POST", "/qkd/v1/nodes/stranger/qc_status", {"slot": 1, "qcs": []})

    assert reply.status == 404


def test_operator_sees_links_with_rates_and_stock(world):
    """Generated is what either end saw, not the sum; requests add up, those of nodes that are not ends too."""
    for slot in (1, 2):
        for node, requested in (("a", 16), ("b", 0), ("d", 32)):
            status = {"qc": "ab", "generated_bytes": 40, "requested_bytes": requested, "stored_bytes": 40 * slot}
            path = f"/qkd/v1/nodes/{node}/qc_status"
            assert world.call(Role.NODE, node, "POST", path, {"slot": slot, "qcs": [status]}).ok

    link = next(q for q in world.operator("links")["links"] if q["qc"] == "ab")

    assert link == {
        "qc": "ab", "ends": ["a", "b"], "generated_per_slot": 40.0, "requested_per_slot": 48.0, "stored_bytes": 80,
        "reserved_per_slot": link["reserved_per_slot"],
    }  # fmt: skip


def test_operator_sees_nodes_and_parameters(world):
    """And the sessions with their states."""
    session = world.open("b", "c")
    status = world.operator("status")

    assert set("abcd") <= set(status["nodes"])
    assert status["parameters"] == {
        "mode": "basic", "ttl_slots": 15, "keys_ahead": 4, "implicit_idle_s": 60, "admission": "none",
        "path_policy": "shortest",
    }  # fmt: skip
    found = next(s for s in world.operator("key_sessions")["key_sessions"] if s["ksid"] == session["ksid"])
    assert (found["state"], found["path"], found["mode"]) == ("open", ["b", "c"], "basic")


def test_node_speaks_for_itself_only(world):
    """401 for another name than its certificate's."""
    assert world.register("a", caller="b").status == 401
    assert world.call(Role.NODE, "b", "POST", "/qkd/v1/nodes/a/qc_status", {"slot": 1, "qcs": []}).status == 401
    assert world.call(Role.NODE, "b", "POST", "/qkd/v1/applications",
                      {"node": "a", "master_sae": ALICE, "slave_sae": BOB, "side": "master"}).status == 401  # fmt: skip


ALICE, BOB = new_pair()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"master_sae": "alice"}, "master_sae"),
        ({"slave_sae": 7}, "slave_sae"),
        ({"slave_sae": ALICE}, "slave_sae"),
        ({"side": "both"}, "side"),
        ({"qos": {"key_size_bits": 7}}, "qos.key_size_bits"),
        ({"qos": {"colour": 1}}, "qos.colour"),
    ],
)
def test_malformed_application_is_refused_by_name(world, change, field):
    """400 with the field, and nothing is registered."""
    reply = world.new_app("a", (ALICE, BOB), "master", change)

    assert (reply.status, reply.detail("field")) == (400, field)


def test_journal_has_the_times_of_an_initialisation(world):
    """t2: each side's registration; t3: path chosen and agents informed."""
    session = world.open("a", "d")

    events = journal.read(world.directory / "ctl" / "journal.jsonl")
    mine = [e for e in events if e.get("master_sae") == session["pair"][0]]
    assert [e["event"] for e in mine] == ["application_registered"] * 2 + ["ksid_assigned"]
    assert 0 < mine[2]["path_chosen"] <= mine[2]["agents_informed"]


def report(world: World, slot: int, generated: dict[str, int], requested: int = 0) -> None:
    """All nodes report a slot: what each QC made, and requests of `requested` bytes to each at its first end."""
    for node, links in LINKS.items():
        qcs = [
            {"qc": qc, "generated_bytes": generated[qc], "stored_bytes": 0,
             "requested_bytes": requested if node == min(node, peer) else 0}
            for qc, peer in links.items()
        ]  # fmt: skip
        reply = world.call(Role.NODE, node, "POST", f"/qkd/v1/nodes/{node}/qc_status", {"slot": slot, "qcs": qcs})
        assert reply.ok, reply


@pytest.fixture
def admitting(alone) -> World:
    """A controller of its own, whose QCs have made 40 bytes a slot for 5 slots, but `cd` only 4."""
    alone.start().wait_ready(20)
    alone.start_agents()
    for slot in range(1, 6):
        report(alone, slot, {"ab": 40, "bc": 40, "ac": 40, "cd": 4}, requested=1)
    return alone


def set_parameters(world: World, **parameters: Any) -> Reply:
    """The operator changes parameters."""
    return world.call(Role.OPERATOR, "op", "PATCH", "/qkd/v1/parameters", parameters)


def refusal(world: World, master: str, slave: str, **qos: Any) -> Reply:
    """The answer to the second side of a new session."""
    pair = new_pair()
    world.new_app(slave, pair, "slave")
    return world.new_app(master, pair, "master", {"qos": qos})


def test_equation_1_refuses_what_measured_rates_do_not_cover(admitting):
    """20 generated minus 5 requested on cd is less than a key of 128 bits; other paths and smaller keys are fine."""
    set_parameters(admitting, admission="eq1")

    refused = refusal(admitting, "a", "d")

    assert (refused.status, refused.detail("cause"), refused.detail("qc")) == (503, "refused", "cd")
    assert (refused.detail("needed_bytes"), refused.detail("available_bytes")) == (16, 15)
    assert "cd" in refused.message
    assert admitting.operator("refusals")["refusals"][-1]["qc"] == "cd"
    assert refusal(admitting, "a", "d", key_size_bits=120).status == 200
    assert refusal(admitting, "a", "c").status == 200


def test_reserve_refuses_what_declared_rates_exceed_and_ends_give_back(admitting):
    """128 bits every 0.5 s are 32 bytes a slot of 40 on a link: one such session fits, two do not."""
    set_parameters(admitting, admission="reserve")
    fast = {"key_size_bits": 128, "interval_s": 0.5}

    first = refusal(admitting, "a", "c", **fast)
    second = refusal(admitting, "c", "a", **fast)

    assert first.status == 200
    assert (second.status, second.detail("qc")) == (503, "ac")
    assert (second.detail("needed_bytes"), second.detail("available_bytes")) == (160, 40)
    link = next(q for q in admitting.operator("links")["links"] if q["qc"] == "ac")
    assert link["reserved_per_slot"] == 32.0
    admitting.call(Role.OPERATOR, "op", "DELETE", f"/qkd/v1/key_sessions/{first.body['ksid']}")
    assert refusal(admitting, "c", "a", **fast).status == 200


def test_reserve_counts_the_cost_of_the_mode(admitting):
    """Over two links BASIC takes two units of the first one, OTP one."""
    set_parameters(admitting, admission="reserve")
    qos = {"key_size_bits": 24, "interval_s": 1}

    assert refusal(admitting, "a", "d", **qos).status == 200
    set_parameters(admitting, mode="qkp")
    assert refusal(admitting, "a", "d", key_size_bits=128, interval_s=5).status == 200


def implicit(world: World, node: str, pair: tuple[str, str], slave_node: str, caller: str | None = None) -> Reply:
    """A node asks for a session because its SAE asked for keys."""
    body = {"node": node, "master_sae": pair[0], "slave_sae": pair[1], "slave_node": slave_node, "qos": {}}
    return world.call(Role.NODE, caller or node, "POST", "/qkd/v1/implicit_sessions", body)


def test_request_for_keys_opens_an_implicit_session_for_both_sides(world):
    """Nobody registers; all agents of the path are told, and that it is implicit."""
    opened = implicit(world, "a", new_pair(), "d")

    assert opened.status == 200
    told = [world.agents[n].told[-1] for n in ("a", "c", "d")]
    assert told[0][:2] == ("PUT", opened.body["ksid"])
    assert told[0][2]["implicit"] is True
    assert told[0] == told[1] == told[2]


def test_node_that_lost_its_implicit_session_is_told_of_it_again(world):
    """The same KSID, and nobody else hears of it twice."""
    pair = new_pair()
    first = implicit(world, "a", pair, "b")
    told = len(world.agents["b"].told)

    again = implicit(world, "a", pair, "b")

    assert again.body == first.body
    assert world.agents["a"].told[-1][:2] == ("PUT", first.body["ksid"])
    assert len(world.agents["b"].told) == told


def test_implicit_session_gives_way_to_one_that_both_sides_register(world):
    """The old KSID is removed before the agents hear of the new one."""
    pair = new_pair()
    old = implicit(world, "a", pair, "b").body["ksid"]
    world.new_app("b", pair, "slave")

    new = world.new_app("a", pair, "master").body["ksid"]

    assert [entry[:2] for entry in world.agents["a"].told[-2:]] == [("DELETE", old), ("PUT", new)]
    assert implicit(world, "a", pair, "b").body["ksid"] == new


def test_implicit_session_beside_a_registration_that_waits(world):
    """A slave that runs our software and a master that does not: the master gets its keys."""
    pair = new_pair()
    assert world.new_app("b", pair, "slave").status == 202

    assert implicit(world, "a", pair, "b").status == 200


@pytest.mark.parametrize(
    ("slave_node", "caller", "status", "cause"),
    [("a", "a", 400, "same_node"), ("b", "c", 401, None), ("nowhere", "a", 503, "unknown_node")],
)
def test_implicit_session_that_cannot_be_is_refused(world, slave_node, caller, status, cause):
    """SAEs of one site, a node that speaks for another, a node that there is not."""
    refused = implicit(world, "a", new_pair(), slave_node, caller)

    assert (refused.status, refused.detail("cause")) == (status, cause)


def test_implicit_session_passes_admission(admitting):
    """It is refused like any other where the network cannot carry it."""
    set_parameters(admitting, admission="eq1")

    refused = implicit(admitting, "a", new_pair(), "d")

    assert (refused.status, refused.detail("cause"), refused.detail("qc")) == (503, "refused", "cd")
    assert implicit(admitting, "a", new_pair(), "c").status == 200


def test_parameters_change_at_run_time_and_reach_the_nodes(world):
    """With the answer to their next report; sessions go on, and the journal has the change."""
    session = world.open("b", "c")
    try:
        assert set_parameters(world, mode="otp", ttl_slots=20).body["mode"] == "otp"
        reply = world.call(Role.NODE, "a", "POST", "/qkd/v1/nodes/a/qc_status", {"slot": 9, "qcs": []})
    finally:
        set_parameters(world, mode="basic", ttl_slots=15)

    assert reply.body["parameters"] == {
        "mode": "otp", "ttl_slots": 20, "keys_ahead": 4, "implicit_idle_s": 60,
    }  # fmt: skip
    assert session["ksid"] in [s["ksid"] for s in world.operator("key_sessions")["key_sessions"]]
    events = journal.read(world.directory / "ctl" / "journal.jsonl")
    assert [e["mode"] for e in events if e["event"] == "parameters"][-2:] == ["otp", "basic"]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"mode": "magic"}, "mode"), ({"ttl_slots": 0}, "ttl_slots"), ({"keys_ahead": "4"}, "keys_ahead"),
     ({"implicit_idle_s": 0}, "implicit_idle_s"), ({"admission": "maybe"}, "admission"),
     ({"path_policy": "longest"}, "path_policy"), ({"colour": 1}, "colour")],
)  # fmt: skip
def test_wrong_parameter_is_refused_by_name_and_changes_nothing(world, change, field):
    """Not even the right ones beside it."""
    before = world.operator("parameters")

    reply = set_parameters(world, ttl_slots=99) if not change else set_parameters(world, **({"keys_ahead": 7} | change))

    assert (reply.status, reply.detail("field")) == (400, field)
    assert world.operator("parameters") == before


def test_rate_of_a_qc_reaches_the_nodes_at_its_ends(world):
    """And no other; an unknown QC is 404."""
    assert world.call(Role.OPERATOR, "op", "PUT", "/qkd/v1/qcs/ab/rate", {"low": 1, "high": 2}).status == 204
    rates = {n: world.register(n).body["rates"] for n in "abcd"}

    assert rates == {"a": {"ab": [1, 2]}, "b": {"ab": [1, 2]}, "c": {}, "d": {}}
    assert world.call(Role.OPERATOR, "op", "PUT", "/qkd/v1/qcs/xy/rate", {"low": 1, "high": 2}).status == 404
    assert world.call(Role.OPERATOR, "op", "PUT", "/qkd/v1/qcs/ab/rate", {"low": 2, "high": 1}).status == 400


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_controller_at_once(alone, number):
    """Also with its OpenFlow part, whose threads would not end by themselves."""
    switch = {"name": "s1", "dpid": 1, "ports": [], "hosts": []}
    process = alone.start(openflow={"host": "127.0.0.1", "port": free_port(), "fabric": {"switches": [switch]}})
    process.wait_ready(20)
    started = time.monotonic()

    process.signal(number)

    assert eventually(lambda: not process.alive())
    assert process.status == 0
    assert time.monotonic() - started < 3


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


def test_switch_that_goes_away_is_noticed(alone):
    """A connection that ends is not counted as a switch any more."""
    port = free_port()
    switch = {"name": "s1", "dpid": 1, "ports": [], "hosts": []}
    alone.start(openflow={"host": "127.0.0.1", "port": port, "fabric": {"switches": [switch]}}).wait_ready(20)
    talk = threading.Thread(target=_be_switch, args=(port, 1.5))
    talk.start()

    assert eventually(lambda: alone.operator("status")["switches"] == ["s1"])
    talk.join()
    assert eventually(lambda: alone.operator("status")["switches"] == [])


def _be_switch(port: int, seconds: float) -> None:
    """Just enough OpenFlow 1.3 to be a switch without ports: hello, features, port description, echo."""
    deadline = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(0.1)
        connection.sendall(struct.pack(">BBHI", 4, 0, 8, 1))
        data = b""
        while time.monotonic() < deadline:
            try:
                data += connection.recv(4096)
            except TimeoutError:
                continue
            while len(data) >= 8 and len(data) >= (length := struct.unpack_from(">H", data, 2)[0]):
                _, kind, _, xid = struct.unpack_from(">BBHI", data)
                if kind == 5:  # features request
                    connection.sendall(struct.pack(">BBHIQIBBHII", 4, 6, 32, xid, 1, 0, 1, 0, 0, 0, 0))
                elif kind == 18:  # multipart request: port description
                    connection.sendall(struct.pack(">BBHIHHI", 4, 19, 16, xid, 13, 0, 0))
                elif kind == 2:  # echo
                    connection.sendall(struct.pack(">BBHI", 4, 3, 8, xid))
                data = data[length:]
