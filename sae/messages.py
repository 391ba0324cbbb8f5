"""The demonstration: a message under a fresh key, AES-256-GCM. PURE: nonces come from the caller.

014 keys have any size, so the AES key comes from the shared one by HKDF, bound to the key ID. A message is thus as
safe as AES, no longer perfectly secret: it shows that both sides hold the same key, not how to use one.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from documents.checks import Malformed, text, uuid_text
from documents.secret import Secret

NONCE_BYTES = 12  # NIST SP 800-38D, clause 5.2.1.1, recommends 96 bits
_TAG_BYTES = 16
_MAX_ENCODED = 1 << 16


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted message; `ciphertext` ends with the tag."""

    key_id: str
    nonce: bytes
    ciphertext: bytes

    def to_json(self) -> dict[str, str]:
        """The document that `parse` reads."""
        return {
            "key_id": self.key_id,
            "nonce": base64.b64encode(self.nonce).decode(),
            "ciphertext": base64.b64encode(self.ciphertext).decode(),
        }


def parse(document: Mapping[str, Any]) -> Sealed:
    """A received message; Malformed names the wrong member."""
    nonce, ciphertext = (_base64(document.get(member), member) for member in ("nonce", "ciphertext"))
    if len(nonce) != NONCE_BYTES:
        raise Malformed("nonce", f"{NONCE_BYTES} bytes in base64")
    if len(ciphertext) < _TAG_BYTES:
        raise Malformed("ciphertext", f"at least {_TAG_BYTES} bytes in base64")
    return Sealed(uuid_text(document.get("key_id"), "key_id"), nonce, ciphertext)


def seal(key: Secret, key_id: str, words: str, *, nonce: bytes) -> Sealed:
    """`words` for who holds the key of that ID. A key must never see the same nonce twice."""
    return Sealed(key_id, nonce, _cipher(key, key_id).encrypt(nonce, words.encode(), key_id.encode()))


def unseal(key: Secret, sealed: Sealed) -> str | None:
    """The words, or None if the key is another one or somebody touched the message."""
    try:
        words = _cipher(key, sealed.key_id).decrypt(sealed.nonce, sealed.ciphertext, sealed.key_id.encode())
        return words.decode()
    except (InvalidTag, UnicodeDecodeError):
        return None


def _base64(value: Any, field: str) -> bytes:
    encoded = text(value, field, longest=_MAX_ENCODED)
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise Malformed(field, "base64 (RFC 4648)") from None


def _cipher(key: Secret, key_id: str) -> AESGCM:
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"qkd demonstration " + key_id.encode())
    return AESGCM(derived.derive(key.reveal()))
