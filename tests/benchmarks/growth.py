"""`python -m tests.benchmarks.growth`: costs that are not to grow with what there is, each at two sizes.

The parts are those of the processes, in this one: no network, no other process has a say in the times. Printed are
medians in ms. A controller's share is what its looks at all key sessions take of one processor, while nothing happens.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from controller import limits
from controller.agents.configuration import Route, Wants
from controller.network.graph import Graph
from controller.network.nodes import Agent, Report
from controller.network.settings import Parameters, Settings
from controller.network.store import FileStore
from controller.sessions.bandwidth_updates import Reweigher
from controller.sessions.lighting import Lighting
from controller.sessions.mover import Mover
from controller.sessions.path_admission import Choice
from controller.sessions.registry import Book
from controller.sessions.session_nodes import SessionAgents, Upkeep
from decisions.paths import Path as Way
from documents.secret import Secret
from etsi import gs015
from etsi.gs004 import QoS
from node.associations.sessions import Sessions
from node.material.key_store import KeyStore, RelayedKey
from node.tree.datastore import Datastore
from telemetry.journal import Journal
from testbed.bench.bench_run import options
from testbed.evidence.summary import Progress
from testbed.operation.tables import table
from tests.support import open_session

_REPEATS = 200
_SIZES = (10, 1000)
_MINUTE, _HOUR = 60, 3600
_IDS = {"a": "00000000-0000-4000-8000-00000000000a", "b": "00000000-0000-4000-8000-00000000000b"}


def main() -> int:
    """All of them, as one table; the exit status."""
    options("half a minute").parse_args()
    rows = []
    for what, sizes, measure in (
        ("one more key session at a node", _SIZES, _node),
        ("a controller's look at key sessions", _SIZES, _look),
        ("a QC's view after so many slots", (_MINUTE, _HOUR), _view),
        ("a slot's expiry at a node, where so many keys wait", (100, 30_000), _expiry),
        ("progress of a run, of so many keys", (1000, 300_000), _progress),
    ):
        with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
            times = [measure(Path(folder), size) for folder, size in zip((small, large), sizes, strict=True)]
        share = f"{100 * times[1] / 1000 / limits.LOOK_S:.2f} %" if measure is _look else ""
        rows.append((what, *sizes, *times, f"{times[1] / times[0]:.2f}", share))
    print(table(("cost", "few", "many", "few ms", "many ms", "ratio", "of a processor"), rows))
    return 0


def _median_ms(step: Callable[[], object], repeats: int = _REPEATS) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times), 3)


def _node(folder: Path, number: int) -> float:
    """A controller configures a session, and removes it, where so many are: everything but HTTP."""
    config = open_session.config(folder, "a", "b")
    store = KeyStore(folder / "local.db", folder / "node.key", ttl_slots=15)
    datastore = Datastore(config, store)
    Sessions(config, datastore, store)
    for _ in range(number):
        open_session.configure(datastore, "b", str(uuid.uuid4()))

    def one_more() -> None:
        ksid = str(uuid.uuid4())
        open_session.configure(datastore, "b", ksid)
        open_session.remove(datastore, ksid)

    found = _median_ms(one_more)
    store.close()
    return found


def _graph(now: Callable[[], float] = time.monotonic) -> Graph:
    """Two nodes, joined by a QC."""
    graph = Graph(now=now)
    for name, other in (("a", "b"), ("b", "a")):
        link = {
            "qkdl_id": "11111111-0000-4000-8000-000000000000", "qkdl_type": gs015.PHYS, "qkdl_enable": True,
            "qkdl_status": gs015.ACTIVE, "qkdl_local": {"qkdn_id": _IDS[name], "qkdi_id": 1},
            "qkdl_remote": {"qkdn_id": _IDS[other], "qkdi_id": 1},
        }  # fmt: skip
        node = {"qkdn_id": _IDS[name], "qkd_links": {"qkd_link": [link]}}
        graph.put(Agent(name, f"https://{name}"), node, {1: "ab"}, extended=True)
    return graph


def _look(folder: Path, number: int) -> float:
    """Mover and reweigher look at all sessions, none of which needs anything."""
    graph, store, journal = _graph(), FileStore(folder / "controller.db"), Journal(folder / "journal.jsonl", "ctl")
    book = Book(store)
    settings = Settings(graph, Parameters(), journal, store)
    lighting = Lighting(graph, book, None, journal)
    choice = Choice(graph, book, settings, lighting)
    for _ in range(number):
        pair = str(uuid.uuid4()), str(uuid.uuid4())
        for node, side in (("a", "master"), ("b", "slave")):
            session, _ = book.register(node, pair, side, Wants(QoS(), {}), implicit=False)
        session.path, session.route = Way(("a", "b"), ("ab",)), Route([_IDS["a"], _IDS["b"]], ["1"])
        session.bandwidth = choice.bandwidth(session)
        book.opened(session)
    upkeep = Upkeep(book, choice, SessionAgents(graph, None, None), journal)  # no node is told anything
    mover = Mover(graph, book, choice, upkeep, journal, lighting=lighting, steady_s=1.0)
    reweigher = Reweigher(book, upkeep, journal)

    def look() -> None:
        mover._look()
        assert reweigher._look(), "nothing was to be told"

    found = _median_ms(look, 50)
    store.close()
    return found


def _view(_: Path, slots: int) -> float:
    """How a QC fared over a TTL, when its ends have reported for so many slots."""
    graph = _graph(lambda: 0.0)
    for slot in range(1, slots + 1):
        for name in "ab":
            graph.report(name, slot, [Report("ab", 40, 20, 400, 20)])
    return _median_ms(lambda: graph.views(["ab"], 15))


def _expiry(folder: Path, number: int) -> float:
    """What a node does once a slot, when nothing is too old yet."""
    store = KeyStore(folder / "local.db", folder / "node.key", ttl_slots=1000)
    made = store.clock()
    store.put_relayed(
        [RelayedKey(str(uuid.uuid4()), "ksid", "a", "b", Secret(bytes(16)), made) for _ in range(number)]
    )
    found = _median_ms(store.expire)
    store.close()
    return found


def _progress(folder: Path, keys: int) -> float:
    """The line that a run prints every few seconds, when nothing has happened since the last one."""
    for kind in ("nodes", "saes"):
        (folder / kind / "a").mkdir(parents=True)
    journal = Journal(folder / "nodes" / "a" / "journal.jsonl", "a")
    for _ in range(keys):
        journal.event("key_delivered", method="enc_keys", key_ids=[str(uuid.uuid4())], hops=1, duration_ms=1.0)
    journal.close()
    progress, said = Progress(folder, ["a"]), ""
    while said != (said := progress.line()):
        pass
    return _median_ms(progress.line)


if __name__ == "__main__":
    sys.exit(main())
