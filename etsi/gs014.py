"""GS QKD 014 V1.1.1, clause 6: documents of the key delivery API, checked when read. Sizes are in bits."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from documents.checks import Malformed, integer, mapping, sequence, text, uuid_text
from documents.secret import Secret

# Messages that the standard fixes (clauses 6.2 and 6.4); clients compare them.
SIZE_NOT_OCTETS = "size shall be a multiple of 8"
EXTENSION_UNSUPPORTED = "not all extension_mandatory parameters are supported"
KEYS_NOT_FOUND = "one or more keys specified are not found on KME"


# How many extensions, or further slaves, a request may name: it bounds what reading it costs.
MAX_EXTENSIONS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What a KME serves; the same numbers as in its Status."""

    key_size: int = 256
    min_key_size: int = 64
    max_key_size: int = 8192
    max_key_per_request: int = 64
    max_key_count: int = 100_000

    def to_json(self) -> dict[str, int]:
        """The document that `limits` reads."""
        return asdict(self)


# The largest answer, in bits of key: in base64 it still fits into a body of ours.
MOST_ANSWER_BITS = 1 << 22
MOST_KEYS = 1024
_MAX_COUNT = 1 << 40


def limits(document: Mapping[str, Any], where: str = "limits") -> Limits:
    """Limits out of a configuration; members left out take their defaults. Malformed names the wrong member."""
    given = Limits().to_json() | dict(document)
    for member in document:
        if member not in Limits.__dataclass_fields__:
            raise Malformed(f"{where}.{member}", f"one of {', '.join(Limits.__dataclass_fields__)}")
    least = integer(given["min_key_size"], f"{where}.min_key_size", low=8, high=MOST_ANSWER_BITS)
    most = integer(given["max_key_size"], f"{where}.max_key_size", low=least, high=MOST_ANSWER_BITS)
    size = integer(given["key_size"], f"{where}.key_size", low=least, high=most)
    if size % 8:
        raise Malformed(f"{where}.key_size", "a multiple of 8")
    keys = min(MOST_KEYS, MOST_ANSWER_BITS // most)
    number = integer(given["max_key_per_request"], f"{where}.max_key_per_request", low=1, high=keys)
    count = integer(given["max_key_count"], f"{where}.max_key_count", low=1, high=_MAX_COUNT)
    return Limits(size, least, most, number, count)


@dataclass(frozen=True, slots=True)
class Status:
    """Clause 6.1. `stored_key_count` counts keys of `key_size` bits that this pair could get now."""

    source_KME_ID: str  # noqa: N815 - the standard's spelling, here and below
    target_KME_ID: str  # noqa: N815
    master_SAE_ID: str  # noqa: N815
    slave_SAE_ID: str  # noqa: N815
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int  # noqa: N815

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """Clause 6.2: `number` keys of `size` bits each."""

    number: int
    size: int

    @property
    def key_bytes(self) -> int:
        """Bytes of one key."""
        return self.size // 8


def key_request(document: Mapping[str, Any], limits: Limits) -> KeyRequest:
    """The body of enc_keys against the KME's limits.

    Members that the standard does not define are ignored; optional ones that are null count as left out.
    """
    document = _given(document)
    number = integer(document.get("number", 1), "number", low=1, high=limits.max_key_per_request)
    size = document.get("size", limits.key_size)
    integer(size, "size", low=limits.min_key_size, high=limits.max_key_size)
    if size % 8:
        raise Malformed("size", "a multiple of 8", clause="6.2", message=SIZE_NOT_OCTETS)
    slaves = sequence(document.get("additional_slave_SAE_IDs", []), "additional_slave_SAE_IDs", longest=MAX_EXTENSIONS)
    if slaves:
        raise Malformed("additional_slave_SAE_IDs", "no entry, for max_SAE_ID_count is 0", clause="6.2")
    for name in ("extension_mandatory", "extension_optional"):
        for i, extension in enumerate(sequence(document.get(name, []), name, longest=MAX_EXTENSIONS)):
            if _given(mapping(extension, f"{name}[{i}]")) and name == "extension_mandatory":
                raise Malformed(name, "no parameter: none is supported", clause="6.2", message=EXTENSION_UNSUPPORTED)
    return KeyRequest(number, size)


def _given(document: Mapping[str, Any]) -> dict[str, Any]:
    """The members of `document` that are not null: many a serialiser writes null where nothing was given."""
    return {name: value for name, value in document.items() if value is not None}


def key_request_from_query(query: Sequence[tuple[str, str]], limits: Limits) -> KeyRequest:
    """The GET form of enc_keys: `number` and `size` as decimal text, each at most once, and nothing else."""
    document: dict[str, Any] = {}
    for name, value in query:
        if name not in ("number", "size") or name in document:
            raise Malformed("query", "number and size, each at most once; other requests use POST", clause="6.2")
        # int() would take 1_0, +1 and digits of other scripts; more digits than this exceed every limit.
        document[name] = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
    return key_request(document, limits)


def key_ids(document: Mapping[str, Any], *, most: int) -> list[str]:
    """The body of dec_keys (clause 6.4): key IDs in lower case, without repetition."""
    entries = sequence(document.get("key_IDs"), "key_IDs", longest=most)
    if not entries:
        raise Malformed("key_IDs", "at least one entry", clause="6.4")
    found = [
        uuid_text(mapping(entry, f"key_IDs[{i}]").get("key_ID"), f"key_IDs[{i}].key_ID")
        for i, entry in enumerate(entries)
    ]
    if len(set(found)) != len(found):
        raise Malformed("key_IDs", "each key ID once", clause="6.4")
    return found


def key_ids_from_query(query: Sequence[tuple[str, str]]) -> list[str]:
    """The GET form of dec_keys: exactly one `key_ID`."""
    if [name for name, _ in query] != ["key_ID"]:
        raise Malformed("query", "exactly one key_ID; other requests use POST", clause="6.4")
    return [uuid_text(query[0][1], "key_ID")]


def key_container(keys: Sequence[tuple[str, Secret]]) -> dict[str, Any]:
    """Clause 6.3: (key ID, key) pairs as a document. The result holds key bytes: it goes to the SAE only."""
    return {"keys": [{"key_ID": i, "key": base64.b64encode(k.reveal()).decode()} for i, k in keys]}


def read_key_container(document: Any) -> dict[str, Secret]:
    """A received key container as {key ID: key}."""
    found: dict[str, Secret] = {}
    for i, entry in enumerate(sequence(mapping(document, "body").get("keys"), "keys", longest=4096)):
        where = f"keys[{i}]"
        key_id = uuid_text(mapping(entry, where).get("key_ID"), f"{where}.key_ID")
        encoded = text(entry.get("key"), f"{where}.key", longest=1 << 20)
        try:
            found[key_id] = Secret(base64.b64decode(encoded, validate=True))
        except ValueError:
            # Not chained: the text of a decoding error would quote what could not be decoded.
            raise Malformed(f"{where}.key", "base64 (RFC 4648)", clause="6.3") from None
    return found
