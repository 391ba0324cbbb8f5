"""What a running network answers to an operator's requests: JSON Schemas (draft 2020-12). Pure data.

`testbed.operation.interface` has a schema for each request; docs/operator.md and docs/operator.schema.json are written
from them, and a test holds a live network to them. All members that are not marked as `may` are always there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from decisions.exposure import NOTHING, SHARED_KEY, THE_KEY
from decisions.parameters import FOR_NODES, PARAMETERS, Whole
from decisions.tunnels import KINDS, POLICIES
from testbed.planning import fault

Schema = dict[str, Any]

NULL: Schema = {"type": "null"}
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
_UUID: Schema = {"type": "string", "format": "uuid"}


def obj(may: Mapping[str, Schema] | None = None, /, **members: Schema) -> Schema:
    """An object of these members, and of none or some of `may`, and of no others."""
    properties = members | dict(may or {})
    return {"type": "object", "properties": properties, "required": list(members), "additionalProperties": False}


def array(items: Schema, description: str = "") -> Schema:
    """An array of such items."""
    return _said({"type": "array", "items": items}, description)


def mapping(values: Schema, description: str) -> Schema:
    """An object whose member names are not known beforehand."""
    return _said({"type": "object", "additionalProperties": values}, description)


def or_null(schema: Schema, description: str = "") -> Schema:
    """That, or null."""
    return _said({"anyOf": [schema, NULL]}, description)


def _said(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description} if description else schema


_SECONDS = _said(NUMBER, "wall clock, s")
_NAMES = array(TEXT)
_NODES = array(TEXT, "nodes on the way, the master's first")
_PATHS = array(_NODES, "each of its paths, if there are several")


def _parameters(*wanted: Any) -> Schema:
    """A policy or mode may be one of the user's own: what it is called is not known here."""
    return obj(**{p.name: p.schema if isinstance(p, Whole) else TEXT for p in wanted})


