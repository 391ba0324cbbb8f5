"""PURE: how a key reaches the last node of a path, as a declared cost on each link.

A mode says in units of the key's own size what it takes from each QC of the path; admission, the load model and the
allocation all read that one declaration, so that none of them asks which mode it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mode:
    """`first_link` and `other_links`: units of key size a key costs there on a path of two or more links."""

    name: str
    first_link: int
    other_links: int

    def cost_per_link(self, hops: int) -> tuple[int, ...]:
        """Units of key size that one key takes from each QC of a path of `hops` links.

        Over one link every mode is the same: the key is the range itself.
        """
        if hops < 1:
            raise ValueError("a path has at least one link")
        return (1,) if hops == 1 else (self.first_link,) + (self.other_links,) * (hops - 1)

    def needs(self, qcs: Sequence[str], n_bytes: int) -> list[tuple[str, int]]:
        """What `n_bytes` of key take from each QC of the path, as (QC, bytes)."""
        costs = self.cost_per_link(len(qcs))
        return [(qc, cost * n_bytes) for qc, cost in zip(qcs, costs, strict=True)]


# The paper's BASIC: a shared key from the first link is relayed under OTP hop by hop; the new key, from the first
# link too, goes to the last node under the shared one (OTP). Two units on the first link, one on every other.
BASIC = Mode("basic", first_link=2, other_links=1)

MODES = {mode.name: mode for mode in (BASIC,)}
