"""Validation against ETSI's YANG modules (tests/vectors/yang) by yangson, and against those together with ours."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from yangson import DataModel
from yangson.enumerations import ContentType

from etsi import gs015, gs015_testbed
from tests.support.running import ROOT

_STANDARD = [
    (gs015.MODULE, gs015.REVISION, gs015.NAMESPACE),
    (gs015.TYPES, gs015.REVISION, gs015.TYPES_NAMESPACE),
    ("ietf-yang-types", "2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-yang-types"),
    ("ietf-inet-types", "2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-inet-types"),
]
_OURS = (gs015_testbed.MODULE, gs015_testbed.REVISION, gs015_testbed.NAMESPACE)


@functools.cache
def model(*, extended: bool) -> DataModel:
    """The standard's data model alone, or with our module."""
    modules = [*_STANDARD, *([_OURS] if extended else [])]
    library = {
        "ietf-yang-library:modules-state": {
            "module-set-id": "tests",
            "module": [
                {"name": name, "revision": revision, "namespace": namespace, "conformance-type": "implement"}
                for name, revision, namespace in modules
            ],
        }
    }
    return DataModel(json.dumps(library), (str(ROOT / "tests/vectors/yang"), str(ROOT / "etsi")))


_KEYS = {"qkd_app": "app_id", "qkd_link": "qkdl_id", "qkd_interface": "qkdi_id", "phys_perf": "perf_type"}


def resources(members: Mapping[str, Any]) -> Iterator[list[str]]:
    """All resources in a qkd_node's members, each by its path's segments: containers, entries of lists, leaves.

    But for entries of app_statistics: the key of the one that is not over yet is the moment at which it is read.
    """
    for name, value in members.items():
        yield [name]
        if isinstance(value, Mapping):
            yield from ([name, *below] for below in resources(value))
        elif name in _KEYS:
            for entry in value:
                segment = f"{name}={entry[_KEYS[name]]}"
                yield [segment]
                yield from ([segment, *below] for below in resources(entry))
        elif isinstance(value, list) and value and isinstance(value[0], str):
            yield from ([f"{name}={text}"] for text in value)


def url(segments: list[str]) -> str:
    """The path of a resource below qkd_node."""
    parts = (segment.partition("=") for segment in segments)
    return "/".join(f"{name}{equals}{quote(key, safe='')}" for name, equals, key in parts)


def validate(document: dict[str, Any], *, extended: bool = False) -> None:
    """Raise yangson's error unless `document`, whole top-level containers, is valid configuration and state."""
    model(extended=extended).from_raw(document).validate(ctype=ContentType.all)


def validate_part(document: dict[str, Any], ancestors: list[str]) -> None:
    """The same for a resource inside qkd_node: `document` is a GET's body, `ancestors` the path's names down to it.

    What it stands in is made up around it: the node's ID, and the key of an entry in which it is.
    """
    ((name, value),) = document.items()
    assert name.startswith(f"{gs015.MODULE}:")
    value = {name.partition(":")[2]: value}
    for segment in reversed(ancestors):
        outer, _, key = segment.partition("=")
        if key:
            leaf = _KEYS[outer]
            made = {leaf: int(key) if leaf == "qkdi_id" else key, **value}
            for prefix, kind in (("phys_", gs015.PHYS), ("virt_", gs015.VIRT)):
                if outer == "qkd_link" and prefix in json.dumps(value):  # which is valid in such a link alone
                    made.setdefault("qkdl_type", kind)
            value = {outer: [made]}
        else:
            value = {outer: value}
    node = {"qkdn_id": "00000000-0000-4000-8000-000000000000", **value}
    validate({gs015.NODE: node})


def validate_notification(event: dict[str, Any], *, extended: bool = False) -> str:
    """The name of the notification in an event, which is valid; AssertionError or yangson's error if it is not."""
    assert set(event) == {"ietf-restconf:notification"}
    envelope = dict(event["ietf-restconf:notification"])
    gs015.DATE_AND_TIME.read(envelope.pop("eventTime"))
    ((name, content),) = envelope.items()
    found = model(extended=extended).from_raw(content, subschema=name)
    found.validate(ctype=ContentType.all)
    return str(name)
