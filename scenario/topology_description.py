"""What a topology is: nodes, the links between them with their quantum channels, and applications. Frozen values.

Out of a file come `Field`s: values, each with its place in it, and the checks that any of them may have to pass. A
check returns the value with its type or raises TopologyError. Text ends up on terminals, so neither values nor errors
keep control characters.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import networkx as nx

from decisions.choice import OnDemand
from decisions.parameters import MOST_RATE
from decisions.tunnels import EVERY_S, KINDS, POLICIES
from documents.checks import Malformed
from etsi.gs014 import Limits
from etsi.sae_id import LONGEST, sae_id
from scenario.machines import Machine
from scenario.quantum.qc_models import Blocks, Model, Uniform
from scenario.shape import MAX_DELAY_MS, Shape

NAME_LENGTH = 31
# Names of nodes become host names, and a DNS label may not end in a hyphen.
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


class TopologyError(ValueError):
    """A topology that cannot be used: one line made of `parts`, which are the file, the field if any, the problem."""

    def __init__(self, *parts: str) -> None:
        super().__init__(one_line(": ".join(part for part in parts if part)))


@dataclass(frozen=True, slots=True)
class Field:
    """A value and where it stands: `path` reads like `links[2].b` (counted from 0) and is empty for the whole file."""

    source: str
    path: str
    value: object

    def error(self, problem: str) -> TopologyError:
        return TopologyError(self.source, self.path, problem)

    def expected(self, what: str) -> TopologyError:
        return self.error(f"expected {what}, got {_shown(self.value)}")

    def members(self, *required: str, **optional: object) -> dict[str, Field]:
        """The members of a mapping by name: those that the file gives and those with a default other than None."""
        allowed = [*required, *optional]
        if not isinstance(self.value, dict):
            raise self.expected(f"a mapping with the members {', '.join(allowed)}")
        for name in self.value:
            if name not in allowed:
                raise self.error(f"unknown member {_shown(name)}; {choice(name, allowed, 'allowed')}")
        for name in required:
            if name not in self.value:
                raise self._inner(f".{name}", None).error("missing, and it is required")
        found = {name: default for name, default in optional.items() if default is not None} | self.value
        return {name: self._inner(f".{name}", value) for name, value in found.items()}

    def items(self) -> list[Field]:
        if not isinstance(self.value, list):
            raise self.expected("a list")
        return [self._inner(f"[{index}]", item) for index, item in enumerate(self.value)]

    def text(self) -> str:
        """Text for people, made one line."""
        if not isinstance(self.value, str):
            raise self.expected("text (in quotes, if it looks like something else)")
        return one_line(self.value)

    def name(self, longest: int = NAME_LENGTH) -> str:
        if not isinstance(self.value, str) or len(self.value) > longest or not _NAME.fullmatch(self.value):
            rule = "characters a-z, 0-9 and inner hyphens that starts with a letter"
            raise self.expected(f"a name of 1 to {longest} {rule}")
        return self.value

    def sae_id(self) -> str:
        """An SAE's ID, in whatever letters it is written."""
        try:
            return sae_id(self.value, self.path)
        except Malformed:
            what = f"1 to {LONGEST} printable characters (in quotes, if they look like a number)"
            raise self.expected(what) from None

    def one_of(self, names: Collection[str]) -> str:
        """A reference to a node."""
        if not isinstance(self.value, str) or self.value not in names:
            raise self.error(f"unknown node {_shown(self.value)}; {choice(self.value, names, 'nodes')}")
        return self.value

    def number(self, maximum: float, minimum: float = 0) -> float:
        # bool is a subclass of int in Python, but `true` is no number in anyone's file. NaN fails the comparison.
        number = None if isinstance(self.value, bool) or not isinstance(self.value, int | float) else self.value
        if number is None or not minimum <= number <= maximum:
            raise self.expected(f"a plain number from {minimum:.0f} to {maximum:.0f}")
        return float(number) + 0.0  # the sum makes 0.0 of -0.0

    def whole(self, maximum: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not 0 <= self.value <= maximum:
            raise self.expected(f"a whole number from 0 to {maximum}")
        return self.value

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.expected("true or false")
        return self.value

    def _inner(self, step: str, value: object) -> Field:
        return Field(self.source, f"{self.path}{step}".removeprefix("."), value)


def check_distinct(fields: Iterable[Field]) -> None:
    """Refuses a text that stands in two of the fields."""
    first: dict[str, str] = {}
    for each in fields:
        other = first.setdefault(str(each.value), each.path)
        if other != each.path:
            raise each.error(f"duplicate {_shown(each.value)}, already used by {other}")


def free_name(base: str, taken: Collection[str]) -> str:
    """`base`, or the first of `base-2`, `base-3`, ... that is free."""
    names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def choice(wrong: object, allowed: Collection[str], label: str) -> str:
    """What might have been meant, and what there is to choose from."""
    close = difflib.get_close_matches(wrong[:80], allowed, n=1) if isinstance(wrong, str) else []
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}{label}: {', '.join(list(allowed)[:20])}{', ...' if len(allowed) > 20 else ''}"


