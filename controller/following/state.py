"""How it goes with a node that is followed, as one value: heard, read, told, settled. PURE.

    away --heard--> heard --read--> followed --told, settled--> up to date
      ^________________lost_________________/

A node is heard once its event stream is there, and followed once it was read behind that. Only then it can be told
something. Each connection begins anew: what the node was told before may be gone, and open sessions may want something
of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtls.call import Listener

NEVER = -1  # a version of the settings that is below all


@dataclass(frozen=True, slots=True)
class Following:
    """`connection`: by which the node is, or was last, heard. `extended`: whether it knows our module.

    `told`: the version of the settings that it has; `tried`: the one that it was told last. `settled`: it is as open
    sessions want it. `tend_at`: when it is told the next time, monotonic seconds.
    """

    connection: Listener | None = None
    extended: bool = True  # until it is known
    followed: bool = False
    told: int = NEVER
    tried: int = NEVER
    settled: bool = False
    tend_at: float = 0.0

    def heard(self, connection: Listener, *, extended: bool) -> Following:
        """Its event stream is there."""
        return Following(connection, extended=extended, told=self.told)

    def read(self) -> Following:
        """What it is was read, behind the beginning of its stream."""
        return replace(self, followed=True, told=NEVER, tried=NEVER, settled=False, tend_at=0.0)

    def lost(self) -> Following:
        """Its event stream broke, or it could not be read."""
        return replace(self, followed=False)

    def has_not(self, version: int) -> bool:
        """Whether it has not taken over the settings of that version yet."""
        return self.extended and self.told < version

    def is_to_be_told(self, version: int) -> bool:
        """Whether it can be told the settings of that version, and was not."""
        return self.followed and self.tried < version

    def needs_tending(self, version: int, *, wishes: bool) -> bool:
        """Whether it can be told something that it does not know; `wishes`: of its links, beside the settings."""
        return self.followed and (self.has_not(version) or wishes or not self.settled)
