"""Which SAEs open key sessions when, for how long, and for which keys: distributions, and draws from them. PURE.

A file (YAML) gives each figure as a distribution; the same workload, network and seed give the same arrivals.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, overload

from decisions.rekey import END, PACES, POLICIES, SESSION
from etsi.gs004 import QoS
from scenario import yaml_documents
from scenario.topology_description import Field, TopologyError


class Placed(Protocol):
    """An SAE, as far as it matters here: its node, and whether it is somebody else's software."""

    @property
    def node(self) -> str:
        """The name of its node."""

    @property
    def external(self) -> bool:
        """Whether it does what its owner wants."""


S = TypeVar("S", bound=Placed)


class WorkloadError(TopologyError):
    """A workload that cannot be used, or not in this network."""


class Pairs(Sequence[tuple[S, S]]):
    """All ordered pairs (master, slave) of `saes` at different nodes: one node needs no quantum channel to itself.

    External SAEs are in none. No pair is made before it is asked for: 10,000 SAEs have a hundred million.
    """

    def __init__(self, saes: Sequence[S]) -> None:
        self._ours = [sae for sae in saes if not sae.external]
        self._at: dict[str, list[int]] = {}  # where those of a node stand, in order
        for place, sae in enumerate(self._ours):
            self._at.setdefault(sae.node, []).append(place)
        others = (len(self._ours) - len(self._at[sae.node]) for sae in self._ours)
        self._ends = list(itertools.accumulate(others))  # of each master's pairs

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> tuple[S, S]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[S, S]]: ...
    def __getitem__(self, index: int | slice) -> tuple[S, S] | Sequence[tuple[S, S]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        place = bisect.bisect_right(self._ends, index)
        master, slave = self._ours[place], index - (self._ends[place - 1] if place else 0)
        for neighbour in self._at[master.node]:
            if neighbour > slave:
                break
            slave += 1
        return master, self._ours[slave]


def draw_pairs(saes: Sequence[S], number: int, seed: int) -> list[tuple[S, S]]:
    """`number` different pairs, the same ones for the same seed and the same names. ValueError if there are fewer."""
    pairs = Pairs(saes)
    if number > len(pairs):
        raise ValueError(f"expected at most {len(pairs)}, the ordered pairs of our SAEs on different nodes")
    return random.Random(seed).sample(pairs, number)  # noqa: S311 - a workload, no key


_MAX_APPLICATIONS = 100_000
_MAX_S = 1e7
_LEAST_INTERVAL_S = 0.001
_MAX_BITS = 1 << 20
_KINDS = ("constant", "exponential", "uniform")


@dataclass(frozen=True, slots=True)
class Distribution:
    """`constant` VALUE, `exponential` MEAN or `uniform` [LOW, HIGH]; what is drawn is cut at `at_least`, `at_most`."""

    kind: str
    first: float
    second: float = 0.0
    at_least: float = 0.0
    at_most: float = _MAX_S

    def draw(self, generator: random.Random) -> float:
        """One value."""
        if self.kind == "constant":
            value = self.first
        elif self.kind == "exponential":
            value = generator.expovariate(1 / self.first)
        else:
            value = generator.uniform(self.first, self.second)
        return min(max(value, self.at_least), self.at_most)

    @property
    def mean(self) -> float:
        """Of what is drawn, before it is cut."""
        return (self.first + self.second) / 2 if self.kind == "uniform" else self.first

    @property
    def longest(self) -> float:
        """About the greatest of a dozen that are drawn."""
        greatest = {"constant": self.first, "exponential": 3 * self.first, "uniform": self.second}[self.kind]
        return min(max(greatest, self.at_least), self.at_most)

    def divided(self, by: float) -> Distribution:
        """The distribution of what is drawn, divided."""
        # Below what a file may give as the least interval nothing is cut off anew.
        at_least = self.at_least if self.at_least <= _LEAST_INTERVAL_S else max(_LEAST_INTERVAL_S, self.at_least / by)
        return Distribution(self.kind, self.first / by, self.second / by, at_least, self.at_most / by)

    def said(self, unit: str) -> str:
        """In words, with the unit of what is drawn."""
        if self.kind == "constant":
            return f"{self.first:g} {unit}"
        if self.kind == "uniform":
            return f"uniform from {self.first:g} to {self.second:g} {unit}"
        cut = f", at most {self.at_most:g} {unit}" if self.at_most < _MAX_S else ""
        return f"exponential with mean {self.first:g} {unit}{cut}"

    def to_json(self) -> dict[str, Any]:
        """The document."""
        value: Any = [self.first, self.second] if self.kind == "uniform" else self.first
        return {self.kind: value, "at_least": self.at_least, "at_most": self.at_most}


@dataclass(frozen=True, slots=True)
class Workload:
    """`applications` sessions: seconds between arrivals, seconds that each lasts, bits of a key, seconds between keys.

    `on_key_failure`: whether a session ends ("end") or goes on ("go_on") when a key does not come. `pace`: what keeps
    the interval, each session for itself ("session") or an SAE for all of its sessions together ("application").
    """

    name: str
    description: str
    applications: int
    gap_s: Distribution
    length_s: Distribution
    key_size_bits: Distribution
    interval_s: Distribution
    on_key_failure: str = END
    pace: str = SESSION

    @property
    def habits(self) -> dict[str, str]:
        """What the applications must know of it before they start."""
        return {"on_key_failure": self.on_key_failure, "pace": self.pace}

    def faster(self, factor: float) -> Workload:
        """The same load with all times divided by `factor`."""
        return replace(
            self,
            **{name: getattr(self, name).divided(factor) for name in ("gap_s", "length_s", "interval_s")},
        )

    def said(self) -> str:
        """In words."""
        stops = "end" if self.on_key_failure == END else "go on"
        one = "" if self.pace == SESSION else "; an SAE asks once an interval for all of its sessions together"
        return (
            f"{self.applications} applications; between arrivals {self.gap_s.said('s')}; length of a session"
            f" {self.length_s.said('s')}; keys of {self.key_size_bits.said('bits')}, one every"
            f" {self.interval_s.said('s')}; sessions {stops} after a key error{one}"
        )

    def to_json(self) -> dict[str, Any]:
        """The document that `parse` reads."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v.to_json() if isinstance(v, Distribution) else v for k, v in given.items()}


@dataclass(frozen=True, slots=True)
class Arrival(Generic[S]):
    """A key session to open `at_s` seconds after the beginning, which ends after `length_s` seconds (None: never)."""

    at_s: float
    master: S
    slave: S
    length_s: float | None = None
    qos: QoS = QoS()  # noqa: RUF009 - frozen


def arrivals(workload: Workload, saes: Sequence[S], seed: int) -> list[Arrival[S]]:
    """The workload's sessions as they arrive, no ordered pair of SAEs twice; WorkloadError if there are fewer pairs.

    The first one arrives at once.
    Each figure has a generator of its own: changing one distribution leaves what others give as it was.
    """
    pairs = Pairs(saes)
    if workload.applications > len(pairs):
        text = f"expected at most {len(pairs)} applications, the ordered pairs of SAEs on different nodes"
        raise WorkloadError(f"workload {workload.name}: {text}, got {workload.applications}")
    figures = ("pairs", "gap", "length", "size", "interval")
    generators = {what: random.Random(f"{seed}/{what}") for what in figures}  # noqa: S311 - a workload, no key
    chosen = generators["pairs"].sample(pairs, workload.applications)
    found: list[Arrival[S]] = []
    at_s = 0.0
    for master, slave in chosen:
        size = 8 * max(1, round(workload.key_size_bits.draw(generators["size"]) / 8))
        qos = QoS(size, workload.interval_s.draw(generators["interval"]))
        found.append(Arrival(at_s, master, slave, workload.length_s.draw(generators["length"]), qos))
        at_s += workload.gap_s.draw(generators["gap"])
    return found


def load(name_or_path: str, shipped: Path) -> Workload:
    """A workload by its name in the folder `shipped`, or in a file of the user's; TopologyError, one line."""
    path = Path(name_or_path)
    if "/" not in name_or_path and not path.suffix:
        names = sorted(file.stem for file in shipped.glob("*.yaml"))
        if name_or_path not in names:
            raise WorkloadError(f"no workload {name_or_path!r}: expected a file, or one of {', '.join(names)}")
        path = shipped / f"{name_or_path}.yaml"
    return parse(yaml_documents.read(path), path.name)


def parse(document: object, source: str) -> Workload:
    """The workload in a document; TopologyError names the member and what was expected."""
    given = Field(source, "", document).members(
        "name", "applications", "gap_s", "length_s", description="", key_size_bits={"constant": 128},
        interval_s={"constant": 5}, on_key_failure=END, pace=SESSION,
    )  # fmt: skip
    for member, allowed in (("on_key_failure", POLICIES), ("pace", PACES)):
        if given[member].value not in allowed:
            raise given[member].expected(" or ".join(allowed))
    number = given["applications"].whole(_MAX_APPLICATIONS)
    if number < 1:
        raise given["applications"].expected("at least one")
    return Workload(
        name=given["name"].name(),
        description=given["description"].text(),
        applications=number,
        gap_s=_distribution(given["gap_s"], _MAX_S),
        length_s=_distribution(given["length_s"], _MAX_S),
        key_size_bits=_distribution(given["key_size_bits"], _MAX_BITS, least=8),
        interval_s=_distribution(given["interval_s"], 86_400, least=_LEAST_INTERVAL_S),
        on_key_failure=str(given["on_key_failure"].value),
        pace=str(given["pace"].value),
    )


def _distribution(field: Field, most: float, *, least: float = 0.0) -> Distribution:
    members = field.members(**dict.fromkeys((*_KINDS, "at_least", "at_most")))
    kinds = [kind for kind in _KINDS if kind in members]
    if len(kinds) != 1:
        raise field.expected(f"one of {', '.join(_KINDS)}")
    low, high = (
        members[limit].number(most) if limit in members else default
        for limit, default in (("at_least", least), ("at_most", most))
    )
    if not least <= low <= high:
        raise field.error(f"expected {least:g} <= at_least <= at_most, got {low:g} and {high:g}")
    (kind,) = kinds
    if kind == "uniform":
        ends = members[kind].items()
        if len(ends) != 2 or ends[0].number(most) > ends[1].number(most):
            raise members[kind].expected("two numbers, the lower one first")
        return Distribution(kind, ends[0].number(most), ends[1].number(most), low, high)
    value = members[kind].number(most)
    if kind == "exponential" and not value:
        raise members[kind].expected("a mean above 0")
    return Distribution(kind, value, 0.0, low, high)
