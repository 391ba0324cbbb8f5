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

from controller import config, limits
from controller.agents.agents import Agents
from controller.following.follower import Followers
from controller.network.graph import Graph
from controller.network.identities import Identities
from controller.network.settings import Settings
from controller.network.store import Store
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


def main(path: Path) -> int:
    """Serve as the controller that `path` describes; the exit status."""
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
    try:
        openflow = _start_openflow(options.openflow)
        graph = Graph(options.grace_s)
        agents = Agents(options.credentials, journal, round_trip_s=options.round_trip_s)
        store = Store(options.directory / "controller.db")
        settings = Settings(graph, options.parameters, journal, store)
        book = Book(store)
        lighting = Lighting(graph, book, agents, journal, switched=options.switched, spare=options.spare)
        choice = Choice(graph, book, settings, lighting)
        words = Words(graph, agents, store, journal)
        session_agents = SessionAgents(graph, agents, words)
        upkeep = Upkeep(book, choice, session_agents, journal)
        sessions = KeySessions(
            graph, book, choice, session_agents, journal, upkeep=upkeep, lighting=lighting, saes=options.saes,
            half_open_timeout_s=options.half_open_timeout_s,
        )  # fmt: skip
        followers = Followers(
            graph, agents, journal, identities=Identities(store, options.node_ids), sessions=sessions,
            settings=settings, upkeep=upkeep,
        )  # fmt: skip
        mover = Mover(graph, book, choice, upkeep, journal, steady_s=options.steady_s)
        reweigher = Reweigher(book, upkeep, journal)
        app = make_app(
            graph, sessions, followers, store, book=book, choice=choice, settings=settings,
            switches=openflow.switches, framework=openflow.framework,
        )  # fmt: skip
        server = Server(
            app, options.host, options.port, options.credentials, threads=limits.OPERATORS,
            per_party=limits.OPERATORS_FOR_ONE,
        )  # fmt: skip
        server.start()
    except OSError as error:
        print(f"controller: {error.strerror}", file=sys.stderr)
        return 2
    for agent in known_agents(dict(options.agents), store):
        followers.follow(agent)
    words.start()
    mover.start()
    lighting.start()
    reweigher.start()
    journal.event("started", port=server.port)
    print("ready", flush=True)
    if not _run(signals, openflow, followers):
        return 1
    mover.stop()
    lighting.stop()
    reweigher.stop()
    followers.stop()
    words.stop()
    agents.close()
    store.close()
    journal.event("stopped")
    return 0


def _run(signals: Signals, openflow: _OpenFlow, followers: Followers) -> bool:
    """Follow nodes once all switches forward, until a signal comes; False if the OpenFlow part has died."""
    # Who connects to an agent over a switch that does not forward yet tries again only in a second.
    following, at_latest = False, time.monotonic() + limits.SWITCHES_S
    while signals.next(limits.WATCH_S if following else limits.SWITCHES_LOOK_S) is None:
        if not following and (len(openflow.switches()) >= openflow.number or time.monotonic() > at_latest):
            following = True
            followers.start()
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


def _start_openflow(options: config.OpenFlowConfig | None) -> _OpenFlow:
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

    app, threads = framework.start(openflow_app.Forwarder, options.host, options.port, fabric=options.fabric)
    deadline = time.monotonic() + limits.BIND_S
    while True:
        try:
            socket.create_connection((options.host, options.port), timeout=1).close()
            return _OpenFlow(len(options.fabric.switches), framework.FRAMEWORK, app.connected, threads)
        except OSError as error:
            if time.monotonic() > deadline:
                raise OSError(error.errno, f"cannot listen on {options.host}:{options.port}") from None
            time.sleep(0.02)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m controller CONFIG.json", file=sys.stderr)
        sys.exit(2)
    bugs.exit_with("controller", lambda: main(Path(sys.argv[1])))
