"""SAE IDs: opaque strings (GS QKD 014, clause 4), compared letter by letter, and how they stand in GS QKD 015's URIs.

An ID that is a UUID in lower case stands there as it is, and so does one that is a URI itself; in place of any other
stands `urn:qkd:sae:` and the ID percent-encoded. So no letter is lost on readers who put UUIDs in lower case.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote

from documents.checks import Malformed, text, uuid_text

LONGEST = 128  # characters
_SCHEME, _UUID_SCHEME = "urn:qkd:sae:", "urn:uuid:"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9%:/?#\[\]@!$&'()*+,;=._~-]+")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def sae_id(value: Any, field: str) -> str:
    """`value` as an SAE ID: 1 to 128 printable characters."""
    return text(value, field, longest=LONGEST)


def to_uri(sae: str) -> str:
    """The URI that stands for an SAE."""
    plain = _UUID.fullmatch(sae) or (_URI.fullmatch(sae) and from_uri(sae) == sae)
    return sae if plain else _SCHEME + quote(sae, safe="")


def from_uri(uri: str) -> str:
    """The SAE that a URI stands for; a UUID may be in capitals, and a urn:uuid. Other URIs are IDs themselves."""
    if uri.startswith(_SCHEME):
        return unquote(uri.removeprefix(_SCHEME))
    bare = uri[len(_UUID_SCHEME) :] if uri.lower().startswith(_UUID_SCHEME) else uri
    try:
        return uuid_text(bare, "SAE")
    except Malformed:
        return uri
