"""What a worker does as home asks: builds its share of a network, and runs the processes of its nodes."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scenario.shape import Shape
from testbed.fibres.echo import echo, one_way_by_echo
from testbed.fibres.probe import one_way_ms, without_carrier
from testbed.fibres.shapers import NETEM, DelayLineControl, Netem, find_shaper
from testbed.machine import namespaces
from testbed.machine.open_vswitch import OpenVSwitch
from testbed.machine.processes import Process, Processes, ProcessFailed, run_tool
from testbed.machine.run_directory import RunDirectory
from testbed.network.fabric import Network
from testbed.planning.capacity import allow_files
from testbed.planning.plan import COMPONENTS, delay_lines
from testbed.planning.shares import Share, share_from_json
from testbed.workers.hello import clocks
from testbed.workers.tails import Tails
from testbed.workers.transport import Transport, round_trip_ms

_LOOK_S = 0.1
_FILES, _FEWEST_FILES = 4096, 1024
Tell = Callable[[Mapping[str, Any]], None]


class ShareBuilder:
    """The share of one run; whatever is public may be asked for. `tell` sends home what comes without being asked for.

    `outside`: the file of the machine's own network namespace. `folder`: where run directories are, in memory.
    """

    def __init__(self, outside: str, folder: Path, tell: Tell) -> None:
        self._outside = outside
        self._folder = folder
        self._tell = tell
        self._machine = ""
        self._components: dict[str, Process] = {}
        self._told_ended: set[Process] = set()
        self._looking = threading.Lock()

    def clock(self) -> dict[str, float]:
        """What the clocks say here."""
        return clocks()

    def begin(self, run: str, machine: str, address: str) -> dict[str, Any]:
        """Have a run directory, processes, switches without ports and an end of the transport; what home must know."""
        allow_files(_FILES, at_least=_FEWEST_FILES, what="a worker")
        self._machine = machine
        namespaces.mount_memory(self._folder)
        path = self._folder / run
        path.mkdir(mode=0o700)
        self._run = RunDirectory(path, run, -1)
        self._processes = Processes(self._run.make("logs"), COMPONENTS)
        self._processes.prepare()
        self._tails = Tails(path, machine, self._tell)
        run_tool("ip", "link", "set", "lo", "up")
        self._transport = Transport(self._processes, self._outside, address)
        self._datapath = OpenVSwitch(path / "ovs", self._processes).start()
        threading.Thread(target=self._follow, name="follow", daemon=True).start()
        held = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return {"directory": str(path), "descriptor": held, "shaper": find_shaper(), **self._transport.offer()}

    def join(self, inside: str, outside: str, offered: Mapping[str, Any]) -> None:
        """Have another machine for a peer."""
        self._transport.join(inside, outside, offered)

    def round_trip(self, address: str) -> float:
        """The median round trip to another machine by its address inside, in ms."""
        return round_trip_ms(address)

    def build(self, share: Mapping[str, Any], shaper: str, addresses: Mapping[str, str]) -> None:
        """Hosts, switches and fibres, shaped."""
        self._share: Share = share_from_json(share)
        self._network = Network(self._share, shaper=shaper, datapath=self._datapath, addresses=addresses)
        self._network.build()
        self._shaper: Netem | DelayLineControl = Netem()
        if shaper != NETEM:
            answer = str(self._run.path / "config" / "delay-line-answer.json")
            document = delay_lines(self._share.lines, answer)
            config = self._run.write("config/delay-line.json", document)
            process = self._processes.component(
                "delay-line", "testbed.fibres.delay_line", config, inside=self._network.delay_line_pid
            )
            process.wait_ready()
            self._shaper = DelayLineControl(
                process, lambda wanted: self._run.write("config/delay-line.json", wanted), document
            )

    def connect(self, address: str, ports: list[int]) -> None:
        """Have the switches look for their controllers at that address."""
        self._network.connect(address, ports)

    def dark(self) -> list[str]:
        """The ends of fibres here that see no light."""
        return without_carrier(self._share.ports)

    def one_way(self, fibre: str, shapes: list[Mapping[str, Any]]) -> list[float | None]:
        """The delays both ways of a fibre between datacenters here, in ms."""
        link = next(link for link in self._share.links if link.link.name == fibre)
        there, back = (Shape(**shape) for shape in shapes)
        return [one_way_ms(link.port_a, link.port_b, there), one_way_ms(link.port_b, link.port_a, back)]

    def echo(self, port: str, seconds: float) -> None:
        """Echo probes at that end of a fibre from now on."""
        threading.Thread(target=echo, args=(port, seconds), name="echo", daemon=True).start()

    def by_echo(self, port: str, shapes: list[Mapping[str, Any]]) -> list[float | None]:
        """The delays both ways of a fibre that begins here, and at whose far end probes are echoed, in ms."""
        there, back = (Shape(**shape) for shape in shapes)
        return one_way_by_echo(port, there, back)

    def shape(self, fibre: str, before: list[Mapping[str, Any]], after: list[Mapping[str, Any]]) -> None:
        """Give a fibre that is shaped here other shapes, both ways."""
        link = next(line for line in self._share.lines if line.link.name == fibre)
        old, new = ((Shape(**there), Shape(**back)) for there, back in (before, after))
        self._shaper.apply(link, before=old, after=new)

    def shape_port(self, port: str, shape: Mapping[str, Any]) -> None:
        """Shape what leaves by a port, by netem."""
        Netem().shape_port(port, Shape(**shape))

    def carrier(self, ports: list[str], up: bool) -> None:
        """Cut ends of fibres, or join them."""
        for port in ports:
            run_tool("ip", "link", "set", port, "up" if up else "down")

    def write(self, name: str, data: str) -> None:
        """A private file of the run directory, in base64; what was there is replaced."""
        path = self._run.path / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(base64.b64decode(data))

    def start(self, name: str, module: str, config: str, host: str | None) -> None:
        """Start a component, or start it anew; that it is ready, and that it has ended, is told."""
        kind, _, of = name.partition("-")
        if kind in ("node", "sae"):
            self._run.make(f"{kind}s/{of}")
        if name in self._components:
            process = self._processes.restart(name)
        else:
            inside = None if host is None else self._network.pid(host)
            process = self._processes.component(name, module, self._run.path / config, inside=inside)
        with self._looking:
            self._components[name] = process
        threading.Thread(target=self._await, args=(name, process), name=f"await-{name}", daemon=True).start()

    def signal(self, name: str, number: int) -> None:
        """Send a component a signal, if it runs."""
        process = self._components[name]
        if process.alive():
            os.kill(process.pid, number)

    def finish(self) -> None:
        """Send home all that is left to be sent, now that no component runs."""
        with self._looking:
            self._tails.follow()
            self._tails.whole("nodes/*/local.db*")

    def _await(self, name: str, process: Process) -> None:
        try:
            process.wait_ready()
        except ProcessFailed:  # its end is told
            return
        self._tell({"ready": name})

    def _follow(self) -> None:
        """For as long as the run lasts."""
        while True:
            time.sleep(_LOOK_S)
            with self._looking:
                ended = [
                    (name, process) for name, process in self._components.items()
                    if process not in self._told_ended and not process.alive()
                ]  # fmt: skip
                self._tails.follow()  # last words, too
                for name, process in ended:
                    self._told_ended.add(process)
                    self._tell({"ended": name, "status": process.status})
