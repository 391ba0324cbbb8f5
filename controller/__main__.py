"""`python -m controller CONFIG.json`: wires the SDN controller, serves until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask

from controller import config, limits
from controller.agents.agents import Agents
from controller.config import ControllerConfig, SharedStoreConfig
from controller.following.follower import Followers
from controller.leading.leadership import Leadership
from controller.leading.shared_store import Calls, LeaseCalls, SharedStore
from controller.network.graph import Graph
from controller.network.identities import Identities
from controller.network.settings import Settings
from controller.network.store import FileStore, NotKept, Store
from controller.northbound import standby
from controller.northbound.api import known_agents, make_app
from controller.sessions.application_answers import Words
from controller.sessions.bandwidth_updates import Reweigher
from controller.sessions.lifecycle import KeySessions
from controller.sessions.lighting import Lighting
from controller.sessions.mover import Mover
from controller.sessions.path_admission import Choice
from controller.sessions.registry import Book
from controller.sessions.session_nodes import SessionAgents, Upkeep
from mtls.server import Server
from telemetry import bugs, trace
from telemetry.journal import Journal
from telemetry.signals import Signals

_AGAIN = "again"


def main(path: Path, *, again: bool = False) -> int:
    """Serve as the controller that `path` describes; the exit status.

    `again`: the process did so before, as a leader whose term is over.
    """
    try:
        options = config.load(path)
    except ValueError as error:
        print(f"controller: {path}: {error}", file=sys.stderr)
        return 2
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = Journal(options.directory / "journal.jsonl", "controller", context=trace.ids)
    signals = Signals(signal.SIGTERM, signal.SIGINT)
    leadership = None if options.shared_store is None else _leadership(path, options, options.shared_store, journal)
    leader: _Leader | None = None
    try:
        openflow = _start_openflow(options.openflow, alone=leadership is None)
        if leadership is None:
            leader = _Leader(options, journal, openflow, FileStore(options.directory / "controller.db"), None)
            front = _Front(leader.app)
        else:
            front = _Front(standby.make_app(leadership.to_json))
        server = Server(
            front, options.host, options.port, options.credentials, threads=limits.OPERATORS,
            per_party=limits.OPERATORS_FOR_ONE,
        )  # fmt: skip
        server.start()
    except OSError as error:
        print(f"controller: {error.strerror}", file=sys.stderr)
        return 2
    if leader is not None:
        leader.start()
    if not again:
        journal.event("started", port=server.port)
    print("ready", flush=True)
    if leadership is not None:
        leader = _wait_to_lead(signals, options, journal, openflow, leadership)
        if leader is None:
            journal.event("stopped")
            return 0
        front.app = leader.app
        leader.start()
    assert leader is not None  # noqa: S101 - it leads now, alone or not
    if not _run(signals, openflow, leader):
        return 1
    leader.stop()
    journal.event("stopped")
    return 0


class _Front:
    """What answers requests now: another application when the controller begins to lead."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.app(environ, start_response)


def _leadership(path: Path, options: ControllerConfig, shared: SharedStoreConfig, journal: Journal) -> Leadership:
    lease_s = limits.lease_s(options.round_trip_s)
    calls = Calls(shared.url, shared.schema, options.name, round_trip_s=options.round_trip_s)

    def begin_anew() -> None:
        journal.event("stands_by", controller=options.name)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "controller", str(path), _AGAIN])  # noqa: S606

    return Leadership(
        options.name, dict(shared.controllers), LeaseCalls(calls, lease_s), journal, lease_s=lease_s,
        on_over=begin_anew,
    )  # fmt: skip


def _wait_to_lead(
    signals: Signals, options: ControllerConfig, journal: Journal, openflow: _OpenFlow, leadership: Leadership
) -> _Leader | None:
    """Stand by until this controller leads, then the leader that it is; None if it is to end."""
    shared = options.shared_store
    assert shared is not None  # noqa: S101 - there are others
    leads, pause_s = False, 0.0
    while not leads:
        if signals.next(pause_s) is not None:
            return None
        openflow.take_role(leadership)
        leads, pause_s = leadership.try_to_lead(), limits.STANDBY_LOOK_S
    openflow.take_role(leadership)
    calls = Calls(shared.url, shared.schema, options.name, round_trip_s=options.round_trip_s)
    store = SharedStore(calls, lambda: leadership.term, leadership.sure, leadership.over)
    try:
        leader = _Leader(options, journal, openflow, store, leadership)
    except NotKept:  # the database is away again, before all was read
        leadership.over()
        raise
    leadership.lead_on(store)
    return leader


