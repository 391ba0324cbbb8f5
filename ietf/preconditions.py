"""What must hold for a request to be done: the conditions of RFC 9110 (13.1) as RFC 8040 (3.4.1) uses them. PURE."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ietf.yang import Refusal

ANY = "*"  # among entity tags: that of whatever is there


@dataclass(frozen=True, slots=True)
class Preconditions:
    """`match`: entity tags, of which one must be the present one (If-Match); None where any will do, or nothing.

    `none_match`: entity tags of which none may be it (If-None-Match). `unmodified_since`: wall clock, whole seconds.
    """

    match: Collection[str] | None = None
    none_match: Collection[str] = ()
    unmodified_since: int | None = None

    def check(self, version: str, changed_at: float, *, exists: bool) -> None:
        """Refusal 412 if one of them does not hold; `exists`: whether what is asked for is there.

        An entity tag is the `version`, or begins with it: that of a representation goes on with what tells it from
        others.
        """
        if self.match is not None and not _has(self.match, version, exists=exists):
            gone = ANY in self.match and not exists
            raise _refusal("there is no such instance" if gone else "the configuration has changed meanwhile")
        if exists and _has(self.none_match, version, exists=True):
            raise _refusal("it exists already" if ANY in self.none_match else "the configuration is the one named")
        if self.match is None and self.unmodified_since is not None and int(changed_at) > self.unmodified_since:
            raise _refusal("the configuration has changed since then")


def _has(tags: Collection[str], version: str, *, exists: bool) -> bool:
    return any(exists if tag == ANY else f"{tag}-".startswith(f"{version}-") for tag in tags)


def _refusal(message: str) -> Refusal:
    return Refusal("operation-failed", message, status=412)
