"""PURE but for a nonce: what goes between nodes. OTP: exclusive or with a pad used once. CCM: many keys under a shared
one. The check value: what shows the last node that the keys which came to it are those that the first node made.

And how a node knows, without asking, that the shared database has allocated ranges for a request.
The database shares a secret with every node. With the ranges of a path it gives the first node a MAC for each later
one, over the ranges of the links on both sides of that node. A relay can neither take ranges that were allocated for
something else nor ranges of nobody: keys over one hop have no such proof, so that none becomes a pad.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from decisions.ranges import Range
from documents.secret import Secret

_NONCE_BYTES = 12  # leaves three bytes for the length of the message (RFC 3610, 2.1): up to 16 MiB
CCM_TAG_BYTES = 16
_CHECK_NONCE_BYTES = 16
CHECK_BYTES = _CHECK_NONCE_BYTES + 8


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


def check_value(data: Secret, header: bytes) -> Secret:
    """CHECK_BYTES that `fits` knows `data` and `header` by: a fresh nonce, and 64 bits of an HMAC under it.

    Whoever sees it learns at most those 64 bits about `data`; docs/keys.md says who may.
    """
    nonce = os.urandom(_CHECK_NONCE_BYTES)
    return Secret(nonce + _mac(nonce, data, header))


def fits(data: Secret, header: bytes, check: Secret) -> bool:
    """Whether `check` was made of the same `data` and `header`; what is altered passes once in 2^64 times."""
    nonce, value = check.reveal()[:_CHECK_NONCE_BYTES], check.reveal()[_CHECK_NONCE_BYTES:]
    return hmac.compare_digest(value, _mac(nonce, data, header))


def _mac(nonce: bytes, data: Secret, header: bytes) -> bytes:
    message = len(header).to_bytes(8, "big") + header + data.reveal()
    return hmac.digest(nonce, message, "sha256")[: CHECK_BYTES - _CHECK_NONCE_BYTES]


def _cipher(key: Secret) -> AESCCM:
    return AESCCM(key.reveal(), tag_length=CCM_TAG_BYTES)


def _nonce(request: str) -> bytes:
    return hashlib.sha256(request.encode()).digest()[:_NONCE_BYTES]


PROOF_LENGTH = 64  # hexadecimal digits


def proof(
    secret: bytes, request: str, server: str, *, position: int, hops: int, around: Sequence[Range]
) -> str:
    """HMAC-SHA256, in hexadecimal digits, for the node behind link `position`, from 1 on, of a path of `hops` links.

    `around`: the range of that link and, unless it is the last one, of the next. The same words as in shared_db.sql.
    """
    words = [request, server, str(position), str(hops)]
    for where in around:
        qc = where.qc
        words += [str(where.epoch), str(where.start), str(where.end), str(len(qc.encode())), qc]
    return hmac.digest(secret, " ".join(words).encode(), "sha256").hex()