class _Leader:
    """All that leads, made on what is in `store`. `leadership`: None if there is no other controller."""

    def __init__(
        self,
        options: ControllerConfig,
        journal: Journal,
        openflow: _OpenFlow,
        store: Store,
        leadership: Leadership | None,
    ) -> None:
        self.leadership, self._store = leadership, store
        self._known_agents = known_agents(dict(options.agents), store)
        graph = Graph(options.grace_s)
        self._agents = agents = Agents(
            options.credentials, journal, round_trip_s=options.round_trip_s, term_of=leadership
        )
        settings = Settings(graph, options.parameters, journal, store)
        book = Book(store)
        self._lighting = Lighting(graph, book, agents, journal, switched=options.switched, spare=options.spare)
        choice = Choice(graph, book, settings, self._lighting)
        self._words = Words(graph, agents, store, journal)
        session_agents = SessionAgents(graph, agents, self._words)
        upkeep = Upkeep(book, choice, session_agents, journal)
        sessions = KeySessions(
            graph, book, choice, session_agents, journal, upkeep=upkeep, lighting=self._lighting, saes=options.saes,
            half_open_timeout_s=options.half_open_timeout_s,
        )  # fmt: skip
        self.followers = Followers(
            graph, agents, journal, identities=Identities(store, options.node_ids), sessions=sessions,
            settings=settings, upkeep=upkeep,
        )  # fmt: skip
        self._mover = Mover(graph, book, choice, upkeep, journal, lighting=self._lighting, steady_s=options.steady_s)
        self._reweigher = Reweigher(book, upkeep, journal)
        alone = {"name": options.name, "standing": "leader", "leader": options.name, "term": None, "url": None}
        self.app = make_app(
            graph, sessions, self.followers, store, book=book, choice=choice, settings=settings,
            switches=openflow.switches, framework=openflow.framework,
            leadership=leadership.to_json if leadership is not None else lambda: alone,
        )  # fmt: skip

    def start(self) -> None:
        """Begin, but for following nodes."""
        for agent in self._known_agents:
            self.followers.follow(agent)
        self._words.start()
        self._mover.start()
        self._lighting.start()
        self._reweigher.start()

    def stop(self) -> None:
        """End."""
        self._mover.stop()
        self._lighting.stop()
        self._reweigher.stop()
        self.followers.stop()
        self._words.stop()
        self._agents.close()
        if self.leadership is not None:
            self.leadership.resign()
        self._store.close()


def _run(signals: Signals, openflow: _OpenFlow, leader: _Leader) -> bool:
    """Follow nodes once all switches forward, until a signal comes; False if the OpenFlow part has died."""
    # Who connects to an agent over a switch that does not forward yet tries again only in a second.
    following, at_latest = False, time.monotonic() + limits.SWITCHES_S
    while signals.next(limits.WATCH_S if following else limits.SWITCHES_LOOK_S) is None:
        if leader.leadership is not None:
            openflow.take_role(leader.leadership)
        if not following and (len(openflow.switches()) >= openflow.number or time.monotonic() > at_latest):
            following = True
            leader.followers.start()
        dead = [t.name for t in openflow.threads if not t.is_alive()]
        if dead:
            # The framework only logs such a death; a controller without switches must not look alive.
            print(f"controller: the OpenFlow part died ({', '.join(dead)})", file=sys.stderr)
            return False
    return True


@dataclass(frozen=True, slots=True)
class _OpenFlow:
    """The part of the controller that forwards classical traffic, as it runs."""

    number: int  # of switches that there are to be
    framework: str | None  # name and version; None if somebody else forwards
    switches: Callable[[], Mapping[str, list[str]]]  # those that are connected, each with its ports that are down
    threads: list[threading.Thread]  # those that must not die
    app: Any = None  # that takes roles

    def take_role(self, leadership: Leadership) -> None:
        """Be to the switches what that says; does not wait."""
        if self.app is not None:
            be = self.app.be_master if leadership.routes() else self.app.be_slave
            be(leadership.last_term)


def _start_openflow(options: config.OpenFlowConfig | None, *, alone: bool) -> _OpenFlow:
    if options is None:
        return _OpenFlow(0, None, dict, [])
    # The framework says nothing when the port is taken, and a stranger's server would answer our probe.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {options.host}:{options.port}: {error.strerror}") from None
    # Only here: REST alone, for tests and other fabrics, needs none of the framework.
    from controller.openflow import framework, openflow_app

    app, threads = framework.start(
        openflow_app.Forwarder, options.host, options.port, fabric=options.fabric, alone=alone
    )
    deadline = time.monotonic() + limits.BIND_S
    while True:
        try:
            socket.create_connection((options.host, options.port), timeout=1).close()
            return _OpenFlow(len(options.fabric.switches), framework.FRAMEWORK, app.connected, threads, app)
        except OSError as error:
            if time.monotonic() > deadline:
                raise OSError(error.errno, f"cannot listen on {options.host}:{options.port}") from None
            time.sleep(0.02)


if __name__ == "__main__":
    if len(sys.argv) != 2 and sys.argv[2:] != [_AGAIN]:
        print("usage: python -m controller CONFIG.json", file=sys.stderr)
        sys.exit(2)
    bugs.exit_with("controller", lambda: main(Path(sys.argv[1]), again=sys.argv[2:] == [_AGAIN]))
