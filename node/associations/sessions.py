"""The key sessions that end at this node, as the configured applications (GS QKD 015, qkd_app) say."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from decisions.paths import Path, several
from etsi import gs015
from etsi.sae_id import from_uri
from ietf.restconf import Tree
from node.config import NodeConfig
from node.material.key_store import KeyStore
from node.tree.model import IMPLICIT, Change, Entry, apps


@dataclass(frozen=True, slots=True)
class Association:
    """Two SAEs that share keys, one of them at this node; `backing`: IDs of the links that feed it.

    `max_bps`: how much they may take, in bit/s; None is as much as there is. `min_bps`: how much they have declared to
    need, in bit/s, if they have.
    """

    ksid: str
    master_sae: str
    slave_sae: str
    master_node: str
    slave_node: str
    backing: tuple[str, ...]
    max_bps: int | None = None
    min_bps: int | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """Master and slave SAE."""
        return self.master_sae, self.slave_sae


@dataclass(frozen=True, slots=True)
class Session:
    """A key session and its route: from the master's node path[0] to path[-1]; qcs[i] joins path[i] and path[i+1].

    `link` is the virtual link that it goes over, if there are several hops. `double_at_last`: that link leads from the
    slave's node, so it is the slave's end that pays double.

    `several`: if it goes over several node-disjoint paths at once, each of them. `path` and `qcs` are as those of
    `decisions.paths.Path` then, and `link` is that of the first one.
    """

    ksid: str
    master_sae: str
    slave_sae: str
    path: tuple[str, ...]
    qcs: tuple[str, ...]
    link: str
    double_at_last: bool = False
    several: tuple[Session, ...] = ()

    @property
    def paths(self) -> tuple[Session, ...]:
        """The same over each of several paths; else this one alone."""
        return self.several or (self,)

    @property
    def hops(self) -> int:
        """Number of links on the path, on the longest one of several."""
        return max(len(path.qcs) for path in self.paths)

    @property
    def relayed(self) -> bool:
        """Whether keys, or parts of them, go by way of other nodes than the two at the ends."""
        return len(self.path) > 2


def over(paths: Sequence[Session]) -> Session:
    """The same session over all of these node-disjoint paths. Of those that are a single link the first one counts."""
    links = [path for path in paths if len(path.qcs) == 1]
    paths = [path for path in paths if len(path.qcs) > 1 or path is links[0]]
    if len(paths) == 1:
        return paths[0]
    whole = several([Path(path.path, path.qcs) for path in paths])
    return replace(
        paths[0], path=whole.nodes, qcs=whole.qcs, double_at_last=False, several=tuple(paths)
    )


def association(app: Mapping[str, object], config: NodeConfig) -> Association | None:
    """The association that an application stands for; None if it is no pair of SAEs of this network."""
    clients = app.get("client_app_id", [])
    if app.get("app_type", gs015.CLIENT) != gs015.CLIENT or not isinstance(clients, list) or len(clients) != 1:
        return None
    master, slave = from_uri(str(app.get("server_app_id", ""))), from_uri(str(clients[0]))
    if master not in config.saes or slave not in config.saes or "remote_qkdn_id" not in app:
        return None
    backing = app.get("backing_qkdl_id", [])
    qos = app.get("app_qos", {})
    assert isinstance(backing, list) and isinstance(qos, dict)  # noqa: S101, PT018 - as the model has it
    return Association(
        str(app["app_id"]), master, slave, config.saes[master], config.saes[slave], tuple(str(b) for b in backing),
        qos.get("max_bandwidth"), qos.get("min_bandwidth"),
    )  # fmt: skip


class _Configured(Protocol):
    """What is configured, and who is to hear of changes of it: the node's datastore."""

    @property
    def tree(self) -> Tree: ...
    def on_change(self, listener: Callable[[Change], None]) -> None: ...


class Sessions:
    """All sessions that end here, by KSID and by pair of SAEs. Thread-safe."""

    def __init__(self, config: NodeConfig, datastore: _Configured, store: KeyStore) -> None:
        self._config = config
        self._store = store
        self._lock = threading.Lock()
        self._by_ksid: dict[str, Association] = {}
        # Of a pair the one that was configured last counts. How many each SAE and each node has is counted.
        self._by_pair: dict[tuple[str, str], dict[str, Association]] = {}
        self._number: collections.Counter[str] = collections.Counter()
        self._implicit = {name for kind, name in store.documents() if kind == IMPLICIT}
        self._update({app["app_id"]: (None, app) for app in apps(datastore.tree)})
        datastore.on_change(lambda change: self._update(change.apps))

    def get(self, ksid: str) -> Association | None:
        """The session of that KSID."""
        with self._lock:
            return self._by_ksid.get(ksid)

    def of_pair(self, master_sae: str, slave_sae: str) -> Association | None:
        """The session in which `master_sae` makes keys for `slave_sae`."""
        with self._lock:
            return next(reversed(self._by_pair.get((master_sae, slave_sae), {}).values()), None)

    def number_of(self, who: str) -> int:
        """How many sessions that SAE, or node, is a side of."""
        with self._lock:
            return self._number[who]

    def all(self) -> list[Association]:
        """All sessions, by KSID."""
        with self._lock:
            return [self._by_ksid[ksid] for ksid in sorted(self._by_ksid)]

    def is_implicit(self, ksid: str) -> bool:
        """Whether a request for keys called for it, so that it ends when nobody asks for more."""
        with self._lock:
            return ksid in self._implicit

    def mark_implicit(self, ksid: str) -> None:
        """It was a request for keys that called for this session."""
        self._store.put_documents({(IMPLICIT, ksid): {}})
        with self._lock:
            self._implicit.add(ksid)

    def _update(self, changed: Mapping[str, tuple[Entry | None, Entry | None]]) -> None:
        with self._lock:
            for ksid, (_, app) in changed.items():
                self._remove(ksid, forgotten=app is None)
                found = None if app is None else association(app, self._config)
                if found is not None:
                    self._by_ksid[ksid] = found
                    self._by_pair.setdefault(found.pair, {})[ksid] = found
                    self._number.update(_sides(found))

    def _remove(self, ksid: str, *, forgotten: bool) -> None:
        if forgotten:
            self._implicit.discard(ksid)
        if (old := self._by_ksid.pop(ksid, None)) is not None:
            del self._by_pair[old.pair][ksid]
            if not self._by_pair[old.pair]:
                del self._by_pair[old.pair]
            self._number.subtract(_sides(old))
            for side in _sides(old):
                if not self._number[side]:
                    del self._number[side]


def _sides(found: Association) -> tuple[str, ...]:
    return *found.pair, found.master_node, found.slave_node
