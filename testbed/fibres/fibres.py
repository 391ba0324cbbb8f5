"""The fibres of a running network: how each of their two directions is shaped now, and how to change that.

The front door for whoever shows or changes fibres, be it the command line or another program of the testbed: names and
typed values in, frozen values out, and FibreError with one line that names what is wrong. It may be called from any
thread. The controller is not told: like the metric of a link in a real network, what it routes by is what the operator
configured, and a fibre that has become slow is not avoided. To see traffic go round a fibre, cut it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from documents.checks import Malformed
from scenario.shape import Shape, parse_shape
from testbed.errors import UserError
from testbed.fibres.measurement import Figure, measure_direction
from testbed.fibres.probe import is_off, one_way_ms, without_carrier
from testbed.fibres.shapers import Shaper
from testbed.machine.namespaces import call_in_network, network_of
from testbed.machine.processes import ProcessFailed
from testbed.planning.plan import LinkPlan, Plan
from testbed.planning.round_trips import longest_s, too_long, too_much_longer

T = TypeVar("T")
_MEASURED_AT_ONCE = 4  # so that a delay line and the other measurements delay none of them


class FibreError(UserError):
    """A fibre that is not there, or a shape that cannot be."""


@dataclass(frozen=True, slots=True)
class Fibre:
    """A fibre between datacenters `a` and `b`, and the shape of either direction now."""

    name: str
    a: str
    b: str
    a_to_b: Shape
    b_to_a: Shape

    @property
    def rtt_ms(self) -> float:
        """The delay there and back, as configured now."""
        return self.a_to_b.delay_ms + self.b_to_a.delay_ms

    @property
    def directions(self) -> tuple[tuple[str, str, Shape], tuple[str, str, Shape]]:
        """From where, to where, and how; a to b first."""
        return (self.a, self.b, self.a_to_b), (self.b, self.a, self.b_to_a)


@dataclass(frozen=True, slots=True)
class MeasuredLink:
    """A link's round-trip time as configured and as measured, in ms; None if nothing came back."""

    name: str
    configured_rtt_ms: float
    measured_rtt_ms: float | None


class Ends(Protocol):
    """What can be done at the ends of fibres, wherever they are."""

    def one_way_ms(self, link: LinkPlan, shapes: tuple[Shape, Shape]) -> list[float | None]:
        """One-way delays of a fibre of these shapes, a to b first; None: nothing came."""

    def without_carrier(self, links: Collection[LinkPlan]) -> set[str]:
        """The names of fibres with an end that sees no light."""

    def here(self, link: LinkPlan) -> bool:
        """Whether both ends are on this machine."""


class EndsHere:
    """Those of a network on one machine."""

    def one_way_ms(self, link: LinkPlan, shapes: tuple[Shape, Shape]) -> list[float | None]:
        """As `Ends` has it."""
        ports = (link.port_a, link.port_b), (link.port_b, link.port_a)
        measure = [functools.partial(one_way_ms, *ends, shape) for ends, shape in zip(ports, shapes, strict=True)]
        return at_the_switches(lambda: [each() for each in measure])

    def without_carrier(self, links: Collection[LinkPlan]) -> set[str]:
        """As `Ends` has it."""
        dark = {*at_the_switches(lambda: without_carrier([p for x in links for p in (x.port_a, x.port_b)]))}
        return {link.link.name for link in links if dark & {link.port_a, link.port_b}}

    def here(self, _: LinkPlan) -> bool:
        """They are."""
        return True


