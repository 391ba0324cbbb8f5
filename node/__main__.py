"""`python -m node CONFIG.json`: one SD-QKD node, which serves until SIGTERM or SIGINT.

What there is of a node is put together here: who reads the program begins with `Node`.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from etsi import gs015_testbed
from mtls import framed
from mtls.call import Caller
from mtls.identity import Role
from mtls.server import Server
from node import config, limits
from node.agent.agent import Agent
from node.agent.key_sessions import KeySessions
from node.agent.reporting import Reporting
from node.associations.ended_sessions import Ends
from node.associations.implicit import ImplicitSessions
from node.associations.registrations import Registrations
from node.associations.sessions import Sessions
from node.config import Current, NodeConfig, parse_parameters
from node.devices.devices import Devices
from node.http import agent_http, kme_http, restconf_http
from node.material.key_store import KeyStore
from node.material.losses import Losses
from node.material.quantum_module import QuantumModule
from node.material.shared_db import SharedDatabase
from node.relaying.exchange import Exchange
from node.relaying.last_node import LastNode
from node.relaying.relay import Relay
from node.relaying.routes import Routes
from node.serving.handing_out import HandingOut
from node.serving.kme import Kme
from node.serving.requested_bytes import Requested
from node.streams.chunk_streams import ChunkStreams
from node.streams.home import HomeStreams
from node.streams.messages import Gs004
from node.tree.datastore import Datastore
from node.tree.leader import Leader
from node.tree.notifications import Streams
from node.tree.performance import Performance
from node.waiting_limits import HalfOpen, Places
from telemetry import bugs, trace
from telemetry.journal import Journal
from telemetry.metrics import NodeMetrics
from telemetry.signals import Signals


class Node:
    """The SD-QKD node that `options` describe; nobody is served before `start`."""

    def __init__(self, options: NodeConfig, journal: Journal) -> None:
        store = KeyStore(
            options.directory / "local.db", options.directory / "node.key", ttl_slots=options.parameters.ttl_slots,
            slot_s=options.slot_s,
        )  # fmt: skip
        datastore = Datastore(options, store)
        parameters = Current(parse_parameters(datastore.tree[gs015_testbed.NODE]["parameters"], options.parameters))
        store.ttl_slots = parameters().ttl_slots
        sessions = Sessions(options, datastore, store)
        shared = SharedDatabase(
            options.shared_db_url, options.shared_db_schema, options.name, round_trip_s=options.round_trip_s
        )
        caller = Caller(
            options.credentials, connections=limits.CONNECTIONS_PER_NODE,
            record=functools.partial(journal.event, "call"), round_trip_s=options.round_trip_s,
        )  # fmt: skip

        def answer_s() -> float:
            return limits.answer_s(max(caller.round_trip_s, shared.round_trip_s))

        requested, losses, streams = Requested(), Losses(journal), Streams()
        performance = Performance(store.held)
        routes = Routes(options, datastore, caller)
        registrations = Registrations(options.name, sessions, streams)
        ends = Ends(store, streams, registrations)
        openings = Places(limits.OPENINGS, limits.OPENINGS_PER_SAE)
        implicit = ImplicitSessions(
            options.name, sessions, registrations, nodes=options.nodes, caller=caller, openings=openings
        )
        exchange = Exchange(
            options.name, nodes=options.nodes, caller=caller, store=store, performance=performance,
            secret=lambda: shared.secret, answer_s=answer_s, journal=journal,
        )  # fmt: skip
        as_last = LastNode(options.name, sessions=sessions, store=store, answer_s=answer_s, journal=journal)
        relay = Relay(exchange, as_last, store=store, routes=routes, performance=performance)
        kme = Kme(
            options.name, saes=options.saes, limits=options.limits, store=store, shared=shared, sessions=implicit,
            routes=routes, relay=relay, performance=performance, requested=requested, losses=losses,
            parameters=parameters, journal=journal,
        )  # fmt: skip
        keys = {n.qc: n.authentication_key for n in options.qcs}
        devices = Devices(options, store=store, caller=caller, journal=journal)
        blocks = QuantumModule(options.directory / "blocks.sock", keys, store, devices.ends)
        key_sessions = KeySessions(
            options, datastore=datastore, sessions=sessions, implicit=implicit, registrations=registrations, ends=ends,
            openings=openings, half_open=HalfOpen(limits.HALF_OPEN_PER_PARTY, limits.HALF_OPEN_S), routes=routes,
            streams=streams, journal=journal,
        )  # fmt: skip
        reporting = Reporting(
            options, datastore=datastore, store=store, performance=performance, requested=requested, streams=streams,
            journal=journal, why_silent=devices.why_silent,
        )  # fmt: skip
        agent = Agent(
            options, datastore=datastore, store=store, shared=shared, sessions=sessions, key_sessions=key_sessions,
            ends=ends, streams=streams, performance=performance, reporting=reporting, parameters=parameters, kme=kme,
            blocks=blocks, journal=journal,
        )  # fmt: skip
        restconf = restconf_http.make_blueprint(datastore, agent.live, streams, registrations, Leader(store, streams))
        metrics = NodeMetrics(
            options.name,
            lambda: [(h.qc, h.stored, h.generated, h.used, h.expired, h.differing) for h in store.held()],
            lambda: dict.fromkeys((n.qc for n in options.qcs), 0) | kme.pooled(), losses.by_qc, performance.qber,
        )
        def life_s() -> float:
            return parameters().ttl_slots * options.slot_s

        home = HomeStreams(life_s=life_s)
        chunk_streams = ChunkStreams(
            options.name, saes=options.saes, nodes=options.nodes, limits=options.limits, caller=caller, kme=kme,
            home=home, keys=HandingOut(kme, journal, metrics, protocol="gs004"), life_s=life_s,
        )  # fmt: skip
        serve = functools.partial(
            Server, host=options.host, credentials=options.credentials, answer_s=answer_s,
            processor=list(options.nodes).index(options.name),
        )  # fmt: skip
        self._servers: list[Server | framed.FramedServer] = [
            serve(
                kme_http.make_app(kme, key_sessions, journal, metrics), port=options.kme_port,
                threads=limits.KME_THREADS, per_party=limits.REQUESTS_PER_SAE,
            ),
            serve(
                agent_http.make_app(
                    agent, restconf, key_sessions=key_sessions, relay=relay, routes=routes, streams=home,
                    devices=devices, home_of=options.saes, store=store, journal=journal, metrics=metrics,
                ),
                port=options.agent_port, threads=limits.AGENT_THREADS, per_party=limits.REQUESTS_PER_NODE,
            ),
        ]  # fmt: skip
        if options.stream_port is not None:
            bounds = framed.Limits(
                limits.STREAM_CONNECTIONS, limits.STREAM_CONNECTIONS_PER_SAE, limits.STREAM_THREADS,
                limits.STREAM_REQUESTS_PER_SAE,
            )  # fmt: skip
            self._servers.append(
                framed.FramedServer(
                    Gs004(chunk_streams), options.host, options.stream_port, options.credentials, roles=(Role.SAE,),
                    limits=bounds,
                )
            )
        self._agent, self._blocks, self._shared, self._store = agent, blocks, shared, store
        self._journal = journal

    def start(self) -> None:
        """Serve. OSError if a port cannot be had."""
        for server in self._servers:
            server.start()
        kme, agent, *streams = (server.port for server in self._servers)
        self._journal.event("started", kme_port=kme, agent_port=agent, stream_port=streams[0] if streams else None)
        self._shared.open()
        self._blocks.start(self._agent.on_block)
        self._agent.start()

    def stop(self) -> None:
        """Serve no more; what was given out is in the stores by then."""
        self._blocks.stop()
        self._agent.stop()
        for server in self._servers:
            server.stop()
        self._shared.close()
        self._store.close()


def main(path: Path) -> int:
    """Serve as the node that `path` describes; the exit status."""
    try:
        options = config.load(path)
    except ValueError as error:
        print(f"node: {path}: {error}", file=sys.stderr)
        return 2
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = Journal(options.directory / "journal.jsonl", f"node:{options.name}", context=trace.ids)
    node = Node(options, journal)
    signals = Signals(signal.SIGTERM, signal.SIGINT)
    try:
        node.start()
    except OSError as error:
        print(f"node {options.name}: {error.strerror}", file=sys.stderr)
        return 2
    print("ready", flush=True)
    signals.next()
    _cut_off_later(journal)
    node.stop()
    journal.event("stopped")
    return 0


def _cut_off_later(journal: Journal) -> None:
    """Nothing needs a long good-bye, as every store is durable: what still waits for a peer that is away is cut off."""

    def cut_off() -> None:
        journal.event("stopped", cut_off=True)
        os._exit(0)

    last_call = threading.Timer(limits.LAST_CALL_S, cut_off)
    last_call.daemon = True
    last_call.start()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m node CONFIG.json", file=sys.stderr)
        sys.exit(2)
    bugs.exit_with("node", lambda: main(Path(sys.argv[1])))