def csv_number(text: str | None, where: str, most: float) -> float:
    """A number from 0 to `most` out of a CSV file; TopologyError. `where`: file, line and column, as one reads them."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise TopologyError(f"{where}: expected a number from 0 to {most:g}, got {text!r:.40}")
    return value


def one_line(text: str) -> str:
    """The text with every run of blanks and unprintable characters made one blank."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _shown(value: object) -> str:
    """A value as an error shows it: in the words of YAML, and short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a truth value (as YAML reads true, yes and on, false, no and off, unless in quotes)"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**18:  # Python refuses to print thousands of digits
        return "a huge number"
    return repr(value[:40] + "..." if isinstance(value, str) and len(value) > 40 else value)[:60]


@dataclass(frozen=True, slots=True)
class Node:
    """A datacenter with its SD-QKD node, drawn at `position`: x to the right and y upwards, both from 0 to 1.

    `modules`: how many QKD modules it has, those of its fibres' QCs among them; None if nobody counts them.
    """

    name: str
    title: str
    position: tuple[float, float]
    modules: int | None = None


@dataclass(frozen=True, slots=True)
class Gs014End:
    """One end of a QKD device: its KME there, and as which SAE, with which files, the node there calls it."""

    url: str
    sae_id: str
    certificate: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Gs014:
    """A device whose KMEs speak GS QKD 014, by node; `number` keys of `size_bits` are asked for every `every_s`."""

    ends: Mapping[str, Gs014End]
    number: int
    size_bits: int
    every_s: float


@dataclass(frozen=True, slots=True)
class Qc:
    """A quantum channel, named `LINK/1` and so on. In each slot of 1 s it makes low to high bytes, both included.

    All numbers between these are alike, unless a `model` says what it makes; then they are the least and the most.
    `source`: the device that makes it in a run; then the model says what that is asked for.
    """

    name: str
    low_bytes_per_slot: int
    high_bytes_per_slot: int
    model: Model | None = None
    source: Gs014 | None = None

    @property
    def makes(self) -> Model:
        """The model that it follows, also where none is named."""
        return self.model or Uniform(self.low_bytes_per_slot, self.high_bytes_per_slot)

    @property
    def mean_bytes_per_slot(self) -> float:
        """What it makes in the mean."""
        return self.makes.mean_bytes_per_s


@dataclass(frozen=True, slots=True)
class Link:
    """A fibre between the nodes `a` and `b`, with its classical channel and the quantum channels that are always lit.

    Each direction has a shape of its own. `length_km` is None where the file gives a delay alone, and so is `loss_db`,
    the loss of light in it, where neither it nor a device says.
    """

    name: str
    a: str
    b: str
    length_km: float | None
    a_to_b: Shape
    b_to_a: Shape
    qcs: tuple[Qc, ...]
    loss_db: float | None = None

    @property
    def rtt_ms(self) -> float:
        """The delay there and back."""
        return self.a_to_b.delay_ms + self.b_to_a.delay_ms


@dataclass(frozen=True, slots=True)
class Switched:
    """A QC between the nodes `a` and `b` that is lit on demand. Then it takes a QKD module at both of them, and a
    channel of each of `fibres`, which its light goes through.

    The light goes past the nodes `past`, which only switch it: an optical bypass, if there are any. The QC makes key
    `setup_s` seconds after it was lit.
    """

    qc: Qc
    a: str
    b: str
    past: tuple[str, ...]
    fibres: tuple[str, ...]
    loss_db: float
    setup_s: float

    @property
    def takes(self) -> tuple[str, ...]:
        """What it takes one of, as `Topology.spare` calls it."""
        return module_of(self.a), module_of(self.b), *map(channel_of, self.fibres)


def module_of(node: str) -> str:
    """What a node's QKD modules are called, where they are counted."""
    return f"module of {node}"


def channel_of(fibre: str) -> str:
    """What a fibre's channels for QCs are called, where they are counted."""
    return f"channel of {fibre}"


