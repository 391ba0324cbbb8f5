"""`python -m node CONFIG.json`: wires one SD-QKD node, serves until SIGTERM or SIGINT."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from etsi import gs015_testbed
from mtls.call import Caller
from mtls.server import Server
from node import config, limits
from node.agent.agent import Agent, Parts
from node.associations.ended_sessions import Ends
from node.associations.implicit import ImplicitSessions
from node.associations.registrations import Registrations
from node.associations.sessions import Sessions
from node.http import agent_http, kme_http, restconf_http
from node.material.key_stream import KeyStore
from node.material.losses import Losses
from node.material.quantum_module import QuantumModule
from node.material.shared_db import SharedDatabase
from node.parameters import Current, parse
from node.relaying.relay import Relay
from node.relaying.routes import Routes
from node.serving.kme import Kme
from node.serving.requested_bytes import Requested
from node.tree.datastore import Datastore
from node.tree.notifications import Streams
from node.tree.performance import Performance
from node.waiting_limits import HalfOpen, Places
from telemetry import bugs, trace
from telemetry.journal import Journal
from telemetry.metrics import NodeMetrics
from telemetry.signals import Signals


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
    store = KeyStore(
        options.directory / "local.db", options.directory / "node.key", ttl_slots=options.parameters.ttl_slots,
        slot_s=options.slot_s,
    )  # fmt: skip
    datastore = Datastore(options, store)
    parameters = Current(parse(datastore.tree[gs015_testbed.NODE]["parameters"], options.parameters))
    store.ttl_slots = parameters().ttl_slots
    sessions = Sessions(options, datastore, store)
    shared = SharedDatabase(
        options.shared_db_url, options.shared_db_schema, options.name, round_trip_s=options.round_trip_s
    )
    caller = Caller(
        options.credentials, connections=limits.CONNECTIONS_PER_NODE, record=functools.partial(journal.event, "call"),
        round_trip_s=options.round_trip_s,
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
    relay = Relay(
        options.name, nodes=options.nodes, caller=caller, store=store, sessions=sessions, routes=routes,
        performance=performance, secret=lambda: shared.secret, answer_s=answer_s, journal=journal,
    )  # fmt: skip
    kme = Kme(
        options.name, saes=options.saes, limits=options.limits, store=store, shared=shared, sessions=implicit,
        routes=routes, relay=relay, performance=performance, requested=requested, losses=losses, parameters=parameters,
        journal=journal,
    )  # fmt: skip
    blocks = QuantumModule(options.directory / "blocks.sock", {n.qc: n.authentication_key for n in options.qcs}, store)
    agent = Agent(
        Parts(
            options, datastore, store, shared, sessions, implicit, registrations, ends, openings,
            HalfOpen(limits.HALF_OPEN_PER_PARTY, limits.HALF_OPEN_S), routes, streams, performance, requested,
            parameters, kme, blocks, journal,
        )
    )  # fmt: skip
    restconf = restconf_http.make_blueprint(datastore, agent.live, streams, registrations)
    metrics = NodeMetrics(
        lambda: [(h.qc, h.stored, h.generated, h.used, h.expired, h.differing) for h in store.held()],
        lambda: dict.fromkeys((n.qc for n in options.qcs), 0) | kme.pooled(), losses.by_qc,
    )
    servers = [
        Server(
            kme_http.make_app(kme, agent, journal, metrics),
            options.host,
            options.kme_port,
            options.credentials,
            threads=limits.KME_THREADS,
            per_party=limits.REQUESTS_PER_SAE,
            answer_s=answer_s,
        ),
        Server(
            agent_http.make_app(agent, restconf, relay, routes, store, journal=journal, metrics=metrics),
            options.host,
            options.agent_port,
            options.credentials,
            threads=limits.AGENT_THREADS,
            per_party=limits.REQUESTS_PER_NODE,
            answer_s=answer_s,
        ),
    ]
    signals = Signals(signal.SIGTERM, signal.SIGINT)
    try:
        for server in servers:
            server.start()
    except OSError as error:
        print(f"node {options.name}: {error.strerror}", file=sys.stderr)
        return 2
    journal.event("started", kme_port=servers[0].port, agent_port=servers[1].port)
    shared.open()
    blocks.start(agent.on_block)
    agent.start()
    print("ready", flush=True)
    signals.next()
    _cut_off_later(journal)
    blocks.stop()
    agent.stop()
    for server in servers:
        server.stop()
    shared.close()
    store.close()
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
