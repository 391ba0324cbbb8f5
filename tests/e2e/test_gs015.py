"""PoliQI's agents as a foreign controller sees them: every body and every notification valid by ETSI's modules."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtls.call import Caller
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from tests.support.gs015_client import Events, N, Restconf
from tests.support.running import Running
from tests.support.validation import resources, url, validate, validate_notification, validate_part
from tests.support.waiting import until


class Control:
    """The agents and the controller of a run, by what its expose.json says."""

    def __init__(self, run: Running) -> None:
        self.document = json.loads((run.directory / "expose.json").read_text())
        operator = self.files(self.document["operator"])
        self.agents = {
            node: Restconf(operator, url, Identity(Role.NODE, node)) for node, url in self.document["agents"].items()
        }
        self._caller = Caller(operator)

    def files(self, party: dict[str, str]) -> Credentials:
        """A party's certificate and key."""
        return Credentials(Path(party["cert"]), Path(party["key"]), Path(self.document["ca"]))

    def northbound(self, method: str, what: str, body: Any = None) -> Any:
        """What the controller answers its operator."""
        url = f"{self.document['controller']}/qkd/v1/{what}"
        reply = self._caller.request(method, url, to=Identity(Role.CONTROLLER, "ctl"), body=body)
        assert reply.ok, reply
        return reply.body

    def ask(self, master: str, slave: str) -> None:
        """A key of `master` for `slave`, who does not fetch it; once there is key material for it."""
        found = self.document["saes"]
        caller = Caller(self.files(found[master]))
        node = found[master]["node"]
        url = f"{self.document['kmes'][node]}/api/v1/keys/{found[slave]['id']}/enc_keys"
        try:
            until(lambda: caller.request("GET", url, to=Identity(Role.NODE, node), timeout_s=20).ok)
        finally:
            caller.close()

    def paths(self) -> dict[str, list[str]]:
        """Of the open key sessions; those that earlier tests had opened may end at any time, as nobody uses them."""
        return {s["ksid"]: s["path"] for s in self.northbound("GET", "key_sessions")["key_sessions"] if s["path"]}

    def settled(self) -> bool:
        """Whether nodes have the virtual links of all sessions, and none beside them."""
        due = Counter(node for path in self.paths().values() if len(path) > 2 for node in path)
        return all(due[node] == kinds_of_links(agent.get()).count("VIRT") for node, agent in self.agents.items())


def kinds_of_links(document: dict[str, Any]) -> list[str]:
    """PHYS or VIRT, of each link that an agent shows."""
    links = document["etsi-qkd-sdn-node:qkd_node"]["qkd_links"]["qkd_link"]
    return [link["qkdl_type"].removeprefix("etsi-qkd-node-types:") for link in links]


@pytest.fixture
def control(exposed) -> Iterator[Control]:
    """Of the run that is exposed."""
    made = Control(exposed)
    yield made
    for agent in made.agents.values():
        agent.close()


def test_everything_that_agents_show_and_tell_is_valid(control):
    """While sessions over one hop and several open, a QC stops and goes on."""
    events: dict[str, Events] = {node: agent.follow() for node, agent in control.agents.items()}
    own = {node: agent.follow("qkd-testbed") for node, agent in control.agents.items()}
    for slave in ("bob", "carol"):
        control.ask("alice", slave)
    before = control.paths()
    qc = control.northbound("GET", "links")["links"][0]["qc"]
    control.northbound("PUT", f"qcs/{qc}/generation", {"enabled": False})
    try:
        assert until(lambda: any(e.named("alarm") for e in events.values()))
    finally:
        control.northbound("PUT", f"qcs/{qc}/generation", {"enabled": True})
    assert until(lambda: any(e.named("event") for e in events.values()))
    until(lambda: all(before.get(ksid, path) == path for ksid, path in control.paths().items()))
    control.ask("alice", "carol")  # over several hops; ended meanwhile, if that took long
    until(control.settled)

    kinds = set()
    for node, agent in control.agents.items():
        document = until(lambda agent=agent: walked(agent))
        for query in ("content=config", "depth=3"):
            validate(agent.get(f"{N}?{query}"))
        validate(document | agent.get("/restconf/data/qkd-testbed:node"), extended=True)
        kinds |= set(kinds_of_links(document))
        for found in (events[node], own[node]):
            found.close()
        kinds |= {validate_notification(event).partition(":")[2] for event in events[node].all}
        kinds |= {validate_notification(event, extended=True) for event in own[node].all}
    assert {"PHYS", "VIRT"} <= kinds
    assert {"sdqkdn_application_new", "alarm", "event", "qkd-testbed:slot_report"} <= kinds


def walked(agent: Restconf) -> dict[str, Any] | None:
    """An agent's document, after every resource in it; None if a session moved meanwhile, and took one along."""
    document = agent.get()
    validate(document)
    for segments in resources(document["etsi-qkd-sdn-node:qkd_node"]):
        answer = agent.call("GET", f"{N}/{url(segments)}")
        if answer.status == 404:
            assert segments not in list(resources(agent.get()["etsi-qkd-sdn-node:qkd_node"]))
            return None
        assert answer.status == 200, answer.text
        validate_part(answer.body, segments[:-1])
    return document


def test_session_over_several_hops_is_a_virtual_link_that_loads_the_links_below(control):
    """Previous and next hop on every node of its path, and its bandwidth as an INTERNAL application."""
    for slave in ("bob", "carol"):
        control.ask("alice", slave)
    until(control.settled)
    session = max(control.northbound("GET", "key_sessions")["key_sessions"], key=lambda s: len(s["path"] or []))
    nodes = [control.agents[name].get()["etsi-qkd-sdn-node:qkd_node"] for name in session["path"]]
    ids = [None, *(node["qkdn_id"] for node in nodes), None]
    (key,) = applications(nodes[0])[session["ksid"]]["backing_qkdl_id"]

    assert len(nodes) > 2
    for before, node, after in zip(ids, nodes, ids[2:], strict=False):
        links = {link["qkdl_id"]: link for link in node["qkd_links"]["qkd_link"]}
        link, internal = links[key], applications(node)[key]
        assert (link.get("virt_prev_hop"), link.get("virt_next_hop")) == (before, [after] if after else None)
        assert internal["app_type"] == "etsi-qkd-node-types:INTERNAL"
        assert internal["app_qos"] == {"max_bandwidth": link["virt_bandwidth"]}
        below = [links[backing] for backing in internal["backing_qkdl_id"]]
        assert {end["qkdl_remote"]["qkdn_id"] for end in below} == {before, after} - {None}
        for end in below:
            performance = end["qkdl_performance"]
            assert key in end["qkdl_applications"]
            assert performance["expected_consumption"] >= link["virt_bandwidth"]
            assert performance["eskr"] <= performance["skr"] - link["virt_bandwidth"]


def applications(node: dict[str, Any]) -> dict[str, Any]:
    """A node's, by app_id."""
    return {app["app_id"]: app for app in node["qkd_applications"]["qkd_app"]}


def test_controller_shows_the_network(control):
    """Ten ends of five links, all generating, with rates and stock."""
    topology = control.northbound("GET", "topology")

    assert {n["status"] for n in topology["nodes"]} == {"OPERATING"}
    assert sorted(len(n["links"]) for n in topology["nodes"]) == [2] * 5
    links = control.northbound("GET", "links")["links"]
    assert len(links) == 5
    assert all(link["qber_percent"] and link["generated_per_slot"] for link in links)
