"""The northbound interface: what people and tools read and change, as api_openapi.py describes it.

Decisions are in sessions/path_admission.py and in the room decisions/, sessions are opened and ended by
sessions/lifecycle.py; nodes are read by following/ and configured by sessions/session_nodes.py.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response

from controller.following.follower import Followers
from controller.network.graph import Graph
from controller.network.nodes import Agent, Link
from controller.network.settings import Settings
from controller.network.store import NotKept, Store
from controller.northbound.api_openapi import describe
from controller.northbound.standby import LEADER
from controller.sessions.key_session import SessionError
from controller.sessions.lifecycle import KeySessions
from controller.sessions.path_admission import Choice
from controller.sessions.registry import Book
from decisions.parameters import rate
from documents.checks import Malformed, text, uuid_text
from mtls.identity import Role
from mtls.serve import Problem, allow, error_body, json_body, new_app
from telemetry.metrics import CONTENT_TYPE

_AGENTS = "agents"


def make_app(
    graph: Graph,
    sessions: KeySessions,
    followers: Followers,
    store: Store,
    *,
    book: Book,
    choice: Choice,
    settings: Settings,
    switches: Callable[[], Mapping[str, list[str]]],
    framework: str | None = None,
    leadership: Callable[[], Mapping[str, Any]],
) -> Flask:
    """The application. `leadership`: see `controller.leading.leadership.Leadership.to_json`.

    `switches` names those that are connected, with their ports to others that are down, `framework` what serves them,
    if anything does.
    """
    app = new_app("controller")

    @app.errorhandler(SessionError)
    def on_session_error(error: SessionError) -> Response:
        return error_body(error.status, str(error), error.facts)

    @app.errorhandler(NotKept)
    def on_not_kept(error: NotKept) -> Response:
        return error_body(503, str(error), {"cause": "not_kept"})

    @app.get("/qkd/v1/openapi.json")
    @allow(Role.OPERATOR)
    def openapi() -> dict[str, Any]:
        return describe()

    @app.get(LEADER)
    @allow(Role.OPERATOR)
    def leader() -> dict[str, Any]:
        return dict(leadership())

    _add_views(
        app, graph, book=book, settings=settings, switches=switches, framework=framework, leadership=leadership
    )
    _add_qcs(app, graph, choice, settings)
    _add_sessions(app, book, sessions)
    _add_settings(app, graph, settings, followers)
    _add_agents(app, graph, followers, store)
    return app


def _add_views(
    app: Flask,
    graph: Graph,
    *,
    book: Book,
    settings: Settings,
    switches: Callable[[], Mapping[str, list[str]]],
    framework: str | None,
    leadership: Callable[[], Mapping[str, Any]],
) -> None:
    @app.get("/qkd/v1/status")
    @allow(Role.OPERATOR)
    def status() -> dict[str, Any]:
        reachable = graph.reachable(graph.nodes())
        connected = switches()
        return {
            "version": importlib.metadata.version("qkd-testbed"),
            "framework": framework,
            "leader": leadership(),
            "nodes": {name: {"slot": node.slot} for name, node in reachable.items()},
            "switches": sorted(connected),
            "ports_down": sorted(port for ports in connected.values() for port in ports),
            "key_sessions": len(book.all()),
            "parameters": settings.parameters.to_json(),
        }

    @app.get("/qkd/v1/topology")
    @allow(Role.OPERATOR)
    def topology() -> dict[str, Any]:
        nodes = [
            {
                "name": name, "qkdn_id": node.qkdn_id, "status": "OPERATING" if node.reachable else "FAILURE",
                "agent_url": node.agent.url, "slot": node.slot, "links": sorted(node.links),
            }
            for name, node in graph.nodes().items()
        ]  # fmt: skip
        qcs = [
            {"qc": qc, "qkdl_id": link.link_id, "ends": list(link.ends), "status": link.status, "enabled": link.enabled}
            for qc, link in graph.links().items()
        ]
        return {"nodes": nodes, "qcs": qcs, "links": qcs}


def _add_qcs(app: Flask, graph: Graph, choice: Choice, settings: Settings) -> None:
    @app.get("/qkd/v1/links")
    @allow(Role.OPERATOR)
    def links() -> dict[str, Any]:
        shown = qcs()
        return {"window_slots": shown["window_slots"], "links": shown["qcs"]}

    @app.get("/qkd/v1/qcs")
    @allow(Role.OPERATOR)
    def qcs() -> dict[str, Any]:
        found = []
        joined = graph.links()
        for view, link in zip(choice.views(list(joined)), joined.values(), strict=True):
            slots = max(1, view.slots)
            found.append(
                {
                    "qc": view.qc,
                    "qkdl_id": link.link_id,
                    "ends": list(link.ends),
                    "status": link.status,
                    "enabled": link.enabled,
                    "rate": _rate(settings.rates.get(view.qc)),
                    "qber_percent": None if link.end_a.qber_percent is None else float(link.end_a.qber_percent),
                    "generated_per_slot": round(view.generated_bytes / slots, 1),
                    "requested_per_slot": round(view.requested_bytes / slots, 1),
                    "reserved_per_slot": round(view.reserved_per_slot, 1),
                    "stored_bytes": view.stored_bytes,
                }
            )
        return {"window_slots": settings.parameters.ttl_slots, "qcs": found}


def _rate(found: tuple[int, int] | None) -> dict[str, int] | None:
    """What an operator has set, in bytes a slot; None if nobody has."""
    return None if found is None else {"low": found[0], "high": found[1]}


def _add_sessions(app: Flask, book: Book, sessions: KeySessions) -> None:
    @app.get("/metrics")
    @allow(Role.OPERATOR)
    def figures() -> Response:
        return Response(sessions.metrics.page(), content_type=CONTENT_TYPE)

    @app.get("/qkd/v1/key_sessions")
    @allow(Role.OPERATOR)
    def key_sessions() -> dict[str, Any]:
        return {"key_sessions": [s.to_json() for s in book.all()]}

    @app.get("/qkd/v1/refusals")
    @allow(Role.OPERATOR)
    def refusals() -> dict[str, Any]:
        return {"refusals": sessions.refusals()}

    @app.delete("/qkd/v1/key_sessions/<ksid>")
    @allow(Role.OPERATOR)
    def close(ksid: str) -> tuple[str, int]:
        if not sessions.close(uuid_text(ksid, "ksid")):
            raise Problem(404, "no open key session of this KSID", ksid=ksid)
        return "", 204


def _add_settings(app: Flask, graph: Graph, settings: Settings, followers: Followers) -> None:
    @app.get("/qkd/v1/parameters")
    @allow(Role.OPERATOR)
    def parameters() -> dict[str, Any]:
        return settings.parameters.to_json()

    # What is set holds from the answer on, and is kept; the answer tells which nodes have not taken it over yet.

    @app.patch("/qkd/v1/parameters")
    @allow(Role.OPERATOR)
    def set_parameters() -> tuple[dict[str, Any], int]:
        now = settings.set_parameters(json_body()).to_json()
        not_yet = followers.not_yet()
        return (now | {"not_yet": not_yet}, 202) if not_yet else (now, 200)

    @app.put("/qkd/v1/qcs/<path:qc>/rate")
    @allow(Role.OPERATOR)
    def set_rate(qc: str) -> tuple[Any, int]:
        low, high = rate(json_body())
        link = _link(qc)
        settings.set_rate(link, low, high)
        return _taken_over(link)

    @app.put("/qkd/v1/qcs/<path:qc>/generation")
    @allow(Role.OPERATOR)
    def set_generation(qc: str) -> tuple[Any, int]:
        body = json_body()
        enabled = body.get("enabled")
        if not isinstance(enabled, bool) or len(body) != 1:
            raise Malformed("enabled", "true or false, and nothing else")
        link = _link(qc)
        settings.set_generation(link, enabled=enabled)
        return _taken_over(link)

    def _link(qc: str) -> Link:
        link = graph.links().get(qc)
        if link is None:
            raise Problem(404, "no QC of this name", qc=qc)
        return link

    def _taken_over(link: Link) -> tuple[Any, int]:
        not_yet = followers.not_yet(link.ends)
        return ({"not_yet": not_yet}, 202) if not_yet else ("", 204)


def _add_agents(app: Flask, graph: Graph, followers: Followers, store: Store) -> None:
    changing = threading.Lock()  # who is followed, and the setting that says so

    def keep(change: dict[str, str | None]) -> None:
        store.put_setting(_AGENTS, store.setting(_AGENTS) | change)

    @app.get("/qkd/v1/agents")
    @allow(Role.OPERATOR)
    def agents() -> dict[str, Any]:
        reachable = graph.reachable(graph.nodes())
        found = followers.agents()
        return {"agents": [{"name": n, "url": a.url, "reachable": n in reachable} for n, a in found.items()]}

    @app.put("/qkd/v1/agents/<name>")
    @allow(Role.OPERATOR)
    def follow(name: str) -> tuple[str, int]:
        body = json_body()
        url = text(body.get("url"), "url", longest=2048)
        if not url.startswith("https://") or len(body) != 1:
            raise Malformed("url", "the agent's URL, beginning with https://, and nothing else")
        agent = Agent(text(name, "name"), url.rstrip("/"))
        with changing:
            keep({name: agent.url})
            followers.follow(agent)
        return "", 204

    @app.delete("/qkd/v1/agents/<name>")
    @allow(Role.OPERATOR)
    def forget(name: str) -> tuple[str, int]:
        with changing:
            if name not in followers.agents():
                raise Problem(404, "no agent of this name", name=name)
            keep({name: None})
            followers.forget(name)
        return "", 204


def known_agents(configured: dict[str, str], store: Store) -> list[Agent]:
    """The agents to follow at the start: those of the configuration, as changed while the controller ran."""
    known: dict[str, str | None] = {**configured, **store.setting(_AGENTS)}
    return [Agent(name, url.rstrip("/")) for name, url in known.items() if url is not None]
