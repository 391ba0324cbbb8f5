"""What is configured of this node: one tree, edited by RESTCONF, kept across restarts. Thread-safe."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from etsi import gs015, gs015_testbed
from ietf.preconditions import Preconditions
from ietf.restconf import Target, Tree, exists
from ietf.restconf_edit import Edit, edit
from node.config import NodeConfig, Parameters
from node.material.key_store import KeyStore
from node.tree.model import (
    ENDED,
    IMPLICIT,
    MODEL,
    Change,
    apps,
    change,
    initial,
    interfaces,
    links,
    normalised,
    with_users,
)

_APP, _LINK, _INTERFACE, _NODE, _EXTRA = "app", "link", "interface", "node", "extra"
_NONE = Preconditions()
_NOTHING: Mapping[tuple[str, str], Any] = {}
_LISTS = ("qkd_applications", "qkd_links", "qkd_interfaces")


class Datastore:
    """The running configuration."""

    def __init__(self, config: NodeConfig, store: KeyStore) -> None:
        self._config = config
        self._store = store
        self._lock = threading.RLock()
        self._listeners: list[Callable[[Change], None]] = []
        kept = store.documents()
        self.tree: Tree = _restored(initial(config, config.parameters), kept, config)
        self._kept = (_NODE, "") in kept
        self._boot = secrets.token_hex(4)
        self._changes = 0
        self.changed_at = time.time()  # wall clock, s

    @property
    def version(self) -> str:
        """Another one after each change, for entity tags (RFC 8040, clause 3.4.1.2)."""
        return f"{self._boot}-{self._changes}"

    def on_change(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` after each change, one at a time, under the datastore's lock."""
        self._listeners.append(listener)

    def edit(self, method: str, target: Target, body: Any, required: Preconditions = _NONE) -> Edit:
        """A client's edit, whole or not at all; Refusal."""
        with self._lock:
            required.check(self.version, self.changed_at, exists=exists(self.tree, target))
            found = edit(MODEL, self.tree, method, target, body)
            self._commit(normalised(found.tree, self._config, self.tree))
            return found

    def end_app(self, app_id: str) -> bool:
        """The node itself ends an application, and the virtual links that served it alone; False: there is none.

        In one step with that, the end is written down: a node that is killed then tells of it when it is back.
        """
        with self._lock:
            kept = [a for a in apps(self.tree) if a["app_id"] != app_id]
            gone = [a for a in apps(self.tree) if a["app_id"] == app_id]
            if not gone:
                return False
            alone = set(gone[0].get("backing_qkdl_id", [])) - {
                b for a in kept if a.get("app_type") == gs015.CLIENT for b in a.get("backing_qkdl_id", [])
            }
            kept_links = [e for e in links(self.tree) if e["qkdl_id"] not in alone or e["qkdl_type"] != gs015.VIRT]
            lists = {"qkd_applications": {"qkd_app": kept}, "qkd_links": {"qkd_link": kept_links}}
            left = {**self.tree, gs015.NODE: self.tree[gs015.NODE] | lists}
            self._commit(normalised(left, self._config, self.tree), {(ENDED, app_id): {}})
            return True

    def _commit(self, tree: Tree, note: Mapping[tuple[str, str], Any] = _NOTHING) -> None:
        found = change(self.tree, tree)
        changed = {(_APP, name): now for name, (_, now) in found.apps.items()}
        changed |= {(IMPLICIT, name): None for name, (_, now) in found.apps.items() if now is None}
        links_now = {(_LINK, name): (_kept_link(was), _kept_link(now)) for name, (was, now) in found.links.items()}
        changed |= {key: now for key, (was, now) in links_now.items() if was != now}
        before = _rest(self.tree)
        changed |= {k: v for k, v in _rest(tree).items() if before[k] != v}
        # The first change keeps everything: what nobody configured follows the configuration file until then.
        self._store.put_documents({**(changed if self._kept else _documents(tree)), **note})
        self._kept = True
        self.tree = tree
        self._changes += 1
        self.changed_at = time.time()
        for listener in self._listeners:
            listener(found)


def _documents(tree: Tree) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {(_APP, a["app_id"]): a for a in apps(tree)}
    found |= {(_LINK, e["qkdl_id"]): _kept_link(e) for e in links(tree)}
    return found | _rest(tree)


def _kept_link(link: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A link as it is kept: without the applications that it feeds, which may be many, and say so themselves."""
    return None if link is None else {k: v for k, v in link.items() if k != "qkdl_applications"}


def _rest(tree: Tree) -> dict[tuple[str, str], Any]:
    """What there is but for applications and links, which may be many."""
    found: dict[tuple[str, str], Any] = {(_INTERFACE, str(i["qkdi_id"])): i for i in interfaces(tree)}
    found[_NODE, ""] = {k: v for k, v in tree[gs015.NODE].items() if k not in _LISTS}
    found[_EXTRA, ""] = tree[gs015_testbed.NODE]
    return found


def _restored(fresh: Tree, kept: Mapping[tuple[str, str], Any], config: NodeConfig) -> Tree:
    """The configuration with what was kept of it; interfaces are those of the configuration file."""
    if (_NODE, "") not in kept:
        return fresh
    by_kind: dict[str, dict[str, Any]] = {}
    for (kind, name), document in kept.items():
        by_kind.setdefault(kind, {})[name] = document
    node = fresh[gs015.NODE]
    known = by_kind.get(_INTERFACE, {})
    kept_interfaces = [known.get(str(i["qkdi_id"]), i) for i in interfaces(fresh)]
    # A QC that came with a new configuration file brings its link.
    new = [e for e in links(fresh) if str(e["qkdl_local"]["qkdi_id"]) not in known]
    kept_links = {**by_kind.get(_LINK, {}), **{e["qkdl_id"]: e for e in new}}
    kept_apps = list(by_kind.get(_APP, {}).values())
    extra = by_kind[_EXTRA][""]
    qcs = {qc["name"]: qc for qc in extra["qcs"]["qc"]}
    return {
        gs015.NODE: {
            **node,
            **by_kind[_NODE][""],
            "qkdn_id": node["qkdn_id"],
            "qkd_applications": {"qkd_app": kept_apps},
            "qkd_interfaces": {"qkd_interface": kept_interfaces},
            "qkd_links": {"qkd_link": with_users(list(kept_links.values()), kept_links, {}, kept_apps)},
        },
        gs015_testbed.NODE: {
            "parameters": Parameters().to_json() | extra["parameters"],
            "qcs": {"qc": [qcs.get(n.qc, {"name": n.qc}) for n in config.qcs]},
        },
    }
