"""What a RESTCONF server says of itself: RFC 8040's API and monitoring, and the YANG library of RFC 8525. PURE.

The library is there in the form of RFC 7895, too, which older clients ask for and RFC 8525 keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ietf.restconf import Model
from ietf.yang import BOOLEAN, EMPTY, STRING, URI, Container, Leaf, LeafList, List, Node, identity, pattern

RESTCONF = "ietf-restconf:restconf"
LIBRARY = "ietf-yang-library:yang-library"
MODULES_STATE = "ietf-yang-library:modules-state"
MONITORING = "ietf-restconf-monitoring:restconf-state"
LIBRARY_REVISION = "2019-01-04"
_RUNNING, _OPERATIONAL = "ietf-datastores:running", "ietf-datastores:operational"
_CAPABILITY = "urn:ietf:params:restconf:capability"
_CAPABILITIES = [
    f"{_CAPABILITY}:defaults:1.0?basic-mode=explicit", f"{_CAPABILITY}:depth:1.0", f"{_CAPABILITY}:fields:1.0",
    f"{_CAPABILITY}:with-defaults:1.0",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Module:
    """A YANG module of the server. `implemented`: else others only import it. `file`: whether its text can be had."""

    name: str
    revision: str
    namespace: str
    implemented: bool = True
    file: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """An event stream, in JSON."""

    name: str
    description: str


def _ietf(name: str, revision: str) -> Module:
    return Module(name, revision, f"urn:ietf:params:xml:ns:yang:{name}")


# What every server of this kind has beside its own modules, and what these import.
_OF_THE_PROTOCOL = (
    _ietf("ietf-restconf", "2017-01-26"), _ietf("ietf-restconf-monitoring", "2017-01-26"),
    _ietf("ietf-yang-library", LIBRARY_REVISION), _ietf("ietf-datastores", "2018-02-14"),
    _ietf("ietf-netconf-with-defaults", "2011-06-01"),
    Module("ietf-netconf", "2011-06-01", "urn:ietf:params:xml:ns:netconf:base:1.0", implemented=False),
)  # fmt: skip

def _container(children: Mapping[str, Node]) -> Container:
    return Container(children, config=False)


def _list(key: str, children: Mapping[str, Node]) -> List:
    return List(key, children, config=False)


_TEXT, _ADDRESS, _FLAG = (Leaf(kind, config=False) for kind in (STRING, URI, BOOLEAN))
_TEXTS, _ADDRESSES = (LeafList(kind, config=False) for kind in (STRING, URI))
_VERSION = Leaf(pattern(r"(\d{4}-\d{2}-\d{2})?", "a date such as 2026-11-24, or nothing"), config=False)
_MODULE: Mapping[str, Node] = {"name": _TEXT, "revision": _VERSION, "namespace": _ADDRESS, "location": _ADDRESSES}
_OLD_MODULE: Mapping[str, Node] = {
    "name": _TEXT, "revision": _VERSION, "schema": _ADDRESS, "namespace": _ADDRESS, "conformance-type": _TEXT,
}  # fmt: skip
_DATASTORE = Leaf(identity("ietf-datastores", ("running", "operational")), config=False)
# Of the modules' content what such a server has: no submodules, features or deviations.
MODEL: Model = {
    LIBRARY: _container(
        {
            "module-set": _list(
                "name",
                {
                    "name": _TEXT,
                    "module": _list("name", _MODULE),
                    "import-only-module": _list("name revision", _MODULE),
                },
            ),
            "schema": _list("name", {"name": _TEXT, "module-set": _TEXTS}),
            "datastore": _list("name", {"name": _DATASTORE, "schema": _TEXT}),
            "content-id": _TEXT,
        }
    ),
    MODULES_STATE: _container({"module-set-id": _TEXT, "module": _list("name revision", _OLD_MODULE)}),
    MONITORING: _container(
        {
            "capabilities": _container({"capability": _ADDRESSES}),
            "streams": _container(
                {
                    "stream": _list(
                        "name",
                        {
                            "name": _TEXT, "description": _TEXT, "replay-support": _FLAG,
                            "access": _list("encoding", {"encoding": _TEXT, "location": _ADDRESS}),
                        },
                    )
                }
            ),
        }
    ),
}  # fmt: skip


def api(operations: Iterable[str]) -> tuple[Model, dict[str, Any]]:
    """The API resource (clause 3.3) of a server with these operations: its model, and what it is."""
    names = list(operations)
    members: dict[str, Node] = {
        "data": _container({}),
        "operations": _container({name: Leaf(EMPTY, config=False) for name in names}),
        "yang-library-version": _VERSION,
    }
    shown = {
        "data": {}, "operations": {name: [None] for name in names}, "yang-library-version": LIBRARY_REVISION,
    }  # fmt: skip
    return {RESTCONF: _container(members)}, {RESTCONF: shown}


def state(modules: Sequence[Module], streams: Sequence[Stream], *, root: str) -> dict[str, Any]:
    """The tree of MODEL. `root`: the URL of {+restconf} as the client has it."""
    modules = [*modules, *_OF_THE_PROTOCOL]
    # Clients that know this library read it no more: another one must have another ID (RFC 8525, section 3).
    version = hashlib.sha256(repr(modules).encode()).hexdigest()[:16]
    found = [
        {"name": s.name, "description": s.description, "replay-support": False,
         "access": [{"encoding": "json", "location": f"{root}/streams/{s.name}/json"}]}
        for s in streams
    ]  # fmt: skip
    return {
        LIBRARY: {
            "module-set": [
                {
                    "name": "all",
                    "module": [_entry(m, root) for m in modules if m.implemented],
                    "import-only-module": [_entry(m, root) for m in modules if not m.implemented],
                }
            ],
            "schema": [{"name": "all", "module-set": ["all"]}],
            "datastore": [{"name": name, "schema": "all"} for name in (_RUNNING, _OPERATIONAL)],
            "content-id": version,
        },
        MODULES_STATE: {"module-set-id": version, "module": [_old_entry(m, root) for m in modules]},
        MONITORING: {"capabilities": {"capability": _CAPABILITIES}, "streams": {"stream": found}},
    }


def _entry(module: Module, root: str) -> dict[str, Any]:
    """A module as RFC 8525 lists it."""
    entry: dict[str, Any] = {"name": module.name, "revision": module.revision, "namespace": module.namespace}
    return entry | ({"location": [_location(module, root)]} if module.file else {})


def _old_entry(module: Module, root: str) -> dict[str, Any]:
    """A module as RFC 7895 lists it."""
    entry = {
        "name": module.name, "revision": module.revision, "namespace": module.namespace,
        "conformance-type": "implement" if module.implemented else "import",
    }  # fmt: skip
    return entry | ({"schema": _location(module, root)} if module.file else {})


def _location(module: Module, root: str) -> str:
    return f"{root}/schemas/{module.name}"
