"""How long packets go there and back between datacenters, over the fibres that the controller leads them over. PURE.

All that waits in the network waits in round trips: a key is relayed, fetched and reported over several of them before
it is too old, and a peer that says nothing for some seconds counts as dead. A network in which no key could ever be
handed out for that is refused.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol

from mtls.liveness import LONGEST_ROUND_TRIP_S
from scenario.shape import Shape

# Within a TTL what a key is made of is reported, allocated, relayed and fetched; and what the shared database gives may
# be older than it knew by a round trip, for which a node has a fifth of the TTL to spare, less a slot.
_IN_A_TTL = 8
_SLOT_S = 1.0
# Over longer ones hosts do not find each other: the kernel asks for an address for 3 s.
_MOST_S = LONGEST_ROUND_TRIP_S
# All wait by what they measure; but a shared database that was not told of longer ones puts clients out that take more
# than 5 s for TLS and PostgreSQL's greetings, four round trips.
_FOLLOWED_S = 1.25


class Fibre(Protocol):
    """Any description of a fibre between datacenters `a` and `b`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def a(self) -> str:
        """One end."""

    @property
    def b(self) -> str:
        """The other end."""

    @property
    def a_to_b(self) -> Shape:
        """How it is shaped this way."""

    @property
    def b_to_a(self) -> Shape:
        """How it is shaped the other way."""


def longest_s(planned: Iterable[Fibre], now: Iterable[Fibre] = ()) -> float:
    """The longest round trip between two datacenters, over shortest paths by delay.

    The controller goes by the delays `planned`; `now`: fibres whose delays are others meanwhile.
    """
    delays = {f.name: (f.a_to_b.delay_ms, f.b_to_a.delay_ms) for f in now}
    onward: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for f in planned:
        there, back = delays.get(f.name, (f.a_to_b.delay_ms, f.b_to_a.delay_ms))
        onward[f.a].append((f.b, f.a_to_b.delay_ms, there))
        onward[f.b].append((f.a, f.b_to_a.delay_ms, back))
    one_way = {source: _delays_from(source, onward) for source in onward}
    return max((ms + one_way[b][a] for a, ends in one_way.items() for b, ms in ends.items()), default=0.0) / 1000


def too_long(round_trip_s: float, ttl_slots: int) -> str | None:
    """Why no key is handed out in a network with that longest round trip; None if keys are."""
    most_s = min(_MOST_S, ttl_slots * _SLOT_S / _IN_A_TTL)
    if round_trip_s <= most_s:
        return None
    return (
        f"the longest round trip between two datacenters would take {round_trip_s:g} s: no key could be handed out over"
        f" more than {most_s:g} s (an eighth of a TTL of {ttl_slots} slots, and {_MOST_S:g} s is the most)"
    )


def too_much_longer(round_trip_s: float, planned_s: float) -> str | None:
    """Why a running network does not follow if its longest round trip becomes that; None if it does."""
    most_s = max(planned_s, _FOLLOWED_S)
    if round_trip_s <= most_s:
        return None
    return (
        f"the longest round trip between two datacenters would take {round_trip_s:g} s: a network that runs follows up"
        f" to {most_s:g} s; start one with these delays"
    )


def _delays_from(source: str, onward: Mapping[str, list[tuple[str, float, float]]]) -> dict[str, float]:
    """The delay to each datacenter in ms, over the path that is shortest by metric."""
    found: dict[str, float] = {}
    waiting = [(0.0, 0.0, source)]
    while waiting:
        metric, delay, at = heapq.heappop(waiting)
        if at not in found:
            found[at] = delay
            for to, more, real in onward[at]:
                heapq.heappush(waiting, (metric + more, delay + real, to))
    return found
