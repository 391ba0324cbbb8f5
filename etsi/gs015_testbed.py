"""What this project adds to GS QKD 015: the YANG module qkd-testbed (qkd-testbed.yang beside this file), as schemas.

A controller needs none of it to drive a node. It holds what the standard has no place for: the parameters of a run,
rates of QCs, and what admission control counts. Numbers of bytes are uint64, so strings in JSON (RFC 7951, 6.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etsi.gs015 import NOTIFICATIONS
from ietf.yang import (
    BOOLEAN,
    DECIMAL3,
    STRING,
    UINT32,
    URI,
    UUID,
    Container,
    Leaf,
    LeafList,
    List,
    Node,
    check,
    pattern,
)

MODULE = "qkd-testbed"
NAMESPACE = "urn:qkd-testbed:yang"
REVISION = "2026-11-24"
NODE = f"{MODULE}:node"
STREAM = "qkd-testbed"
APPLICATION_ANSWER = f"{MODULE}:application_answer"
# A header field, in which one of several controllers says which term it speaks in; others have none.
TERM_HEADER = "Qkd-Controller-Term"
# In error-info: in which term the controller leads that a node goes by in place of the one that asked.
LATER_TERM = f"{MODULE}:later-term"

COUNTER = pattern("0|[1-9][0-9]{0,18}", "an integer from 0 on, as a string")
_SIDE = pattern("master|slave", "master or slave")

EXTRA = Container(
    {
        "parameters": Container(
            {
                "mode": Leaf(STRING),
                "ttl_slots": Leaf(UINT32),
                "keys_ahead": Leaf(UINT32),
                "implicit_idle_s": Leaf(UINT32),
            }
        ),
        "ended": LeafList(UUID, config=False),
        "qcs": Container(
            {
                "qc": List(
                    "name",
                    {
                        "name": Leaf(STRING),
                        "rate": Container({"low": Leaf(UINT32), "high": Leaf(UINT32)}),
                        "qkdi_id": Leaf(UINT32, config=False),
                        "slot": Leaf(COUNTER, config=False),
                        "generated": Leaf(COUNTER, config=False),
                        "used": Leaf(COUNTER, config=False),
                        "expired": Leaf(COUNTER, config=False),
                        "stored": Leaf(COUNTER, config=False),
                    },
                )
            }
        ),
    }
)

# What the stream of this name adds to the standard's sdqkdn_application_new, bits and seconds.
_NEW: Mapping[str, Node] = {
    f"{MODULE}:side": Leaf(_SIDE),
    f"{MODULE}:implicit": Leaf(BOOLEAN),
    f"{MODULE}:key_size": Leaf(UINT32),
    f"{MODULE}:interval": Leaf(DECIMAL3),
    f"{MODULE}:duration": Leaf(DECIMAL3),
    f"{MODULE}:request": Leaf(STRING),
    f"{MODULE}:traceparent": Leaf(STRING),
}
_PAIR: Mapping[str, Node] = {"server_app_id": Leaf(URI), "client_app_id": LeafList(URI), "local_qkdn_id": Leaf(UUID)}
_REPORT = List(
    "name",
    {
        "name": Leaf(STRING), "generated": Leaf(COUNTER), "requested": Leaf(COUNTER), "stored": Leaf(COUNTER),
        "used": Leaf(COUNTER),
    },
)
_OWN_NOTIFICATIONS: Mapping[str, Container] = {
    f"{MODULE}:application_withdrawn": Container({**_PAIR, "request": Leaf(STRING)}),
    f"{MODULE}:slot_report": Container({"since": Leaf(COUNTER), "slot": Leaf(COUNTER), "qc": _REPORT}),
}
_ANSWER = Container(
    {
        "server_app_id": Leaf(URI),
        "client_app_id": LeafList(URI),
        "implicit": Leaf(BOOLEAN),
        "request": LeafList(STRING),
        "app_id": Leaf(UUID),
        "version": Leaf(COUNTER),
        "state": Leaf(
            pattern(
                "waiting|refused|interrupted|resumed|ended|withdrawn",
                "waiting, refused, interrupted, resumed, ended or withdrawn",
            )
        ),
        "status": Leaf(UINT32),
        "message": Leaf(STRING),
        "fact": List("name", {"name": Leaf(STRING), "value": Leaf(STRING)}),
    }
)


def _with(container: Container, name: str, members: Mapping[str, Node]) -> Container:
    inner = container.children[name]
    assert isinstance(inner, Container)  # noqa: S101 - as the standard has it
    return Container({**container.children, name: Container({**inner.children, **members})})


_APPLICATION_NEW = _with(NOTIFICATIONS["sdqkdn_application_new"], "qkd_application", _NEW)


def read_extra(document: Any) -> dict[str, Any]:
    """This module's data in the answer to a GET of it, checked; Refusal."""
    value = document.get(NODE) if isinstance(document, Mapping) else None
    return dict(check(EXTRA, value, f"/{NODE}", state=True, lenient=True))


def read_notification(name: str, content: Any) -> dict[str, Any]:
    """A notification of this module, or the standard's application_new with what is added, checked; Refusal.

    KeyError if it is neither.
    """
    schema = _APPLICATION_NEW if name.endswith(":sdqkdn_application_new") else _OWN_NOTIFICATIONS[name]
    return dict(check(schema, content, f"/{name}", state=True, lenient=True))


def read_answer(document: Any) -> dict[str, Any]:
    """The input of the operation application_answer, checked; Refusal."""
    value = document.get(f"{MODULE}:input") if isinstance(document, Mapping) else None
    return dict(check(_ANSWER, value, f"/{APPLICATION_ANSWER}", state=False))


def later_term(document: Any) -> int | None:
    """The term in an error that says that another controller leads by now; None of any other document."""
    try:
        return int(document["ietf-restconf:errors"]["error"][0]["error-info"][LATER_TERM])
    except (KeyError, TypeError, IndexError, ValueError):
        return None


def read_version(document: Any) -> int:
    """The version in the output of the operation application_answer, 0 if it says none; Refusal."""
    if document is None:
        return 0
    value = document.get(f"{MODULE}:output") if isinstance(document, Mapping) else None
    found = check(Container({"version": Leaf(COUNTER)}), value, f"/{APPLICATION_ANSWER}", state=True, lenient=True)
    return int(found.get("version", "0"))
