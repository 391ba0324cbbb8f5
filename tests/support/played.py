"""A node played by a test: the real agent's data, RESTCONF and notifications, and no key material behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Response, request

from documents.secret import Secret
from etsi import gs015
from etsi.gs004 import QoS
from mtls.credentials import Credentials
from mtls.serve import Problem, new_app
from mtls.server import Server
from node.associations.registrations import Registrations
from node.associations.sessions import Sessions
from node.config import Neighbour, NodeConfig
from node.http.restconf_http import make_blueprint
from node.material.key_store import KeyStore
from node.tree.datastore import Datastore
from node.tree.leader import Leader
from node.tree.model import Change, apps, link_id, links
from node.tree.notifications import Streams
from node.tree.operational_state import QcState, State, live


@dataclass(frozen=True)
class Answer:
    """How a registration went: 200 with the KSID, 202 waiting, or a refusal's status with its facts."""

    status: int
    ksid: str | None = None
    message: str = ""
    facts: Mapping[str, Any] | None = None

    def detail(self, name: str) -> Any:
        """A fact of the refusal."""
        return (self.facts or {}).get(name)


class PlayedNode:
    """Node `name` with `qcs` (QC -> node at the other end; one with a ~ in its name is dark).

    It remembers in `told` what it was configured to.
    An entry of `told` is ("+" or "-", "app" or "link", ID).
    """

    def __init__(
        self,
        directory: Path,
        credentials: Credentials,
        name: str,
        qcs: Mapping[str, str],
        saes: Mapping[str, str],
        *,
        port: int = 0,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.told: list[tuple[str, str, str]] = []
        self.broken = False
        self.mute = False  # it does what it is told, and the answer gets lost
        self.ended: list[str] = []  # applications of which no controller has confirmed that it knows of their end
        self.before_edit: Callable[[], object] = lambda: None  # called when it is about to be configured
        self.after_edit: Callable[[], object] = lambda: None  # and called when that is done, or refused
        self.qcs: dict[str, QcState] = {}
        self.config = NodeConfig(
            name=name, host="127.0.0.1", kme_port=0, agent_port=0, directory=directory, credentials=credentials,
            shared_db_url="", shared_db_schema="", nodes={}, saes=saes,
            qcs=tuple(Neighbour(qc, peer, 1, Secret(b""), dark="~" in qc) for qc, peer in qcs.items()),
        )  # fmt: skip
        self.store = KeyStore(directory / "local.db", directory / "node.key", ttl_slots=15)
        self.datastore = Datastore(self.config, self.store)
        self.sessions = Sessions(self.config, self.datastore, self.store)
        self.streams = Streams()
        self.registrations = Registrations(name, self.sessions, self.streams)
        self.datastore.on_change(self._changed)
        app = new_app(name)

        @app.before_request
        def stumble() -> None:
            if request.method in ("PATCH", "PUT", "DELETE"):
                self.before_edit()
                if self.broken:
                    raise Problem(500, "out of order")

        @app.after_request
        def lose(answer: Response) -> Response:
            if request.method in ("PATCH", "PUT", "DELETE"):
                self.after_edit()
            if self.mute and request.method == "POST":
                return Response(b"", 504)
            return answer

        blueprint = make_blueprint(
            self.datastore, self.live, self.streams, self.registrations, Leader(self.store, self.streams)
        )
        app.register_blueprint(blueprint)
        self.server = Server(app, "127.0.0.1", port, credentials, threads=8)
        self.server.start()

    @property
    def url(self) -> str:
        """The agent's."""
        return f"https://127.0.0.1:{self.server.port}"

    @property
    def followed(self) -> bool:
        """Whether a controller listens."""
        return self.streams.controlled is not None

    def live(self) -> dict[str, Any]:
        """Configuration and state."""
        return live(self.datastore.tree, self.config, State(self.qcs, {}), self.ended)

    def end_in_silence(self, ksid: str) -> None:
        """An application ends here, and the word of it is lost with the connection that it was told over."""
        self.datastore.end_app(ksid)
        self.ended.append(ksid)
        self.registrations.on_end_known(self.ended.remove)
        for feed, _, _ in self.streams._feeds:
            feed.close()

    def fail(self, qc: str) -> None:
        """A QC of this node's has made keys, and makes none any more; whoever listens is told."""
        self.qcs[qc] = QcState(generated=1, alive=True)
        self._alarm(qc)

    def heal(self, qc: str) -> None:
        """It makes keys again."""
        self.qcs[qc] = QcState(generated=2, rate_bps=320.0, alive=True, generates=True)
        self._alarm(qc)

    def _alarm(self, qc: str) -> None:
        entry = {"qkdl_id": link_id(qc), "message": "its state has changed", "severity": gs015.MAJOR}
        self.streams.notify("alarm", {"link": entry})

    def ask(
        self, pair: tuple[str, str], side: str, *, implicit: bool = False, size: int = 128, interval_s: float = 5.0,
        duration_s: float | None = None,
    ) -> Answer:  # fmt: skip
        """Register a side and wait for what comes of it."""
        wanted = QoS(size, interval_s)
        try:
            found = self.registrations.ask(
                pair[0], pair[1], side, wanted, implicit=implicit, duration_s=duration_s
            )
        except Problem as problem:
            return Answer(problem.status, None, problem.message, problem.details)
        return Answer(202) if found is None else Answer(200, found.ksid)

    def report(self, slot: int, **figures: tuple[int | None, ...]) -> None:
        """Report a slot: for each QC bytes generated, requested, stored, used; None where that is not this node's."""
        entries = []
        for qc, said in figures.items():
            names = ("generated", "requested", "stored", "used")
            entries.append({"name": qc} | {n: str(v) for n, v in zip(names, said, strict=False) if v is not None})
        self.streams.notify_own("slot_report", {"slot": str(slot), "qc": entries})

    def app(self, app_id: str) -> dict[str, Any]:
        """That application as it is configured."""
        return next(a for a in apps(self.datastore.tree) if a["app_id"] == app_id)

    def link(self, link_id: str) -> dict[str, Any]:
        """That link as it is configured."""
        return next(e for e in links(self.datastore.tree) if e["qkdl_id"] == link_id)

    def stop(self) -> None:
        """End it."""
        self.server.stop()
        self.store.close()

    def _changed(self, change: Change) -> None:
        for what, changed in (("app", change.apps), ("link", change.links)):
            self.told += [("-", what, name) for name, (_, now) in changed.items() if now is None]
            self.told += [("+", what, name) for name, (was, now) in changed.items() if now and _own(now) != _own(was)]
        for app in apps(change.new):
            found = self.sessions.get(app["app_id"])
            if found is not None and app["app_type"] == gs015.CLIENT:
                self.registrations.on_association(found)


def _own(entry: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """An entry without what the node itself says in it."""
    return None if entry is None else {k: v for k, v in entry.items() if k != "qkdl_applications"}
