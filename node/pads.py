"""PURE: the ciphers between nodes. OTP: exclusive or with a pad used once. CCM: many keys under a shared one."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from etsi.secret import Secret

_NONCE_BYTES = 12  # leaves three bytes for the length of the message (RFC 3610, 2.1): up to 16 MiB
CCM_TAG_BYTES = 16


class Tampered(ValueError):
    """A sealed message does not fit its key and its header."""


def otp(data: Secret, pad: Secret) -> Secret:
    """`data` under the one-time pad `pad`; the same call decrypts. ValueError unless the lengths are equal."""
    if len(data) != len(pad):
        raise ValueError(f"a pad of {len(pad)} bytes does not fit {len(data)} bytes of data")
    n_bytes = len(data)
    mixed = int.from_bytes(data.reveal(), "big") ^ int.from_bytes(pad.reveal(), "big")
    return Secret(mixed.to_bytes(n_bytes, "big"))


def ccm_seal(data: Secret, key: Secret, request: str, header: bytes) -> Secret:
    """`data` under AES-CCM, with `header` authenticated.

    The nonce follows from `request`, of which there is never a second one; nor does a key ever seal a second message.
    """
    return Secret(_cipher(key).encrypt(_nonce(request), data.reveal(), header))


def ccm_open(sealed: Secret, key: Secret, request: str, header: bytes) -> Secret:
    """What `ccm_seal` sealed; Tampered."""
    try:
        return Secret(_cipher(key).decrypt(_nonce(request), sealed.reveal(), header))
    except InvalidTag:
        raise Tampered("the message does not fit key and header") from None


def _cipher(key: Secret) -> AESCCM:
    return AESCCM(key.reveal(), tag_length=CCM_TAG_BYTES)


def _nonce(request: str) -> bytes:
    return hashlib.sha256(request.encode()).digest()[:_NONCE_BYTES]
