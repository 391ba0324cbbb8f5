"""PURE but for randomness: a key in parts, each as long as the key; some number of them gives the key, fewer nothing.

If all parts are needed, they are random but for the last one, and the key is their exclusive or. Else they are those of
Shamir (How to share a secret, 1979), byte by byte in the field of 256 elements (FIPS 197, 4.2): a polynomial whose
value at 0 is the byte of the key and whose other coefficients are random; part x is its value at x, from 1 on. So many
values as there are coefficients fix it. Fewer fit any key, and each equally well.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

from documents.secret import Secret

_MODULUS = 0x11B


def split(key: Secret, number: int, enough: int) -> list[Secret]:
    """`number` parts of the key, of which any `enough` give it."""
    whole = key.reveal()
    if number == enough:
        parts = [os.urandom(len(whole)) for _ in range(number - 1)]
        return [*map(Secret, parts), Secret(functools.reduce(_xor, parts, whole))]
    others = [os.urandom(len(whole)) for _ in range(enough - 1)]
    found = []
    for x in range(1, number + 1):
        part, power = whole, 1
        for coefficients in others:
            power = _product(power, x)
            part = _xor(part, _times(coefficients, power))
        found.append(Secret(part))
    return found


def joined(parts: Mapping[int, Secret], number: int, enough: int) -> Secret:
    """The key, of at least `enough` of its `number` parts, by their places from 1 on; all as long as one another."""
    if number == enough:
        return Secret(functools.reduce(_xor, (part.reveal() for part in parts.values())))
    used = sorted(parts)[:enough]
    whole = bytes(len(parts[used[0]]))
    for x in used:  # Lagrange's polynomial of the values, at 0; minus is plus here
        weight = 1
        for other in used:
            if other != x:
                weight = _product(weight, _product(other, _inverse(other ^ x)))
        whole = _xor(whole, _times(parts[x].reveal(), weight))
    return Secret(whole)


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


def _times(data: bytes, factor: int) -> bytes:
    """Each byte times that factor."""
    return data.translate(_table(factor))


@functools.lru_cache(256)
def _table(factor: int) -> bytes:
    return bytes(_product(factor, byte) for byte in range(256))


def _product(one: int, other: int) -> int:
    found = 0
    while other:
        if other & 1:
            found ^= one
        one <<= 1
        if one & 0x100:
            one ^= _MODULUS
        other >>= 1
    return found


def _inverse(element: int) -> int:
    return next(x for x in range(1, 256) if _product(element, x) == 1)
