"""The key sessions that run over this node, as the controller told them, kept across restarts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from etsi.checks import mapping, sequence, text, uuid_text
from etsi.errors import Malformed
from etsi.gs004 import QoS, qos
from node.key_stream import KeyStore
from node.modes import MODES

# No path of a network that we emulate is longer; it bounds what a message may make us do.
_MAX_HOPS = 64


@dataclass(frozen=True, slots=True)
class Session:
    """A key session: keys for `master_sae` at path[0] and `slave_sae` at path[-1]; qcs[i] joins path[i], path[i+1].

    `implicit`: a first request for keys opened it, and it ends when nobody asks for more.
    """

    ksid: str
    master_sae: str
    slave_sae: str
    path: tuple[str, ...]
    qcs: tuple[str, ...]
    mode: str
    qos: QoS
    implicit: bool = False

    @property
    def pair(self) -> tuple[str, str]:
        """Master and slave SAE."""
        return self.master_sae, self.slave_sae

    @property
    def hops(self) -> int:
        """Number of links on the path."""
        return len(self.qcs)

    def to_json(self) -> dict[str, Any]:
        """The document that `parse` reads."""
        return asdict(self)


def parse(document: Mapping[str, Any]) -> Session:
    """A session as the controller describes it; Malformed names the wrong member."""
    path = tuple(text(n, "path") for n in sequence(document.get("path"), "path", longest=_MAX_HOPS + 1))
    qcs = tuple(text(q, "qcs") for q in sequence(document.get("qcs"), "qcs", longest=_MAX_HOPS))
    if len(qcs) < 1 or len(path) != len(qcs) + 1 or len(set(path)) != len(path) or len(set(qcs)) != len(qcs):
        raise Malformed("path", "distinct nodes, one more than the distinct qcs")
    mode = text(document.get("mode"), "mode")
    if mode not in MODES:
        raise Malformed("mode", f"one of {', '.join(MODES)}")
    implicit = document.get("implicit", False)
    if not isinstance(implicit, bool):
        raise Malformed("implicit", "true or false")
    return Session(
        uuid_text(document.get("ksid"), "ksid"),
        uuid_text(document.get("master_sae"), "master_sae"),
        uuid_text(document.get("slave_sae"), "slave_sae"),
        path,
        qcs,
        mode,
        qos(mapping(document.get("qos", {}), "qos")),
        implicit,
    )


class Sessions:
    """All sessions over this node, by KSID and by pair of SAEs. Thread-safe."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._by_ksid = {s.ksid: s for s in (parse(document) for document in store.sessions())}
        self._by_pair = {s.pair: s for s in self._by_ksid.values()}

    def put(self, session: Session) -> None:
        """Add a session in place of any other of the same pair, whose end this node has missed."""
        self._store.put_session(session.ksid, session.to_json())
        with self._lock:
            old = self._by_pair.get(session.pair)
            self._by_ksid[session.ksid] = self._by_pair[session.pair] = session
        if old is not None and old.ksid != session.ksid:
            self.remove(old.ksid)

    def remove(self, ksid: str) -> Session | None:
        """Forget a session; the session, if there was one."""
        self._store.remove_session(ksid)
        with self._lock:
            session = self._by_ksid.pop(ksid, None)
            if session is not None and self._by_pair.get(session.pair) is session:
                del self._by_pair[session.pair]
            return session

    def get(self, ksid: str) -> Session | None:
        """The session of that KSID."""
        with self._lock:
            return self._by_ksid.get(ksid)

    def of_pair(self, master_sae: str, slave_sae: str) -> Session | None:
        """The session in which `master_sae` makes keys for `slave_sae`."""
        with self._lock:
            return self._by_pair.get((master_sae, slave_sae))

    def all(self) -> list[Session]:
        """All sessions, by KSID."""
        with self._lock:
            return [self._by_ksid[ksid] for ksid in sorted(self._by_ksid)]
