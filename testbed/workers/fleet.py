"""All workers of a run, as the stages of a network and its operator use them; home is one machine among them."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from scenario.machines import HOME, places
from scenario.shape import Shape
from testbed.errors import UserError
from testbed.fibres.echo import echo, one_way_by_echo
from testbed.fibres.fibres import EndsHere, at_the_switches
from testbed.fibres.probe import without_carrier
from testbed.fibres.shapers import DELAY_LINE, NETEM, Netem, Shaper
from testbed.machine.processes import Processes, ProcessFailed, run_tool
from testbed.machine.run_directory import RunDirectory
from testbed.planning.plan import LinkPlan, Plan
from testbed.planning.shares import Share, addresses, less_real, shape_less_real, shares, too_short
from testbed.workers.connection import FarPlace
from testbed.workers.transport import Transport, round_trip_ms
from testbed.workers.worker import Worker

_ECHO_S = 10.0  # longer than any probing of a fibre takes
_Shapes = tuple[Shape, Shape]


class Fleet:
    """The workers of `plan`, joined with home; ProcessFailed.

    It is what shapes fibres (`Shaper`) and what measures them (`Ends`), wherever their ends are. `outside`: the file of
    the machine's own network namespace.
    """

    def __init__(self, plan: Plan, run: RunDirectory, processes: Processes, *, outside: str) -> None:
        self._plan = plan
        self._processes = processes
        self._outside = outside
        self._run = run
        self._shares = shares(plan)
        self._addresses = addresses(plan)
        self._at = places(plan.topology.machines, plan.nodes)
        self._built = self._closing = False
        self._gone: set[str] = set()
        self._real_ms: dict[frozenset[str], float] = {}
        self._shaper: Shaper | None = None
        self._here = EndsHere()
        self._workers: dict[str, Worker] = {}

    def assemble(self, shaper: str) -> None:
        """Have all workers, joined by the transport. `shaper`: what can shape fibres here."""
        for machine in self._plan.topology.machines:
            self._workers[machine.name] = Worker(
                machine, self._run, self._processes, outside=self._outside,
                lost=lambda name=machine.name: self._lost(name),  # type: ignore[misc]
            )  # fmt: skip
        self._each(Worker.greet)
        transport = Transport(self._processes, self._outside, self._addresses[HOME])
        offers = self._each(lambda worker: worker.begin(self._addresses[worker.machine.name]))
        for name, worker in self._workers.items():
            transport.join(self._addresses[name], worker.address, offers[name])
            worker.connection.ask(
                "join", inside=self._addresses[HOME], outside=worker.home_address, offered=transport.offer()
            )
        for a, b in itertools.permutations(self._workers.values(), 2):
            name = b.machine.name
            a.connection.ask("join", inside=self._addresses[name], outside=b.address, offered=offers[name])
        kinds = {shaper, *(offer["shaper"] for offer in offers.values())}
        self._measure_paths()
        self.kind = NETEM if kinds == {NETEM} else DELAY_LINE  # what shapes fibres on all of them

    def _each(self, do: Callable[[Worker], Any]) -> dict[str, Any]:
        with ThreadPoolExecutor(len(self._workers)) as pool:
            return dict(zip(self._workers, pool.map(do, self._workers.values()), strict=True))

    def _measure_paths(self) -> None:
        """How long the real paths take over which fibres go; ProcessFailed if one takes longer than a fibre on it."""
        for name, share in self._shares.items():
            for ending in share.endings:
                pair = frozenset((name, ending.far))
                if pair not in self._real_ms:
                    self._real_ms[pair] = self._path_ms(name, ending.far)
        for link in self._plan.links:
            self._check_length(link, (link.link.a_to_b, link.link.b_to_a))
        self._shares = {
            name: replace(
                share,
                endings=tuple(
                    replace(e, link=less_real(e.link, self._real_ms[frozenset((name, e.far))])) for e in share.endings
                ),
            )
            for name, share in self._shares.items()
        }

    def _path_ms(self, a: str, b: str) -> float:
        """The round trip between two machines; ProcessFailed if they do not reach each other."""
        address = self._addresses[b]
        try:
            if a == HOME:
                return round_trip_ms(address)
            found: float = self._workers[a].connection.ask("round_trip", address=address)
            return found
        except ProcessFailed as error:
            raise ProcessFailed(
                f"machines {a} and {b} do not reach each other by WireGuard ({error}): does UDP pass between them, at"
                " the addresses where SSH servers are? if not, say which by 'address'"
            ) from None

    def _check_length(self, link: LinkPlan, shapes: _Shapes) -> None:
        ends = self._ends(link)
        if ends[0] != ends[1] and (why := too_short(link.link.name, shapes, ends, self._real_ms[frozenset(ends)])):
            raise ProcessFailed(why)

    def _ends(self, link: LinkPlan) -> tuple[str, str]:
        """The machines at the ends of a fibre."""
        return self._at[link.link.a], self._at[link.link.b]

    @property
    def home(self) -> Share:
        """What is built here, with real paths taken off."""
        return self._shares[HOME]

    @property
    def addresses(self) -> Mapping[str, str]:
        """Of machines, among one another."""
        return self._addresses

    def build(self) -> None:
        """Have all workers build their shares."""
        self._each(
            lambda worker: worker.connection.ask(
                "build", share=self._shares[worker.machine.name].to_json(), shaper=self.kind, addresses=self._addresses
            )
        )
        self._built = True

    def connect(self) -> None:
        """Have their switches look for the controller."""
        address, ports = self._addresses[HOME], self._plan.openflow_ports
        self._each(lambda worker: worker.connection.ask("connect", address=address, ports=ports))
        self._each(self._check_light)

    def _check_light(self, worker: Worker) -> None:
        if dark := worker.connection.ask("dark"):
            raise ProcessFailed(f"machine {worker.machine.name}: no carrier on {', '.join(dark)}")

    def start_passages(self, identities: Mapping[Identity, Credentials]) -> None:
        """Have QC blocks reach the nodes that are elsewhere, from now on; returns when they can."""
        started = []
        for name, worker in self._workers.items():
            nodes = {node: str(self._run.make(f"nodes/{node}")) for node, at in self._at.items() if at == name}
            document = {
                "credentials": identities[Identity(Role.MACHINE, name)].to_config(),
                "listen": self._addresses[name], "nodes": nodes,
            }  # fmt: skip
            config = self._run.write(f"config/passage-{name}.json", document)
            started.append(
                self._processes.component(f"passage-{name}", _PASSAGE, config, inside=worker.place(None))
            )
        to = {
            node: {"folder": str(self._run.make(f"nodes/{node}")), "machine": at, "address": self._addresses[at]}
            for node, at in self._at.items() if at != HOME
        }  # fmt: skip
        document = {"credentials": identities[Identity(Role.MACHINE, HOME)].to_config(), "to": to}
        config = self._run.write("config/passage.json", document)
        for process in [*started, self._processes.component("passage", _PASSAGE, config)]:
            process.wait_ready()

    def place(self, node: str) -> FarPlace | None:
        """Where components of a datacenter run; None: here."""
        return None if self._at[node] == HOME else self._workers[self._at[node]].place(node)

    def shape_by(self, shaper: Shaper) -> Shaper:
        """What shapes all fibres, where `shaper` shapes those of this machine."""
        self._shaper = shaper
        return self

    def apply(self, plan: LinkPlan, *, before: _Shapes, after: _Shapes) -> None:
        """As `Shaper` has it."""
        ends = self._ends(plan)
        if ends[0] != ends[1]:
            self._check_length(plan, after)
            real_ms = self._real_ms[frozenset(ends)]
            before, after = (
                (shape_less_real(there, real_ms), shape_less_real(back, real_ms)) for there, back in (before, after)
            )
            if self.kind == NETEM:
                for machine, port, shape in zip(ends, (plan.port_a, plan.port_b), after, strict=True):
                    if machine == HOME:
                        Netem().shape_port(port, shape)
                    else:
                        self._workers[machine].connection.ask("shape_port", port=port, shape=shape.to_json())
                return
        if ends[0] == HOME:
            assert self._shaper is not None  # noqa: S101 - there is a network before anybody changes it
            self._shaper.apply(plan, before=before, after=after)
        else:
            old, new = ([shape.to_json() for shape in shapes] for shapes in (before, after))
            self._workers[ends[0]].connection.ask("shape", fibre=plan.link.name, before=old, after=new)

    def one_way_ms(self, link: LinkPlan, shapes: _Shapes) -> list[float | None]:
        """As `Ends` has it. Of a fibre between machines the round trip is measured, and halves count for each way."""
        a, b = self._ends(link)
        told = [shape.to_json() for shape in shapes]
        if a == b == HOME:
            return self._here.one_way_ms(link, shapes)
        if a == b:
            found: list[float | None] = self._workers[a].connection.ask("one_way", fibre=link.link.name, shapes=told)
            return found
        if b == HOME:
            threading.Thread(
                target=at_the_switches, args=(lambda: echo(link.port_b, _ECHO_S),), name="echo", daemon=True
            ).start()
        else:
            self._workers[b].connection.ask("echo", port=link.port_b, seconds=_ECHO_S)
        if a == HOME:
            return at_the_switches(lambda: one_way_by_echo(link.port_a, *shapes))
        back: list[float | None] = self._workers[a].connection.ask("by_echo", port=link.port_a, shapes=told)
        return back

    def without_carrier(self, links: Collection[LinkPlan]) -> set[str]:
        """As `Ends` has it."""
        dark = {*at_the_switches(lambda: without_carrier(self.home.ports))}
        for name, worker in self._workers.items():
            dark |= self._dark(name, worker)
        return {link.link.name for link in links if dark & {link.port_a, link.port_b}}

    def _dark(self, name: str, worker: Worker) -> set[str]:
        """Those of its own ports that see no light: all, if it is gone. Of others' it has nothing to say."""
        ports = {*self._shares[name].ports}
        if name in self._gone:
            return ports
        try:
            return ports.intersection(worker.connection.ask("dark"))
        except ProcessFailed:  # it goes at this moment
            return ports

    def here(self, link: LinkPlan) -> bool:
        """As `Ends` has it."""
        return self._ends(link) == (HOME, HOME)

    def set_carrier(self, link: LinkPlan, *, up: bool) -> None:
        """Cut a fibre, or join it, at those of its ends that are on workers; ProcessFailed."""
        for machine, port in zip(self._ends(link), (link.port_a, link.port_b), strict=True):
            if machine != HOME:
                self._workers[machine].connection.ask("carrier", ports=[port], up=up)

    def _lost(self, name: str) -> None:
        """A machine is gone: the other ends of its fibres go dark."""
        self._gone.add(name)
        if self._closing or not self._built:
            return
        for other, share in self._shares.items():
            ports = [ending.port for ending in share.endings if ending.far == name]
            if other == HOME:
                for port in ports:
                    with contextlib.suppress(ProcessFailed):  # it goes with the network at this moment
                        run_tool("ip", "link", "set", port, "down")
            elif other not in self._gone:
                self._workers[other].connection.begin("carrier", ports=ports, up=False)

    def kill(self, name: str) -> None:
        """Kill all that runs on a worker, have home what it leaves on its disk, and end the worker; UserError."""
        worker = self._workers.get(name)
        if worker is None:
            raise UserError(f"fault machine: no machine {name!r}: expected one of {', '.join(self._workers)}")
        if not worker.process.alive():
            raise UserError(f"fault machine {name}: it is gone already")
        for component in worker.components():
            self._processes.named(component).kill()
        try:
            worker.finish()
        except ProcessFailed as error:
            raise UserError(f"fault machine {name}: {error}") from None
        finally:
            worker.process.kill()

    def finish(self) -> list[str]:
        """Have the results of all workers at home; of one that is gone, what came before. Of one that does not send its
        own, a line that says why: the audit then says of its nodes that their accounts are missing.
        """
        found = []
        for name, worker in self._workers.items():
            if name not in self._gone:
                try:
                    worker.finish()
                except ProcessFailed as error:
                    found.append(str(error))
        return found

    def close(self) -> None:
        """End all workers."""
        self._closing = True
        for worker in self._workers.values():
            worker.close()


_PASSAGE = "testbed.workers.passage"
