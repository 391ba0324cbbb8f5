"""What a storm does and when: gusts of a few faults at once, drawn from a seed. PURE.

A gust depends on the seed and its number alone, but for the key sessions, which earlier gusts opened and ended: what
is open before a gust is told with it, so that it can be raised again alone.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from decisions.modes import MODES
from scenario.topology_description import Link
from scenario.workload import Pairs
from testbed.planning.databases import SINGLE
from testbed.planning.fault import PRIMARY
from testbed.planning.plan import Plan, process_of

KILL, PAUSE, ONE_WAY, CUT, QC, DEVICE = "kill", "pause", "one-way", "cut", "qc", "device"
DISK, STANDBY, SET, OPEN, END, PARTITION = "disk", "standby", "set", "open", "end", "partition"
# Of real devices, where QCs have them: their KME at one end is killed, its answers come late, or nothing comes through.
DEVICE_KILL, DEVICE_SLOW, DEVICE_CUT = OF_DEVICES = "device-kill", "device-slow", "device-cut"
# How often each is drawn, in relation to the others: STANDBY where the database fails over by hand, PARTITION where it
# does so by itself.
WEIGHTS = {
    KILL: 21, PAUSE: 21, ONE_WAY: 10, CUT: 7, QC: 4, DEVICE: 6, DISK: 7, STANDBY: 4, SET: 8, OPEN: 7, END: 5,
    PARTITION: 7, DEVICE_KILL: 12, DEVICE_SLOW: 8, DEVICE_CUT: 8,
}  # fmt: skip
CONTROLLER, DATABASE, QCS = "controller", "postgres", "qcs"
HOST = "database"  # one of several hosts of the database
_APPLICATIONS = "sae-"  # and the datacenter

_FEWEST, _MOST = 2, 5
_WITHIN_S = 2.0  # all faults of a gust begin
_SHORTEST_S = 0.1
_LONGEST_S = {
    KILL: 6.0, ONE_WAY: 12.0, CUT: 10.0, QC: 10.0, DEVICE: 10.0, DISK: 10.0, STANDBY: 8.0, SET: 4.0, PARTITION: 15.0,
    DEVICE_KILL: 8.0, DEVICE_SLOW: 12.0, DEVICE_CUT: 12.0,
}  # fmt: skip
_STANDING = 4
# Those in which a session of any two datacenters on a ring can get keys.
_MODES = sorted(name for name, mode in MODES.items() if mode.paths <= 2)
_MOST_SESSIONS = 8
# What a parameter is set to, for as long as the fault lasts.
_PARAMETERS: dict[str, tuple[int, ...]] = {"ttl_slots": (8, 11, 20, 30), "keys_ahead": (1, 2, 8)}
RATE, GENERATION = "rate", "generation"

Pair = tuple[str, str]  # names of two applications: master, slave


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault of a gust: begins `at_s` after the gust, lasts `for_s` (0: is done at once), both in seconds.

    `on`: a process, or CONTROLLER or HOST and which one of several (PRIMARY, STANDBY or its name); two datacenters for
    the fibre between them (one-way: what the first sends to the second is lost; of a real device: the KME next to the
    first); a disk; a parameter and its value, with the QC's name between if it is a QC's; two applications.
    """

    kind: str
    on: tuple[str, ...]
    at_s: float
    for_s: float

    def __str__(self) -> str:
        lasting = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.kind} {' '.join(self.on)} at {self.at_s:.1f}{lasting}"


@dataclass(frozen=True, slots=True)
class Gust:
    """Faults that come together while the network makes keys in `mode`; `before` are the key sessions open then."""

    number: int
    mode: str
    before: tuple[Pair, ...]
    blows: tuple[Blow, ...]

    @property
    def after(self) -> tuple[Pair, ...]:
        """The key sessions that are to be open once all is over."""
        ended = {b.on for b in self.blows if b.kind == END}
        return tuple(p for p in self.before if p not in ended) + tuple(
            (b.on[0], b.on[1]) for b in self.blows if b.kind == OPEN
        )


def storm(plan: Plan, seed: int, faults: int, longest_s: float) -> list[Gust]:
    """Gusts until there are at least that many faults, none of which lasts longer than `longest_s` seconds."""
    found: list[Gust] = []
    number = 0
    for gust in gusts(plan, seed, longest_s):
        if number >= faults:
            break
        found.append(gust)
        number += len(gust.blows)
    return found


def nth(plan: Plan, seed: int, number: int, longest_s: float) -> Gust:
    """The gust of that number, from 1."""
    return next(itertools.islice(gusts(plan, seed, longest_s), number - 1, None))


def gusts(plan: Plan, seed: int, longest_s: float) -> Iterator[Gust]:
    """The gusts of a seed, one after the other, without an end."""
    pairs = [(master.name, slave.name) for master, slave in Pairs(plan.saes)]
    standing = tuple(random.Random(f"{seed}").sample(pairs, min(_STANDING, len(pairs))))  # noqa: S311 - no secret
    for number, mode in zip(itertools.count(1), itertools.cycle(_MODES)):
        gust = _Draw(plan, random.Random(f"{seed}/{number}"), pairs, standing, longest_s).gust(number, mode)  # noqa: S311
        yield gust
        standing = gust.after


def forgotten(plan: Plan, killed: Collection[str], pairs: Iterable[Pair]) -> list[Pair]:
    """Those of `pairs` whose key session one of the two knows no more, since its process is among those killed."""
    victims = {sae.name for sae in plan.applications if f"{_APPLICATIONS}{sae.node}" in killed}
    return [pair for pair in pairs if not victims.isdisjoint(pair)]


