"""GS QKD 014 V1.1.1 as an OpenAPI 3.1 document: the three methods as this KME serves them, with its own limits."""

from __future__ import annotations

from typing import Any

from etsi.gs014 import MAX_EXTENSIONS, Limits

Schema = dict[str, Any]

_UUID = {"type": "string", "format": "uuid"}
_OBJECT = {"type": "object"}


def describe(limits: Limits) -> dict[str, Any]:
    """The document for a KME of these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Key delivery API of ETSI GS QKD 014",
            "version": "1.1.1",
            "description": "Mutual TLS (1.2 or 1.3). Who calls is known from the client certificate and nothing else.",
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/api/v1/keys/{slave_SAE_ID}/status": {
                "parameters": [_sae("slave_SAE_ID", "The SAE to share keys with")],
                "get": _operation("status", "What could be had now (clause 5.2)", "Status"),
            },
            "/api/v1/keys/{slave_SAE_ID}/enc_keys": {
                "parameters": [_sae("slave_SAE_ID", "The SAE to share the keys with")],
                "get": _operation("enc_keys_get", "New keys, simple requests (clause 5.3)", "KeyContainer")
                | {"parameters": [_query("number", _number(limits)), _query("size", _size(limits))]},
                "post": _operation("enc_keys", "New keys (clause 5.3)", "KeyContainer", body="KeyRequest"),
            },
            "/api/v1/keys/{master_SAE_ID}/dec_keys": {
                "parameters": [_sae("master_SAE_ID", "The SAE that got the keys first")],
                "get": _operation("dec_keys_get", "A key by its ID (clause 5.4)", "KeyContainer")
                | {"parameters": [_query("key_ID", _UUID, required=True)]},
                "post": _operation(
                    "dec_keys", "Keys by their IDs, once, all or none (clause 5.4)", "KeyContainer", body="KeyIDs"
                ),
            },
        },
        "components": {"schemas": _schemas(limits)},
    }


def _schemas(limits: Limits) -> Schema:
    count = {"type": "integer", "minimum": 0}
    text = {"type": "string"}
    status = {
        "source_KME_ID": text, "target_KME_ID": text, "master_SAE_ID": text, "slave_SAE_ID": text,
        "key_size": _size(limits), "stored_key_count": count | {"maximum": limits.max_key_count},
        "max_key_count": count, "max_key_per_request": count, "max_key_size": count, "min_key_size": count,
        "max_SAE_ID_count": {"const": 0},
    }  # fmt: skip
    base64 = {"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]+={0,2}$"}
    key = _exactly({"key_ID": _UUID, "key": base64})
    extensions = {"type": "array", "maxItems": MAX_EXTENSIONS, "items": _OBJECT}
    return {
        "Status": _exactly(status),
        "KeyRequest": {
            "type": "object",
            "properties": {
                "number": _or_null(_number(limits)),
                "size": _or_null(_size(limits)),
                # Multicast is not supported, nor is any extension that must be.
                "additional_slave_SAE_IDs": _or_null({"type": "array", "items": text, "maxItems": 0}),
                "extension_mandatory": _or_null(
                    extensions | {"items": _OBJECT | {"additionalProperties": {"type": "null"}}}
                ),
                "extension_optional": _or_null(extensions),
            },
        },
        "KeyContainer": _exactly({"keys": {"type": "array", "minItems": 1, "items": key}}),
        "KeyIDs": {
            "type": "object",
            "properties": {
                "key_IDs": {
                    "type": "array", "minItems": 1, "maxItems": limits.max_key_per_request,
                    "items": _OBJECT | {"properties": {"key_ID": _UUID}, "required": ["key_ID"]},
                },
            },
            "required": ["key_IDs"],
        },
        "Error": {
            "type": "object",
            "properties": {"message": text, "details": {"type": "array", "items": _OBJECT}},
            "required": ["message"],
            "additionalProperties": False,
        },
    }  # fmt: skip


def _operation(name: str, summary: str, answer: str, *, body: str | None = None) -> Schema:
    errors = {
        "400": "The request is wrong, or keys asked for are not found",
        "401": "The caller may not have this",
        "503": "Not now: too little key material, or a part of the network is away",
    }
    if body is not None:
        errors |= {"408": "The body did not come in time", "413": "The body is too long"}
    found: Schema = {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _answer("Success", answer)} | {code: _answer(t, "Error") for code, t in errors.items()},
    }
    if body is not None:
        # An empty body is an empty key request; key IDs have no such form.
        found["requestBody"] = {"required": body != "KeyRequest", "content": _content(body)}
    return found


def _answer(description: str, schema: str) -> Schema:
    return {"description": description, "content": _content(schema)}


def _content(schema: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _sae(name: str, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _query(name: str, schema: Schema, *, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _number(limits: Limits) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": limits.max_key_per_request, "default": 1}


def _size(limits: Limits) -> Schema:
    bits = {"type": "integer", "minimum": limits.min_key_size, "maximum": limits.max_key_size, "multipleOf": 8}
    return bits | {"default": limits.key_size}


def _or_null(schema: Schema) -> Schema:
    """An optional member, for which null says the same as nothing."""
    return schema | {"type": [schema["type"], "null"]}


def _exactly(properties: Schema) -> Schema:
    """An object with all of these members and no others."""
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip
