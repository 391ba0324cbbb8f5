"""The OpenAPI 3.1 description of the northbound interface. Pure data; tests hold the routes to it."""

from __future__ import annotations

from typing import Any

from decisions.parameters import MOST_RATE, PARAMETERS

_UUID = {"type": "string", "format": "uuid"}
_NUMBER: dict[str, Any] = {"type": "number"}
_INTEGER: dict[str, Any] = {"type": "integer"}
_TEXT: dict[str, Any] = {"type": "string"}
_URL: dict[str, Any] = {"type": "string", "pattern": "^https://", "maxLength": 2048}
_BOOLEAN: dict[str, Any] = {"type": "boolean"}
_STATUS = {"type": "string", "enum": ["ACTIVE", "PASSIVE", "PENDING", "OFF"]}
_ENDS = {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}


def _object(**members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


def _array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_PARAMETERS = {name: parameter.schema for name, parameter in PARAMETERS.items()}
_QC = _object(
    qc=_TEXT, qkdl_id=_UUID, ends=_ENDS, status=_STATUS, enabled=_BOOLEAN,
    rate=_or_null(_object(low=_INTEGER, high=_INTEGER)), qber_percent=_or_null(_NUMBER),
    generated_per_slot=_NUMBER, requested_per_slot=_NUMBER, reserved_per_slot=_NUMBER, stored_bytes=_INTEGER,
)  # fmt: skip
_SESSION = _object(
    ksid=_UUID, master_sae=_TEXT, slave_sae=_TEXT,
    state={"type": "string", "enum": ["waiting", "configuring", "open", "ending"]},
    mode=_TEXT, path=_or_null(_array(_TEXT)), qcs=_array(_TEXT), paths=_or_null(_array(_array(_TEXT))),
    double_at_last=_BOOLEAN,
    qos=_object(key_size_bits=_INTEGER, interval_s=_NUMBER),
    opened_at=_or_null(_NUMBER), implicit=_BOOLEAN, timings_ms={"type": "object", "additionalProperties": _NUMBER},
    interruption=_or_null(_TEXT),
)  # fmt: skip
_REFUSAL = {
    "type": "object",
    "properties": {
        "time": _NUMBER, "master_sae": _TEXT, "slave_sae": _TEXT, "message": _TEXT, "cause": _TEXT, "qc": _TEXT,
        "node": _TEXT, "needed_bytes": _INTEGER, "available_bytes": _INTEGER, "trace": _TEXT,
    },
    "required": ["time", "master_sae", "slave_sae", "message"],
}  # fmt: skip
_ERROR = {
    "type": "object",
    "properties": {"message": _TEXT, "details": _array({"type": "object"})},
    "required": ["message"],
}
_NODE = _object(
    name=_TEXT, qkdn_id=_UUID, status={"type": "string", "enum": ["OPERATING", "FAILURE"]}, agent_url=_TEXT,
    slot=_INTEGER, links=_array(_UUID),
)  # fmt: skip
_VERTEX = _object(qc=_TEXT, qkdl_id=_UUID, ends=_ENDS, status=_STATUS, enabled=_BOOLEAN)


def _answer(text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": text}
    if schema is not None:
        answer["content"] = {"application/json": {"schema": schema}}
    return answer


def _operation(
    summary: str,
    answer: dict[str, Any] | None = None,
    *,
    body: dict[str, Any] | None = None,
    also: tuple[int, ...] = (),
    kept: bool = False,
) -> dict[str, Any]:
    responses = {"200": _answer("as asked", answer)} if answer is not None else {"204": _answer("done")}
    if kept:
        members = (answer or {"properties": {}})["properties"]
        responses["202"] = _answer("kept, and told to these nodes as soon as they can be told", _object(
            not_yet=_array(_TEXT), **members
        ))  # fmt: skip
    texts = {400: "a wrong document", 404: "there is none"}
    responses["401"] = _answer("not for this caller", _ERROR)
    responses |= {str(status): _answer(texts[status], _ERROR) for status in also}
    found: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return found


def _in_path(name: str, text: str, schema: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "description": text, "schema": schema or _TEXT}]


def describe() -> dict[str, Any]:
    """The description."""
    leader = _object(
        name=_TEXT, standing={"type": "string", "enum": ["leader", "unsure", "standby"]}, leader=_or_null(_TEXT),
        term=_or_null(_INTEGER), url=_or_null(_TEXT),
    )  # fmt: skip
    status = _object(
        version=_TEXT, framework=_or_null(_TEXT), leader=leader,
        nodes={"type": "object", "additionalProperties": _object(slot=_INTEGER)},
        switches=_array(_TEXT), ports_down=_array(_TEXT), key_sessions=_INTEGER, parameters=_object(**_PARAMETERS),
    )  # fmt: skip
    change = {"type": "object", "properties": _PARAMETERS, "additionalProperties": False}
    limit = {"type": "integer", "minimum": 0, "maximum": MOST_RATE}
    rate = _object(low=limit, high=limit)
    agent = _object(name=_TEXT, url=_TEXT, reachable=_BOOLEAN)
    qc = _in_path("qc", "a QC's name; a slash in it may stand as it is")
    name = _in_path("name", "the node's name, as in its certificate")
    paths: dict[str, Any] = {
        "/qkd/v1/status": {"get": _operation("nodes, switches, parameters at a glance", status)},
        "/qkd/v1/leader": {
            "get": _operation("what this controller is, which one leads, in what term, and its URL", leader)
        },
        "/qkd/v1/topology": {
            "get": _operation(
                "nodes and the QCs between them (`links` has the same as `qcs`, as in earlier versions)",
                _object(nodes=_array(_NODE), qcs=_array(_VERTEX), links=_array(_VERTEX)),
            )
        },
        "/qkd/v1/qcs": {
            "get": _operation(
                "QCs with bytes generated, requested and reserved a slot, as a mean over the window, and bytes stored",
                _object(window_slots=_INTEGER, qcs=_array(_QC)),
            )
        },
        "/qkd/v1/links": {
            "get": _operation("the same, as in earlier versions", _object(window_slots=_INTEGER, links=_array(_QC)))
        },
        "/qkd/v1/key_sessions": {
            "get": _operation("key sessions with path and state", _object(key_sessions=_array(_SESSION)))
        },
        "/qkd/v1/key_sessions/{ksid}": {
            "parameters": _in_path("ksid", "of an open session", _UUID),
            "delete": _operation("end a session", also=(400, 404)),
        },
        "/qkd/v1/refusals": {
            "get": _operation("the last refusals, the oldest first", _object(refusals=_array(_REFUSAL)))
        },
        "/qkd/v1/parameters": {
            "get": _operation("parameters of the network", _object(**_PARAMETERS)),
            "patch": _operation(
                "change those that are named", _object(**_PARAMETERS), body=change, also=(400,), kept=True
            ),
        },
        "/qkd/v1/qcs/{qc}/rate": {
            "parameters": qc,
            "put": _operation("bytes a slot that a QC makes, low <= high", body=rate, also=(400, 404), kept=True),
        },
        "/qkd/v1/qcs/{qc}/generation": {
            "parameters": qc,
            "put": _operation(
                "have a QC generate, or stop", body=_object(enabled=_BOOLEAN), also=(400, 404), kept=True
            ),
        },
        "/qkd/v1/agents": {"get": _operation("the agents followed", _object(agents=_array(agent)))},
        "/qkd/v1/agents/{name}": {
            "parameters": name,
            "put": _operation("follow the agent of a node", body=_object(url=_URL), also=(400,)),
            "delete": _operation("follow it no more", also=(404,)),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "QKD testbed, northbound interface of the SDN controller",
            "version": "1",
            "description": "For the operator, over mutual TLS. Never a key.",
        },
        "paths": paths,
    }
