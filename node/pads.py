"""PURE: the ciphers between nodes. OTP: exclusive or with a pad of the same length that is used once."""

from __future__ import annotations

from etsi.secret import Secret


def otp(data: Secret, pad: Secret) -> Secret:
    """`data` under the one-time pad `pad`; the same call decrypts. ValueError unless the lengths are equal."""
    if len(data) != len(pad):
        raise ValueError(f"a pad of {len(pad)} bytes does not fit {len(data)} bytes of data")
    n_bytes = len(data)
    mixed = int.from_bytes(data.reveal(), "big") ^ int.from_bytes(pad.reveal(), "big")
    return Secret(mixed.to_bytes(n_bytes, "big"))