PARAMETERS_SET = {**_parameters(*PARAMETERS.values()), "description": "value by name"}
_LEADER = obj(
    name=_said(TEXT, "of this controller"),
    standing={"type": "string", "enum": ["leader", "unsure", "standby"]},
    leader=or_null(TEXT, "the controller that leads, as far as this one knows"),
    term=or_null(INTEGER, "in which it leads; null if there is no other controller"), url=or_null(TEXT),
)  # fmt: skip
CONTROLLER = obj(
    version=TEXT, framework=or_null(TEXT), leader=_LEADER,
    nodes=mapping(obj(slot=INTEGER), "those that are reachable, by name"),
    switches=array(TEXT, "those that are connected"), ports_down=_NAMES, key_sessions=INTEGER,
    parameters=PARAMETERS_SET,
)  # fmt: skip
PARAMETERS_NOW = obj(
    parameters=PARAMETERS_SET, not_yet=array(TEXT, "nodes that are told again until they take it over")
)
AWAY = mapping(TEXT, "processes that do not serve, by name: killed, asleep or DEAD")
STATUS = obj(
    run=_said(TEXT, "directory"), topology=TEXT, since=_SECONDS, nodes=_said(INTEGER, "number"),
    switches=_said(INTEGER, "number"),
    controller=or_null(CONTROLLER, "as of `controller`; null if it does not answer"),
    problem=_said(TEXT, "why it does not answer"), dark=array(TEXT, "fibres and their dark ends, in words"),
    exposed=or_null(TEXT, "file with URLs on this machine, or null"), broken=array(TEXT, "names of faults"), away=AWAY,
    devices=mapping(_NAMES, "by QC of a device of yours, what is wrong with it"),
)  # fmt: skip
NAMES = obj(nodes=_NAMES, fibres=_NAMES, qcs=_NAMES, saes=_NAMES, parameters=_NAMES, databases=_NAMES)
TOPOLOGY = obj(
    name=TEXT, description=TEXT, nodes=array(obj(name=TEXT, label=TEXT, x=NUMBER, y=NUMBER)),
    fibres=array(obj(name=TEXT, a=TEXT, b=TEXT, qcs=_NAMES)),
)  # fmt: skip
QCS = array(obj(
    qc=TEXT, qkdl_id=_UUID, ends={"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2},
    status={"type": "string", "enum": ["ACTIVE", "PASSIVE", "PENDING", "OFF"]}, enabled=FLAG,
    rate=or_null(obj(low=INTEGER, high=INTEGER), "`low` and `high`, bytes a slot"), qber_percent=or_null(NUMBER),
    generated_per_slot=_said(NUMBER, "bytes"), requested_per_slot=_said(NUMBER, "bytes"),
    reserved_per_slot=_said(NUMBER, "bytes"), stored_bytes=INTEGER,
))  # fmt: skip
_QOS = obj(key_size_bits=INTEGER, interval_s=NUMBER)
SESSIONS = array(obj(
    ksid=_UUID, master=_said(TEXT, "name"), slave=_said(TEXT, "name"), master_sae=_said(TEXT, "ID"),
    slave_sae=_said(TEXT, "ID"), state={"type": "string", "enum": ["waiting", "configuring", "open", "ending"]},
    mode=TEXT, path=or_null(_NODES), qcs=_NAMES, paths=or_null(_PATHS), double_at_last=FLAG, qos=_QOS,
    opened_at=or_null(_SECONDS), implicit=_said(FLAG, "opened by a request for keys"),
    timings_ms=mapping(NUMBER, "steps of its opening"), interruption=or_null(TEXT),
))  # fmt: skip
REFUSALS = array(obj(
    {"cause": TEXT, "qc": TEXT, "node": TEXT, "needed_bytes": INTEGER, "available_bytes": INTEGER, "trace": TEXT},
    time=_SECONDS, master=_said(TEXT, "name"), slave=_said(TEXT, "name"), master_sae=_said(TEXT, "ID"),
    slave_sae=_said(TEXT, "ID"), message=TEXT,
) | {"additionalProperties": True})  # fmt: skip
SAES = array(obj(name=TEXT, node=TEXT, id=TEXT, external=FLAG))
NODE = obj(
    registered=FLAG, in_database=FLAG, parameters=_parameters(*FOR_NODES),
    qcs=array(obj(
        qc=TEXT, slot=INTEGER, stored_bytes=INTEGER, generated_bytes=INTEGER, used_bytes=INTEGER,
        expired_bytes=INTEGER, differing_bytes=INTEGER,
    )),
    sessions=array(obj(
        ksid=_UUID, master_sae=TEXT, slave_sae=TEXT, master_node=TEXT, slave_node=TEXT, implicit=FLAG
    )),
    devices=mapping(obj(role=TEXT, state=TEXT, why=TEXT), "by QC of a device of yours: `role`, `state`, `why`"),
)  # fmt: skip
DESCRIBED = array(array({"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2}), "groups of [what, value]")
OPENED = obj(ksid=_UUID, path=_NODES, paths=_PATHS)
KSID = obj(ksid=_UUID)
SAE = obj(sessions=array(obj(
    side={"type": "string", "enum": ["master", "slave"]}, peer=_said(TEXT, "name"), peer_sae=_said(TEXT, "ID"),
    ksid=or_null(_UUID), path=_NODES, paths=_PATHS, state=TEXT, opened_at=or_null(_SECONDS),
    keys=_said(INTEGER, "number"), errors=mapping(INTEGER, "by cause"), errors_said=mapping(TEXT, "by cause"),
    qos=_QOS,
)))  # fmt: skip
KEYS = obj(keys={
    "type": "array", "minItems": 1, "description": "of `key_ID` and `key` (Base64)",
    "items": obj(key_ID=_UUID, key={"type": "string", "contentEncoding": "base64"}),
})  # fmt: skip
SAID = obj(said=_said(TEXT, "one line"))
SHAPE = {
    "delay_ms": NUMBER, "jitter_ms": NUMBER, "loss_percent": NUMBER,
    "bandwidth_mbit": or_null(NUMBER, "null: no limit"),
}  # fmt: skip
_FIBRE = {
    "name": TEXT, "a": TEXT, "b": TEXT, "lit": FLAG,
    "directions": array(obj(**{"from": TEXT, "to": TEXT}, **SHAPE)),
}  # fmt: skip
FIBRES = array(obj(**_FIBRE))
FIBRE = obj(**_FIBRE, rtt=or_null(obj(configured_ms=NUMBER, measured_ms=or_null(NUMBER)),
                                  "`configured_ms` and `measured_ms`; null if it was not measured"))  # fmt: skip
MEASURED = array(obj(
    **{"from": TEXT, "to": TEXT},
    figures=array(obj(
        quantity=TEXT, unit=TEXT, configured=or_null(NUMBER), measured=or_null(NUMBER), low=or_null(NUMBER),
        high=or_null(NUMBER),
    )),
))  # fmt: skip
FAULT = obj(
    name=TEXT, kind={"type": "string", "enum": list(fault.KINDS)}, where=_NAMES, since=_SECONDS,
    fraction=_said(NUMBER, "of the photons, that an eavesdropper intercepts; else 1"),
)  # fmt: skip
FAULTS = array(FAULT)
STORIES = array(obj(
    at_s=_SECONDS, ident=TEXT, what=TEXT, outcome=TEXT, kind=TEXT, pair=array(TEXT, "names of master and slave"),
))  # fmt: skip
STORY = obj(
    ident=TEXT, title=TEXT, text=TEXT, picture=_said(TEXT, "a file"), svg=_said(TEXT, "what is in it"),
    learned=array(obj(node=TEXT, what=TEXT, how=TEXT), "which nodes learned the key: `node`, `what`, `how`"),
)  # fmt: skip
IDENT = obj(ident=TEXT)
CAPTURED = obj(file=TEXT)
CAPTURE_ENDED = obj(file=TEXT, lost_packets=_said(INTEGER, "that crossed the fibre and are not in the file"))
_END = {"node": TEXT, "peer": TEXT, "from": _said(TEXT, "address"), "to": _said(TEXT, "address")}
_END_UP = {
    "leads": FLAG, "kind": {"type": "string", "enum": list(KINDS)}, "every_s": NUMBER,
    "policy": {"type": "string", "enum": list(POLICIES)}, "key_id": or_null(_UUID), "since": or_null(_SECONDS),
    "keys": INTEGER, "received_bytes": INTEGER, "sent_bytes": INTEGER, "data_path": TEXT,
}  # fmt: skip
_STATE = {"type": "string", "enum": ["waiting", "up", "held", "closed"]}
TUNNEL = obj(**_END, **_END_UP, state=_STATE, problem=or_null(TEXT))
# Of a gateway that does not answer there is no more to say.
_GONE = obj(**_END, state={"const": "gone"}, problem=or_null(TEXT))
TUNNELS = array({
    "anyOf": [TUNNEL, _GONE],
    "description": "objects as `open_tunnel` answers; of an end that is gone only"
    " `node`, `peer`, `from`, `to`, `state` and `problem`",
})  # fmt: skip
_QUANTILES = obj(p50=or_null(NUMBER), p95=or_null(NUMBER), max=or_null(NUMBER))
_COUNTS = mapping(INTEGER, "number by what it is of")
SUMMARY = obj(
    sessions=obj(requested=INTEGER, admitted=INTEGER, refused=INTEGER, failed=INTEGER),
    keys=obj(
        single_hop=INTEGER, multi_hop=INTEGER, errors=_COUNTS, errors_where=_COUNTS,
        errors_said=mapping(TEXT, "by cause"), lost_bytes=mapping(INTEGER, "by QC"),
    ),
    relays=mapping(mapping(_COUNTS, "by relay"), "by mode and relay, what they learned of how many keys"),
    delivery_ms=obj(single_hop=_QUANTILES, multi_hop=_QUANTILES),
    initialisation_ms=obj(ask_connection=_QUANTILES, total=_QUANTILES),
    pairs=obj(compared=INTEGER, identical=INTEGER),
    leaders=array(
        obj(time=_SECONDS, controller=TEXT, term=INTEGER, silent_s=or_null(NUMBER)),
        "of two controllers, which one began to lead when, and how long the one before had been silent",
    ),
)  # fmt: skip
COUNTED = obj(number=_said(INTEGER, "of events that came before it"))
_MS = _said(NUMBER, "ms")
_CAUSE: Mapping[str, Schema] = {"cause": TEXT, "message": TEXT, "trace": _said(TEXT, "what `qkd story` takes")}
# Of a request for keys that failed; by cause, what there is to say.
_NO_KEY: Mapping[str, Schema] = {
    "ksid": _UUID, **_CAUSE, "qc": _said(TEXT, "that was short"), "short_bytes": INTEGER,
    "node": _said(TEXT, "at which it failed"), "path": _said(TEXT, "on which the key was altered, in words"),
    "max_bandwidth": _said(NUMBER, "that the session allows, bit/s"),
    "needed": _said(INTEGER, "node-disjoint paths that the mode takes"),
    "paths": _said(INTEGER, "node-disjoint paths that there are"),
    "who": _said(TEXT, "that has too many key sessions"), "most": _said(INTEGER, "key sessions that it may have"),
}  # fmt: skip
_TUNNEL: Mapping[str, Schema] = {"node": TEXT, "peer": TEXT, "kind": {"type": "string", "enum": list(KINDS)}}
_BROKEN: Mapping[str, Schema] = {"kind": {"type": "string", "enum": list(fault.KINDS)}, "where": array(TEXT, "nodes")}
# By event, what is told of it beside its time and both applications, as far as there is something to tell.
EVENTS: Mapping[str, Mapping[str, Schema]] = {
    "session_opened": {"ksid": _UUID, "path": _NODES, "paths": _PATHS, "hops": INTEGER, "total_ms": _MS},
    "session_refused": {**_CAUSE, "qc": _said(TEXT, "that was short")},
    "session_failed": _CAUSE,
    "session_closed": {"ksid": _UUID, "reason": TEXT, "keys": _said(INTEGER, "number")},
    "session_moved": {"ksid": _UUID, "before": _NODES, "path": _NODES, "paths": _PATHS},
    "session_interrupted": {"ksid": _UUID, "message": TEXT, "down": array(TEXT, "nodes and QCs")},
    "session_resumed": {"ksid": _UUID},
    "key_delivered": {
        "ksid": _UUID, "key_ids": array(_UUID), "mode": TEXT, "hops": INTEGER, "source": TEXT, "size_bits": INTEGER,
        "duration_ms": NUMBER, "node": _said(TEXT, "that gave them to the master"),
    },
    "key_failed": _NO_KEY,
    "key_not_fetched": {**_NO_KEY, "key_ids": array(_UUID)},
    "relays_learned": {
        "mode": TEXT, "number": _said(INTEGER, "of keys"), "path": _NODES,
        "learned": mapping({"type": "string", "enum": [THE_KEY, SHARED_KEY, NOTHING]}, "by relay"),
    },
    "qc_lit": {"qc": TEXT, "past": array(TEXT, "nodes that its light goes past")},
    "qc_dark": {"qc": TEXT},
    "parameters": PARAMETERS_SET["properties"],
    "leads": {
        "controller": _said(TEXT, "name"), "term": _said(INTEGER, "greater for each that leads"),
        "silent_s": _said(NUMBER, "s, for which nobody led"),
    },
    "fault": {**_BROKEN, "fraction": _said(NUMBER, "of the photons, that an eavesdropper intercepts")},
    "healed": _BROKEN,
    "database_switch": {"host": _said(TEXT, "that takes writes now"), "before": _said(TEXT, "that did before")},
    "tunnel_keyed": {**_TUNNEL, "key_id": _UUID, "duration_ms": NUMBER},
    "tunnel_held": {**_TUNNEL, "key_id": or_null(_UUID)},
    "tunnel_closed": {**_TUNNEL, "key_id": or_null(_UUID)},
    "tunnel_ended": _TUNNEL,
}  # fmt: skip
FOLLOWING = "following"
EVENT: Schema = {
    "oneOf": [
        obj({"master": TEXT, "slave": TEXT, **facts}, event={"const": name}, time=_SECONDS)
        for name, facts in (*EVENTS.items(), (FOLLOWING, {}))
    ]
}


def in_words(schema: Schema) -> str:
    """An answer in one line for people, as Markdown: members with what there is to say of each. PURE."""
    if schema.get("type") == "null":
        return "null"
    if schema.get("type") == "array":
        return f"an array: {_meaning(schema) or in_words(schema['items'])}"
    return ", ".join(_members(schema)) if "properties" in schema else _meaning(schema)


def _members(schema: Schema) -> Iterator[str]:
    for name, member in schema["properties"].items():
        inside = member.get("items", member)
        said = _meaning(member) or (", ".join(f"`{n}`" for n in inside.get("properties", ())))
        yield f"`{name}`{' (' + said + ')' if said else ''}"


def _meaning(schema: Schema) -> str:
    return str(schema.get("description", ""))
