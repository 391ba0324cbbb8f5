"""What must hold for an edit to be done: the conditional requests of RFC 9110 as RFC 8040 (3.4.1) uses them. PURE."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from etsi.yang import Refusal


@dataclass(frozen=True, slots=True)
class Preconditions:
    """`match`: entity tags, of which one must be that of the configuration (If-Match); None where any will do.

    `absent`: the resource must not be there yet (If-None-Match: *). `unmodified_since`: wall clock, whole seconds.
    """

    match: Collection[str] | None = None
    absent: bool = False
    unmodified_since: int | None = None

    def check(self, version: str, changed_at: float, *, exists: bool) -> None:
        """Refusal 412 if one of them does not hold.

        An entity tag is the configuration's `version`, or begins with it: that of a representation goes on with what
        tells it from others.
        """
        if self.match is not None and not any(f"{tag}-".startswith(f"{version}-") for tag in self.match):
            raise _refusal("the configuration has changed meanwhile")
        if self.absent and exists:
            raise _refusal("it exists already")
        if self.match is None and self.unmodified_since is not None and int(changed_at) > self.unmodified_since:
            raise _refusal("the configuration has changed since then")


def _refusal(message: str) -> Refusal:
    return Refusal("operation-failed", message, status=412)
