"""Key bytes in a type that cannot tell them: what is printed, logged or compared shows a length only.

Python cannot promise that no copy stays in memory (bytes that a library made are beyond our reach); what is ours
is a bytearray, and `wipe` overwrites it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class Secret:
    """Key material of `len(secret)` bytes. `reveal` is the only way to the bytes, so that a search finds each use."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = bytearray(data)

    def reveal(self) -> bytes:
        """A copy of the bytes."""
        return bytes(self._data)

    def wipe(self) -> None:
        """Overwrite the bytes with zeros. The secret has length 0 afterwards."""
        self._data[:] = bytes(len(self._data))  # of the same length, so it is written in place
        self._data.clear()

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"<Secret of {len(self._data)} bytes>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._data, other._data)

    __hash__ = None  # type: ignore[assignment]  # mutable: wipe changes it

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret does not leave the process by pickling")


@contextmanager
def wiped_on_failure(*secrets: Secret) -> Iterator[None]:
    """If the block fails, nobody needs them any more."""
    try:
        yield
    except BaseException:
        for secret in secrets:
            secret.wipe()
        raise
