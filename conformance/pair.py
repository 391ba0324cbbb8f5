"""Two SAEs at two KMEs, and how checks get keys there: with patience, for key material grows by the second."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from conformance.checks import Failed, NotRun, expect
from conformance.client import Answer, Sae, key_ids

KEYS_NOT_FOUND = "one or more keys specified are not found on KME"  # clause 6.4
NOBODY = "5a1d0000-0000-4000-8000-0000000f4c1e"  # the ID of no SAE
_AGAIN_S = 0.5
# The standard does not promise that a key is at the slave's KME when the master has it (clause 5.3).
_SOON_S = 5.0
_USUAL_BITS, _FEWEST_BITS = 256, 64


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys by their IDs, of which `master` asked for `slave`."""

    master: Sae
    slave: Sae
    by_id: dict[str, bytes] = field(repr=False)

    @property
    def ids(self) -> list[str]:
        """Their IDs."""
        return list(self.by_id)


class Pair:
    """`a` and `b`, each at its own KME; `other` is a third SAE that may ask some KME, if there is one.

    `patience_s`: how long to wait for key material, s.
    """

    def __init__(self, a: Sae, b: Sae, other: Sae | None, *, patience_s: float) -> None:
        self.a = a
        self.b = b
        self.other = other
        self._patience_s = patience_s
        self._in_vain = False  # somebody has waited for nothing while the KME spoke of a bad request

    @property
    def both(self) -> tuple[Sae, Sae]:
        """Either of them."""
        return self.a, self.b

    def peer(self, sae: Sae) -> Sae:
        """The other of the two."""
        return self.b if sae is self.a else self.a

    @cached_property
    def status(self) -> dict[str, Any]:
        """What the KME of `a` says of keys for `b`; Failed."""
        answer = self.a.status(self.b.id)
        expect(answer.status == 200, f"Get status: {answer.said}")
        return answer.document

    def limit(self, member: str) -> int:
        """A number of the status; Failed if it is none."""
        found = self.status.get(member)
        if not isinstance(found, int) or isinstance(found, bool):
            raise Failed(f"{member} of the status is no integer")
        return found

    @cached_property
    def size(self) -> int:
        """A size of a key in whole bytes, bits: checks are to use up little, and no two keys are alike by chance."""
        try:
            return min(max(-(-self.limit("min_key_size") // 8) * 8, _FEWEST_BITS), self.limit("max_key_size"))
        except Failed:
            return _USUAL_BITS

    @property
    def several(self) -> int:
        """How many keys to ask for where more than one is wanted."""
        return min(3, self.limit("max_key_per_request"))

    def must_give_two(self) -> None:
        """NotRun where a KME gives one key at a time."""
        if self.limit("max_key_per_request") < 2:
            raise NotRun("max_key_per_request is 1")

    def get(self, number: int = 1, *, master: Sae | None = None, size: int | None = None) -> Keys:
        """So many keys for the peer of `master`, by default `a`; Failed, or NotRun if no key material comes."""
        master, size = master or self.a, self.size if size is None else size
        slave = self.peer(master)
        answer = self.patiently(lambda: master.post(slave.id, {"number": number, "size": size}))
        return Keys(master, slave, container(answer, number=number, size=size))

    def patiently(self, ask: Callable[[], Answer]) -> Answer:
        """The answer to a request that is right; asks again while it says that there is too little key material.

        That is a 503, and from some KMEs a 400. NotRun when patience ends over a 503.
        """
        deadline = time.monotonic() + self._patience_s
        while (answer := ask()).status in ((503,) if self._in_vain else (400, 503)):
            if time.monotonic() > deadline:
                if answer.status == 503:
                    raise NotRun(f"no keys within {self._patience_s:g} s ({answer.said})")
                self._in_vain = True
                break
            time.sleep(_AGAIN_S)
        return answer

    def fetched(self, given: Keys, *ids: str) -> None:
        """The slave gets those keys (default: all), and they are the master's; Failed."""
        wanted = {i: given.by_id[i] for i in ids or given.ids}
        deadline = time.monotonic() + _SOON_S
        while True:
            answer = given.slave.fetch(given.master.id, key_ids(*wanted))
            if answer.status == 200 or time.monotonic() > deadline:
                break
            time.sleep(_AGAIN_S)
        same_keys(container(answer), wanted)


def container(answer: Answer, *, number: int | None = None, size: int | None = None) -> dict[str, bytes]:
    """The keys of a key container (clause 6.3) by their IDs, so many of so many bits if that is given; Failed."""
    expect(answer.status == 200, answer.said)
    entries = answer.document.get("keys")
    if not isinstance(entries, list):
        raise Failed("the key container has no array `keys`")
    found: dict[str, bytes] = {}
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise Failed(f"keys[{i}] is no object")
        key_id, key = entry.get("key_ID"), entry.get("key")
        if not isinstance(key_id, str) or not isinstance(key, str):
            raise Failed(f"keys[{i}] has no strings key_ID and key")
        try:
            uuid.UUID(key_id)
            found[key_id] = base64.b64decode(key, validate=True)
        except ValueError:
            raise Failed(f"keys[{i}]: key_ID is no UUID, or key is not base64") from None
        if size is not None and len(found[key_id]) != -(-size // 8):
            raise Failed(f"keys[{i}] has {len(found[key_id])} bytes where {size} bits were asked for")
    expect(len(found) == len(entries), "a key ID stands twice in one answer")
    expect(number is None or len(found) == number, f"{len(found)} keys where {number} were asked for")
    return found


def same_keys(found: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """Failed, unless both are the same keys under the same IDs, however these are written."""
    expect(_by_uuid(found).keys() == _by_uuid(wanted).keys(), "the slave got other key IDs than it asked for")
    expect(_by_uuid(found) == _by_uuid(wanted), "master and slave got DIFFERENT BYTES under one key ID")


def not_found(answer: Answer) -> None:
    """Failed, unless the answer is the standard's for keys that are not there (clause 6.4)."""
    refused(answer)
    expect(
        answer.document.get("message") == KEYS_NOT_FOUND, f"the message is not `{KEYS_NOT_FOUND}`, but {answer.said}"
    )


def refused(answer: Answer, status: int = 400, *, what: str = "") -> None:
    """Failed, unless the answer is a refusal by that status. `what`: words on what was asked, if it was one of many."""
    expect(answer.status == status, f"{what}{what and ': '}{answer.said}, where {status} is expected")


def only_the_standards(answer: Answer) -> None:
    """Failed if a key container has members that the standard does not know (clause 6.3)."""
    container(answer)
    own = set(answer.document) - {"keys", "key_container_extension"}
    for entry in answer.document["keys"]:
        own |= set(entry) - {"key_ID", "key", "key_ID_extension", "key_extension"}
    expect(not own, ", ".join(sorted(own)))


def not_given(answer: Answer) -> None:
    """Failed if the answer is 200."""
    expect(answer.status != 200, "status 200")


def _by_uuid(keys: dict[str, bytes]) -> dict[uuid.UUID, bytes]:
    return {uuid.UUID(i): key for i, key in keys.items()}
