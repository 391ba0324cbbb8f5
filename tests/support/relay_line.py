"""Nodes of a path, or of several, in one process, with stores of their own, who answer one another directly."""

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decisions.modes import PARALLEL, Mode
from decisions.ranges import Allocation, Range
from documents.checks import Malformed
from documents.secret import Secret
from mtls.call import Reply
from node.associations.sessions import Association, Session, over
from node.failures import KeyFailure
from node.material.blocks import Block
from node.material.key_store import KeyStore
from node.relaying.ciphers import proof
from node.relaying.exchange import Exchange
from node.relaying.last_node import LastNode
from node.relaying.relay import Relay
from node.tree.performance import Performance
from telemetry.journal import Journal

KSID, ALICE, BOB = (str(uuid.uuid4()) for _ in range(3))
LINKS = [str(uuid.uuid4()) for _ in range(3)]  # of the paths
LINK = LINKS[0]
KEY_BYTES, STORED, ANSWER_S = 16, 1 << 12, 4.0
Question = Callable[[str, str, str, dict[str, Any]], dict[str, Any] | None]


class Node:
    """As Routes and Sessions of a node: it knows its neighbours on virtual links, and the one session."""

    def __init__(self, line: Line, name: str, directory: Path) -> None:
        directory.mkdir()
        self.name, self.line = name, line
        self.store = KeyStore(directory / "local.db", directory / "node.key", ttl_slots=15, clock=lambda: 1000.0)
        self.store.follow("server")
        for qc, ends in line.ends.items():
            if name in ends:
                self.store.store(Block(qc, 0, 0, 0, Secret(line.streams[qc]), made=1000.0), b"")
        self.journal = directory / "journal.jsonl"
        performance, journal = Performance(self.store.held), Journal(self.journal, self.name)
        exchange = Exchange(
            self.name, nodes={name: f"https://{name}" for name in line.names}, caller=line.calls_of(self.name),
            store=self.store, performance=performance, secret=self.name.encode, answer_s=lambda: line.answer_s,
            journal=journal,
        )  # fmt: skip
        as_last = LastNode(
            self.name, sessions=self, store=self.store, answer_s=lambda: line.answer_s, journal=journal
        )
        self.relay = Relay(exchange, as_last, store=self.store, routes=self, performance=performance)

    def neighbours(self, link: str) -> dict[str, list[str]]:
        """As of Routes."""
        path = self.line.paths[LINKS.index(link)]
        place = path.index(self.name)
        around = [n for n in (place - 1, place + 1) if 0 <= n < len(path)]
        return {path[n]: [f"{path[min(n, place)]}-{path[max(n, place)]}"] for n in around}

    def next_hop(self, link: str, sender: str) -> str | None:
        """As of Routes."""
        return next((name for name in self.neighbours(link) if name != sender), None)

    def joins(self, qc: str, neighbour: str) -> bool:
        """As of Routes."""
        return self.line.ends.get(qc) in ((self.name, neighbour), (neighbour, self.name))

    def get(self, ksid: str) -> Association | None:
        """As of Sessions."""
        ends, links = (self.line.names[0], self.line.names[-1]), tuple(LINKS[: len(self.line.paths)])
        return Association(KSID, ALICE, BOB, *ends, links) if ksid == KSID else None


class Line:
    """Nodes in a row, or in several rows between the same two, of so many links each.

    `on_the_way(sender, to, path, body)` may alter what is said, or keep it to itself (None).
    """

    def __init__(self, directory: Path, *hops: int, mode: Mode = PARALLEL) -> None:
        last = f"n{hops[0]}"
        self.paths = [
            ["n0", *(f"{letter}{i}" for i in range(1, links)), last]
            for letter, links in zip("nmo", hops, strict=False)
        ]
        between = (node for path in self.paths for node in path[1:-1])
        self.names = ["n0", *between, last]
        self.ends = {f"{a}-{b}": (a, b) for path in self.paths for a, b in itertools.pairwise(path)}
        self.qcs = list(self.ends)
        self.streams = {qc: os.urandom(STORED) for qc in self.qcs}
        self.on_the_way: Question = lambda *_: _[3]
        self.said: list[tuple[str, str, str]] = []
        self.used, self.answer_s, self.mode = 0, ANSWER_S, mode
        self.nodes = {name: Node(self, name, directory / name) for name in self.names}

    def calls_of(self, sender: str) -> Any:
        """As Caller, for that node."""
        line = self

        class Calls:
            measured_s = staticmethod(lambda _: 0.0)

            @staticmethod
            def request(_: str, url: str, *, body: dict[str, Any], **__: Any) -> Reply:
                """The other node's answer."""
                to, _, path = url.removeprefix("https://").partition("/")
                return line.say(sender, to, path, json.loads(json.dumps(body)))

        return Calls()

    def say(self, sender: str, to: str, path: str, body: dict[str, Any]) -> Reply:
        """As the agent's port of node `to`."""
        request, what = path.split("/")[-2:]
        self.said.append((sender, to, what))
        changed = self.on_the_way(sender, to, what, body)
        if changed is None:
            return Reply(204, None)
        parallel = self.nodes[to].relay.parallel
        steps = {"pads": parallel.turn, "difference": parallel.accept_difference, "sealed": parallel.accept_sealed}
        try:
            found = steps[what](sender, request, changed)  # type: ignore[operator]
        except KeyFailure as failure:
            details = [{name: value} for name, value in failure.details().items()]
            return Reply(failure.status, {"message": str(failure), "details": details})
        except Malformed as error:
            return Reply(400, {"message": str(error), "details": [{"field": error.field}]})
        if found is None or (found.kept and not found.missing and not found.altered):
            return Reply(204, None)
        return Reply(200 if found.kept else 202, {"missing": list(found.missing), "altered": list(found.altered)})

    def key(self, number: int = 1) -> list[bytes]:
        """Keys made by the first node."""
        request, n_bytes = str(uuid.uuid4()), number * KEY_BYTES
        ranges = [Range(qc, self.used, self.used + n_bytes) for qc in self.qcs]
        self.used += n_bytes
        proofs, sessions, begin = list[str](), list[Session](), 0
        for link, path in zip(LINKS, self.paths, strict=False):
            hops = len(path) - 1
            mine = ranges[begin : begin + hops]
            proofs += [
                proof(name.encode(), request, "server", position=i, hops=hops, around=mine[i - 1 : i + 1])
                for i, name in enumerate(path[1:], 1)
            ]
            sessions.append(Session(KSID, ALICE, BOB, tuple(path), tuple(self.qcs[begin : begin + hops]), link))
            begin += hops
        self.key_ids = [str(uuid.uuid4()) for _ in range(number)]
        made = self.nodes["n0"].relay.originate(
            over(sessions), self.mode, Allocation(request, "server", ranges, proofs), key_ids=self.key_ids,
            key_bytes=KEY_BYTES,
        )  # fmt: skip
        return [key.reveal() for key in made]

    def at_last(self) -> list[bytes]:
        """What waits for the slave of the keys that were made last."""
        found = self.nodes[self.names[-1]].store.take_relayed(self.key_ids)
        return [] if found is None else [relayed.key.reveal() for relayed in found]

    def left(self, name: str) -> int:
        """Bytes that a node has not used up."""
        return sum(held.stored for held in self.nodes[name].store.held())

    def close(self) -> None:
        """All their stores."""
        for node in self.nodes.values():
            node.store.close()