@dataclass(frozen=True, slots=True)
class Sae:
    """A secure application and the node that it sits at; `id` is None unless the file fixes it.

    An `external` one is somebody else's software, which this network only knows and certifies.
    """

    name: str
    node: str
    id: str | None = None
    external: bool = False


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel between the hosts of two nodes, of which `a` leads: see `decisions.tunnels`."""

    a: str
    b: str
    kind: str = KINDS[0]
    every_s: float = EVERY_S
    policy: str = POLICIES[0]


@dataclass(frozen=True, slots=True)
class Topology:
    """A connected network with SAEs at two nodes at least; all parts are in the file's order.

    `controller_at` and the like name the nodes that hosts hang at (None: as planned). `limits` are those of all KMEs:
    bits of keys, keys a request. `tunnels` are opened when the network is up. `switched`: the QCs that can be lit on
    demand; `spare`: how many modules and channels there are for them, by name. `machines`: those beside home.
    """

    name: str
    description: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    saes: tuple[Sae, ...]
    controller_at: str
    database_at: str
    limits: Limits = field(default_factory=Limits)
    tunnels: tuple[Tunnel, ...] = ()
    switched: tuple[Switched, ...] = ()
    spare: tuple[tuple[str, int], ...] = ()
    machines: tuple[Machine, ...] = ()
    controller2_at: str | None = None
    database2_at: str | None = None
    database3_at: str | None = None

    def qcs(self) -> Iterator[tuple[Qc, str, str]]:
        """Every QC with the nodes at its ends: those of the fibres, and then those that are lit on demand."""
        yield from ((qc, link.a, link.b) for link in self.links for qc in link.qcs)
        yield from ((one.qc, one.a, one.b) for one in self.switched)

    def qcs_over(self, fibre: str) -> list[str]:
        """The names of the QCs whose light takes that fibre."""
        own = [qc.name for link in self.links if link.name == fibre for qc in link.qcs]
        return own + [one.qc.name for one in self.switched if fibre in one.fibres]

    def on_demand(self) -> list[OnDemand]:
        """The QCs that can be lit, as decisions know them."""
        return [OnDemand(one.qc.name, one.a, one.b, one.past, one.takes) for one in self.switched]

    def with_overrides(
        self, *, delay_ms: float | None = None, qc_rate: tuple[int, int] | None = None, blocks_s: float | None = None
    ) -> Topology:
        """The same network with another delay on every link, another rate on every QC, its key in blocks, or all that.

        `delay_ms` is one way; lengths stay. `qc_rate`: the lowest and the highest number of bytes a slot. `blocks_s`:
        what a QC makes in so many seconds in the mean comes all at once. QCs of devices stay as they are.
        TopologyError for a value that a file could not have had either.
        """
        links = self.links
        if delay_ms is not None:
            delay = Field(self.name, "delay_ms", delay_ms).number(MAX_DELAY_MS)
            links = tuple(
                replace(link, a_to_b=replace(link.a_to_b, delay_ms=delay), b_to_a=replace(link.b_to_a, delay_ms=delay))
                for link in links
            )
        if qc_rate is not None:
            low, high = checked_rate(*Field(self.name, "qc_rate", list(qc_rate)).items())
            links = _with_qcs(links, lambda qc: Qc(qc.name, low, high))
        if blocks_s is not None:
            links = _with_qcs(links, lambda qc: _in_blocks(qc, blocks_s))
        return replace(self, links=links)

    def graph(self) -> nx.MultiGraph[str]:
        """A new multigraph: nodes with `title` and `position`, links keyed by name with `link`."""
        graph: nx.MultiGraph[str] = nx.MultiGraph(name=self.name)
        for node in self.nodes:
            graph.add_node(node.name, title=node.title, position=node.position)
        for link in self.links:
            graph.add_edge(link.a, link.b, key=link.name, link=link)
        return graph


def _with_qcs(links: tuple[Link, ...], other: Callable[[Qc], Qc]) -> tuple[Link, ...]:
    """The links with other QCs in place of those that are emulated."""
    found = (tuple(qc if qc.source is not None else other(qc) for qc in link.qcs) for link in links)
    return tuple(replace(link, qcs=qcs) for link, qcs in zip(links, found, strict=True))


def _in_blocks(qc: Qc, every_s: float) -> Qc:
    n_bytes = round(qc.mean_bytes_per_slot * every_s)
    return Qc(qc.name, 0, n_bytes, Blocks(n_bytes, every_s))


def checked_rate(low: Field, high: Field) -> tuple[int, int]:
    """The lowest and the highest number of bytes a slot, checked one by one and then against each other."""
    lowest, highest = low.whole(MOST_RATE), high.whole(MOST_RATE)
    if lowest > highest:
        raise low.expected(f"at most the highest number of bytes, which is {highest}")
    return lowest, highest
