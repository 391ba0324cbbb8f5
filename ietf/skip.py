"""SKIP, the Secure Key Integration Protocol (draft-cisco-skip-02): what is asked, and the documents that answer.

An encryptor asks its key provider for a key that it shares with another encryptor. It calls the two by system IDs.
Sizes are in bits; bytes stand in hexadecimal.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

from documents.checks import Malformed, text
from documents.secret import Secret

ALGORITHM = "QKD"
_USUAL_ENTROPY, _MOST_ENTROPY = 256, 8192
_LONGEST_ID = 128
_KEY_ID = re.compile(r"[0-9a-fA-F]{32}")
_DIGITS = re.compile(r"[0-9]{1,9}")

Query = Sequence[tuple[str, str]]


def key_query(query: Query, usual_size: int) -> tuple[str, int]:
    """`GET /key`: the remote system's ID, and the key's size in bits, `usual_size` if the query has none."""
    given = _once(query, "remoteSystemID", "size")
    return _remote(given), _whole(given, "size", usual_size)


def fetch_query(query: Query) -> str:
    """`GET /key/{keyId}`: the remote system's ID."""
    return _remote(_once(query, "remoteSystemID"))


def entropy_query(query: Query) -> int:
    """`GET /entropy`: how many bits of entropy are wanted."""
    bits = _whole(_once(query, "minentropy"), "minentropy", _USUAL_ENTROPY)
    if not 1 <= bits <= _MOST_ENTROPY:
        raise Malformed("minentropy", f"1 to {_MOST_ENTROPY} bits")
    return bits


def key_id(said: str) -> str:
    """The key ID in a path, 32 hexadecimal digits, as the text of a UUID."""
    if not _KEY_ID.fullmatch(said):
        raise Malformed("keyId", "32 hexadecimal digits")
    return str(uuid.UUID(said))


def capabilities(local: str, remote: Sequence[str]) -> dict[str, Any]:
    """`GET /capabilities`: what the provider does for the system `local`, and with whom it can have keys."""
    return {
        "entropy": True, "key": True, "algorithm": ALGORITHM, "localSystemID": local, "remoteSystemID": list(remote),
    }  # fmt: skip


def key(identifier: str, secret: Secret) -> dict[str, str]:
    """A key of the ID `identifier`, a UUID. The result holds key bytes: it goes to the system only."""
    return {"keyId": uuid.UUID(identifier).hex, "key": secret.reveal().hex()}


def entropy(random: bytes, bits: int) -> dict[str, Any]:
    """Random bytes with at least so many bits of entropy."""
    return {"randomStr": random.hex(), "minentropy": bits}


def _once(query: Query, *names: str) -> dict[str, str]:
    """The parameters, each of which is one of `names` and stands there once."""
    given: dict[str, str] = {}
    for name, value in query:
        if name not in names or name in given:
            raise Malformed("query", f"{' and '.join(names)}, each at most once")
        given[name] = value
    return given


def _remote(given: dict[str, str]) -> str:
    return text(given.get("remoteSystemID"), "remoteSystemID", longest=_LONGEST_ID)


def _whole(given: dict[str, str], name: str, usual: int) -> int:
    if (said := given.get(name)) is None:
        return usual
    if not _DIGITS.fullmatch(said):
        raise Malformed(name, "decimal digits")
    return int(said)