class Fibres:
    """All fibres of `plan`, shaped by `shaper` as the plan says when this is made; `ends`: where their ends are.

    No fibre becomes so slow that no key could live for `ttl_slots`, or that the parties would not follow.
    """

    def __init__(self, plan: Plan, shaper: Shaper, *, ttl_slots: int, ends: Ends | None = None) -> None:
        self._ends = ends or EndsHere()
        self.ttl_slots = ttl_slots  # as it was set last
        self._shaper = shaper
        self._plans = {p.link.name: p for p in plan.links}
        self._fibres = {name: _planned(p) for name, p in self._plans.items()}
        self._changing = threading.Lock()

    def all(self) -> list[Fibre]:
        """In the topology's order."""
        return list(self._fibres.values())

    def get(self, name: str) -> Fibre:
        """The fibre of that name; FibreError if there is none."""
        if name not in self._fibres:
            raise FibreError(f"no fibre {name!r}: there are {', '.join(self._fibres)}")
        return self._fibres[name]

    def change(self, name: str, changes: Mapping[str, float | None], *, towards: str | None = None) -> Fibre:
        """Change members of the shape of both directions, or of the one towards a datacenter, and leave the others.

        `changes`: `delay_ms`, `jitter_ms`, `loss_percent`, `bandwidth_mbit`, which None frees of a limit. What is under
        way keeps its old shape and is not overtaken. FibreError names the member; then nothing has changed.
        """
        with self._changing:
            before = self._towards(name, towards)
            try:
                after = replace(
                    before,
                    a_to_b=before.a_to_b if towards == before.a else parse_shape(changes, "", before.a_to_b),
                    b_to_a=before.b_to_a if towards == before.b else parse_shape(changes, "", before.b_to_a),
                )
            except Malformed as error:
                raise FibreError(str(error)) from None
            planned = [_planned(plan) for plan in self._plans.values()]
            round_trip_s = longest_s(planned, [*self.all(), after])
            why = too_long(round_trip_s, self.ttl_slots) or too_much_longer(round_trip_s, longest_s(planned))
            if why is not None and round_trip_s > longest_s(planned, self.all()):  # a slow one may become less so
                raise FibreError(why)
            return self._apply(before, after)

    def reset(self, name: str) -> Fibre:
        """Shape both directions as the topology says."""
        with self._changing:
            before = self.get(name)
            return self._apply(before, _planned(self._plans[name]))

    def check_ttl(self, ttl_slots: int) -> None:
        """FibreError if with that TTL no key could be handed out over fibres as slow as they are now."""
        why = too_long(longest_s(map(_planned, self._plans.values()), self.all()), ttl_slots)
        if why is not None:
            raise FibreError(why)

    def lit(self) -> frozenset[str]:
        """The names of the fibres of which both ends see light."""
        return frozenset({*self._plans} - self._ends.without_carrier(self._plans.values()))

    def rtt(self, name: str) -> MeasuredLink:
        """The round-trip time of a fibre, configured and measured now, in a fraction of a second and its delays."""
        fibre = self.get(name)
        return _measured(fibre, self._one_way(fibre))

    def measure(self, name: str, *, towards: str | None = None) -> list[tuple[str, str, list[Figure]]]:
        """What directions really do, beside what is configured: from where, to where, figures. Takes seconds.

        Of both directions, or of the one towards a datacenter.
        """
        fibre, plan = self._towards(name, towards), self._plan(name)
        if not self._ends.here(plan):
            raise FibreError(f"fibre {name} has an end on another machine, where 'measure' does not reach yet")
        if name not in self.lit():
            raise FibreError(f"fibre {name} is down: nothing to measure")
        ports = (plan.port_a, plan.port_b), (plan.port_b, plan.port_a)
        return [
            (a, b, at_the_switches(functools.partial(measure_direction, *ends, shape)))
            for ends, (a, b, shape) in zip(ports, fibre.directions, strict=True)
            if towards in (None, b)
        ]

    def check(self) -> list[MeasuredLink]:
        """Measure all fibres, some at a time; ProcessFailed if a direction is not shaped as configured."""
        with ThreadPoolExecutor(_MEASURED_AT_ONCE) as pool:
            return list(pool.map(self._check, self.all()))

    def _check(self, fibre: Fibre) -> MeasuredLink:
        found = self._one_way(fibre)
        if any(is_off(shape, ms) for (_, _, shape), ms in zip(fibre.directions, found, strict=True)):
            found = self._one_way(fibre)  # a busy moment is over the second time
        for (a, b, shape), ms in zip(fibre.directions, found, strict=True):
            if is_off(shape, ms):
                configured = f"link {fibre.name} is configured with a delay of {shape.delay_ms:g} ms from {a} to {b}"
                shown = "no frame arrived" if ms is None else f"{ms:.3f} ms were measured"
                raise ProcessFailed(f"{configured}, but {shown}")
        return _measured(fibre, found)

    def _apply(self, before: Fibre, after: Fibre) -> Fibre:
        shapes = (before.a_to_b, before.b_to_a), (after.a_to_b, after.b_to_a)
        if shapes[0] != shapes[1]:
            plan = self._plan(before.name)
            try:
                at_the_switches(lambda: self._shaper.apply(plan, before=shapes[0], after=shapes[1]))
            except ProcessFailed as error:
                raise FibreError(f"fibre {before.name}: {error}") from None
            self._fibres[before.name] = after
        return after

    def _towards(self, name: str, towards: str | None) -> Fibre:
        fibre = self.get(name)
        if towards not in (None, fibre.a, fibre.b):
            raise FibreError(f"fibre {name} leads to {fibre.a} and {fibre.b}, not to {towards!r}")
        return fibre

    def _one_way(self, fibre: Fibre) -> list[float | None]:
        return self._ends.one_way_ms(self._plan(fibre.name), (fibre.a_to_b, fibre.b_to_a))

    def _plan(self, name: str) -> LinkPlan:
        return self._plans[self.get(name).name]


def _planned(plan: LinkPlan) -> Fibre:
    link = plan.link
    return Fibre(link.name, link.a, link.b, link.a_to_b, link.b_to_a)


def _measured(fibre: Fibre, one_way_ms: list[float | None]) -> MeasuredLink:
    found = [ms for ms in one_way_ms if ms is not None]
    return MeasuredLink(fibre.name, round(fibre.rtt_ms, 3), round(sum(found), 3) if len(found) == 2 else None)


def at_the_switches(function: Callable[[], T]) -> T:
    """The result of `function`, called in this process's own network, wherever the calling thread may be."""
    fd = network_of(os.getpid())
    try:
        return call_in_network(fd, function)
    finally:
        os.close(fd)