@dataclass(slots=True)
class _Draw:
    """Draws one gust. Nothing is hit twice in it: what a second fault did to it could not be told."""

    plan: Plan
    random: random.Random
    pairs: Sequence[Pair]
    standing: tuple[Pair, ...]
    longest_s: float
    hit: set[tuple[str, ...]] = field(default_factory=set)

    def gust(self, number: int, mode: str) -> Gust:
        wanted = self.random.randint(_FEWEST, _MOST)
        blows: list[Blow] = []
        while len(blows) < wanted:
            without = [PARTITION if self.plan.database == SINGLE else STANDBY]
            without += [] if self._fibres(real=True) else OF_DEVICES
            without += [] if self._fibres(real=False) else (QC, DEVICE)
            weights = {kind: weight for kind, weight in WEIGHTS.items() if kind not in without}
            kind = self.random.choices(list(weights), list(weights.values()))[0]
            on, *things = self._target(kind)
            begins = round(self.random.uniform(0, _WITHIN_S), 1)
            # One host of several is away for longer than another one takes to take over, as often as not.
            lasts = self._lasts_s(PARTITION if on[:1] == (HOST,) else kind)
            if on and self.hit.isdisjoint(things):
                self.hit.update(things)
                blows.append(Blow(kind, on, begins, lasts))
        return Gust(number, mode, self.standing, tuple(sorted(blows, key=lambda b: b.at_s)))

    def _target(self, kind: str) -> tuple[tuple[str, ...], ...]:
        """What a fault of that kind hits, as Blow has it (empty: nothing), then all that no other may hit beside it."""
        choose = self.random.choice
        if kind in (KILL, PAUSE):
            process = self._process(kind)
            if process[0] == HOST:
                return process, ("process", HOST)
            lost = forgotten(self.plan, process, self.pairs) if kind == KILL else []
            return process, ("process", *process), *(("session", *pair) for pair in lost)
        if kind in (ONE_WAY, CUT, QC, DEVICE, *OF_DEVICES):
            any_fibre = kind in (ONE_WAY, CUT)
            link = choose(self.plan.topology.links if any_fibre else self._fibres(real=kind in OF_DEVICES))
            ends = (link.a, link.b) if self.random.random() < 0.5 else (link.b, link.a)
            return ends, ("fibre", link.a, link.b)
        if kind == DISK:
            disk = choose([*self.plan.nodes, *(process_of(each.name) for each in self.plan.controllers), QCS])
            return (disk,), ("disk", disk)
        if kind == STANDBY:
            return (DATABASE,), ("process", DATABASE)
        if kind == PARTITION:
            return self._host(), ("process", HOST)
        if kind == SET:
            on = self._setting()
            return on, on[:-1]
        return self._session(kind)

    def _process(self, kind: str) -> tuple[str, ...]:
        """A node as often as all others together: it has the most to lose."""
        application = f"{_APPLICATIONS}{self.random.choice(self.plan.nodes)}"
        controllers: list[tuple[str, ...]] = [(CONTROLLER,), (CONTROLLER,)]
        database: list[tuple[str, ...]] = [(DATABASE,)]
        if len(self.plan.controllers) > 1:
            controllers = [(CONTROLLER, PRIMARY), (CONTROLLER, PRIMARY), (CONTROLLER, STANDBY)]
        if self.plan.database != SINGLE:  # whose processes are killed together, or cut off
            database = [self._host()] if kind == KILL else []
        others = [*controllers, *database, (QCS,), (application,)]
        nodes = [(f"node-{node}",) for node in self.plan.nodes]
        return self.random.choice(nodes if self.random.random() < 0.5 else others)

    def _host(self) -> tuple[str, str]:
        """One of the hosts of the database; that which takes writes as often as all others together."""
        return HOST, self.random.choice([PRIMARY, PRIMARY, STANDBY, *self.plan.database_hosts[2:]])

    def _fibres(self, *, real: bool) -> Sequence[Link]:
        """Those whose QCs have real devices, or emulated ones."""
        return [link for link in self.plan.topology.links if any(qc.source is not None for qc in link.qcs) == real]

    def _setting(self) -> tuple[str, ...]:
        choose, emulated = self.random.choice, self._fibres(real=False)
        name = choose([*_PARAMETERS, *([RATE] if emulated else ()), GENERATION])
        if name in _PARAMETERS:
            return name, str(choose(_PARAMETERS[name]))
        qc = choose([qc for link in (emulated if name == RATE else self.plan.topology.links) for qc in link.qcs])
        return name, qc.name, "off" if name == GENERATION else f"{qc.low_bytes_per_slot // 2}-{qc.high_bytes_per_slot}"

    def _session(self, kind: str) -> tuple[tuple[str, ...], ...]:
        if kind == END:
            found: Sequence[Pair] = self.standing
        else:
            room = len(self.standing) < _MOST_SESSIONS
            found = [p for p in self.pairs if p not in self.standing] if room else []
        pair = self.random.choice(found) if found else ()
        return pair, ("session", *pair)

    def _lasts_s(self, kind: str) -> float:
        if kind == PAUSE:  # as often between 0.1 and 1 s as between 3 and 30 s
            return round(math.exp(self.random.uniform(math.log(_SHORTEST_S), math.log(self.longest_s))), 1)
        if kind not in _LONGEST_S:
            return 0.0
        return round(self.random.uniform(_SHORTEST_S, min(_LONGEST_S[kind], self.longest_s)), 1)
