"""One run inside its namespaces: bring the network up, have applications exchange keys, sum up, take it down."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decisions.modes import MODES, ahead
from etsi.gs004 import QoS
from scenario.workload import Arrival
from testbed import audit
from testbed.dashboard import address
from testbed.database.shared_database import UserDatabase
from testbed.errors import Stopped, UserError
from testbed.evidence import summary as measure
from testbed.machine.isolation import undisturbed
from testbed.machine.run_directory import RunDirectory
from testbed.network.emulation import Emulation
from testbed.network.expose import check_ports
from testbed.network.workload_player import OfferedLoad
from testbed.operation.client import FILE
from testbed.operation.console import QkdCLI, link_table
from testbed.operation.operator import Operator
from testbed.operation.server import OperatorSocket
from testbed.operation.tables import table
from testbed.planning.plan import Plan, SaePlan
from testbed.planning.round_trips import too_long
from testbed.stages.bring_up import bring_up
from testbed.stages.prepare import Wishes

_PROGRESS_S, _LOOK_S = 5.0, 1.0
REACHED = "in the background:"  # how the last line begins that whoever detached a run waits for


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Whether there is a page, and at which port; None: the usual one, or whatever is free."""

    on: bool = False
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked of a run, beyond the network itself."""

    parameters: Mapping[str, Any]  # of the controller, at the start
    policies: Mapping[str, str]  # of the user's own, FILE.py:NAME by parameter
    arrivals: Sequence[Arrival[SaePlan]]  # the key sessions to open
    habits: Mapping[str, str]  # of the applications
    duration_s: float | None
    seed: int
    workload: str | None  # its name, if it has one
    seeded_qcs: bool
    cli: bool
    expose: int | None  # the first port, see testbed.network.expose
    controller_python: str  # runs the controller, see testbed.machine.tools
    dashboard: Dashboard
    detached: bool = False  # from whoever started it, once the network is up
    owner: int = 0  # the user who may operate it beside root

    def check(self, plan: Plan) -> None:
        """UserError if `plan` cannot satisfy these options."""
        if self.expose is not None:
            check_ports(plan, self.expose)
        if self.dashboard.on:
            address.check(self.dashboard.port)
        why = too_long(plan.round_trip_s, self.parameters["ttl_slots"])
        if why is not None:
            raise UserError(why)


def run(
    plan: Plan, directory: RunDirectory, options: Options, *, outside: int, user_database: UserDatabase | None
) -> int:
    """One run; the exit status."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    print(f"{plan.topology.name}: {plan.topology.description or 'a QKD network'}; run directory {directory.path}")
    wishes = Wishes(
        options.parameters, options.seed if options.seeded_qcs else None, options.habits, user_database,
        options.expose, options.controller_python, _first_bytes(options),
        options.policies,
    )  # fmt: skip
    down = contextlib.ExitStack()
    facts: dict[str, Any] = {}
    try:
        emulation = bring_up(plan, directory, wishes, outside=outside, say=say, down=down)
        print("\n" + link_table(emulation))
        say("the network is up")
        facts = {
            "links": [
                {"name": m.name, "configured_rtt_ms": m.configured_rtt_ms, "measured_rtt_ms": m.measured_rtt_ms}
                for m in emulation.links
            ],
            "shaper": emulation.shaper,
            "datapath": emulation.datapath,
            "versions": emulation.versions(),
            "died": [],
        }
        with contextlib.ExitStack() as faces:
            faces.enter_context(_page(emulation, options.dashboard, say))
            operator = faces.enter_context(_operated(emulation, options.owner))
            with _until_stopped():
                _work(emulation, options, operator, say)
        facts["died"] = [f"{p.name}: {p.last_words()}" for p in emulation.dead()]
    finally:
        with undisturbed():
            say("taking everything down")
            down.close()
            if facts:
                events = measure.read_run(directory.path, *measure.SUMMARISED)
                summary: dict[str, Any] = {
                    "topology": plan.topology.name,
                    "parameters": dict(options.parameters),
                    **measure.summarise(events),
                    "why_no_keys": measure.why_no_keys(events),
                    **facts,
                    "seed": options.seed,
                    "workload": options.workload,
                    "bugs": measure.bugs_told(directory.path / "logs"),
                    "audit": _audit(directory.path),
                }
                written = _write(directory.path / "summary.json", summary, say)
                print("\n" + _for_people(summary, directory.path), flush=True)
    return 0 if written and is_sound(summary) else 1


def _first_bytes(options: Options) -> int | None:
    """What the first keys of all sessions take of a QC at most; None if nobody has said which there will be. PURE."""
    if not options.arrivals:
        return None
    mode, parameters = MODES[options.parameters["mode"]], options.parameters

    def first(qos: QoS) -> int:
        number = mode.number_at_once(1, ahead(parameters["keys_ahead"], qos.interval_s, parameters["ttl_slots"]))
        return mode.needs(["the first", "another"], qos.key_size_bits // 8, number)[0][1]

    return sum(first(arrival.qos) for arrival in options.arrivals if arrival.at_s < 1)


def is_sound(summary: Mapping[str, Any]) -> bool:
    """Whether the network was as it must be, as far as is known: an audit that was not possible says nothing. PURE."""
    pairs = summary["pairs"]
    sound = pairs["compared"] == pairs["identical"] and summary["audit"]["verdict"] == "clean"
    return sound and not summary["died"] and not summary["bugs"] and summary["why_no_keys"] is None


@contextlib.contextmanager
def _page(emulation: Emulation, wanted: Dashboard, say: Callable[[str], None]) -> Iterator[None]:
    if not wanted.on:
        yield
        return
    from testbed.dashboard import server  # a second of imports, which other runs do without

    page = server.Dashboard(emulation, wanted.port)
    page.start()
    say(f"live view at {page.url}")
    try:
        yield
    finally:
        page.stop()


@contextlib.contextmanager
def _operated(emulation: Emulation, owner: int) -> Iterator[Operator]:
    """The network's operator, whom others reach by a socket in the run directory."""
    operator = Operator(emulation, end=lambda: os.kill(os.getpid(), signal.SIGUSR1))
    place = OperatorSocket(operator, emulation.run.path / FILE, owner)
    place.start()
    try:
        yield operator
    finally:
        place.close()


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """What is inside ends when the operator has the run end; the main thread alone gets to hear of it."""

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        yield
    except Stopped:
        pass
    finally:
        signal.signal(signal.SIGUSR1, before)


def _detach(run: Path) -> None:
    """Whoever started this run waits for it no more: what it says from here on goes into a file."""
    print(f"{REACHED} './qkd --run {run} status' asks it, './qkd --run {run} stop' ends it", flush=True)
    log = os.open(run / "logs" / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)


def _audit(path: Path) -> dict[str, Any]:
    try:
        return audit.load(path).to_json()
    except audit.Unreadable as error:
        return {"verdict": "not possible", "findings": [str(error)]}


def _work(emulation: Emulation, options: Options, operator: Operator, say: Any) -> None:
    """Open tunnels, offer the load, then wait for the end of the duration or for the user to leave the CLI."""
    for tunnel in emulation.plan.topology.tunnels:
        say(f"opening the tunnel between {tunnel.a} and {tunnel.b}")
        operator.do("open_tunnel", **asdict(tunnel))
    load = OfferedLoad(operator.do, options.arrivals, say)
    ends = time.monotonic() + (options.duration_s or 0)
    if options.arrivals:
        say(f"opening {len(options.arrivals)} key sessions")
    load.start()
    over = threading.Event()
    watch = threading.Thread(target=_tell_of_the_dead, args=(emulation, over), name="watch")
    watch.start()
    try:
        if not any(a.at_s for a in options.arrivals):
            load.join()
        _wait(emulation, options, operator, ends, say)
    finally:
        over.set()
        watch.join()
        load.stop()


def _tell_of_the_dead(emulation: Emulation, over: threading.Event) -> None:
    """At the command line, too, where the user may be reading something else."""
    reported: set[str] = set()
    while not over.wait(_LOOK_S):
        for process in emulation.dead():
            if process.name not in reported:
                reported.add(process.name)
                print(f"run.py: {process.name} ended on its own: {process.last_words()}", file=sys.stderr, flush=True)


def _wait(emulation: Emulation, options: Options, operator: Operator, ends: float, say: Any) -> None:
    if options.cli:
        print("Mininet's command line; 'qkd' lists what it knows of the QKD network, 'exit' ends the run.", flush=True)
        QkdCLI(emulation, operator)
    if options.detached:
        _detach(emulation.run.path)
        if options.duration_s is None:
            ends = math.inf
    progress = measure.Progress(emulation.run.path, emulation.plan.nodes)
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(left, _PROGRESS_S))
        say(progress.line())


def _write(path: Path, document: dict[str, Any], say: Callable[[str], None]) -> bool:
    """Whether that worked; if not, the reason is said."""
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(document, indent=2) + "\n")
        temporary.replace(path)
    except OSError as error:
        say(f"{path} cannot be written: {error.strerror}")
        return False
    return True


def _for_people(summary: dict[str, Any], path: Path) -> str:
    sessions, keys, pairs = summary["sessions"], summary["keys"], summary["pairs"]
    delivery = summary["delivery_ms"]
    rows = [
        (name, keys[member], *(delivery[member][q] for q in ("p50", "p95", "max")))
        for name, member in (("one hop", "single_hop"), ("several hops", "multi_hop"))
    ]
    errors = [f"{n} {cause}: {keys['errors_said'][cause]}" for cause, n in keys["errors"].items()] or ["none"]
    lost = ", ".join(f"{n} bytes of {qc}" for qc, n in keys["lost_bytes"].items()) or "no key material"
    return "\n".join(
        [
            f"Key sessions  {sessions['requested']} requested, {sessions['admitted']} admitted,"
            f" {sessions['refused']} refused, {sessions['failed']} failed",
            "",
            table(("keys over", "delivered", "p50 ms", "p95 ms", "max ms"), rows),
            "Key errors    " + "\n              ".join(errors),
            f"Lost          {lost}",
            *(f"Relays had    {line}" for line in _relays(summary["relays"])),
            f"Key pairs     {pairs['compared']} compared, {pairs['identical']} identical",
            f"Audit         {_verdict(summary['audit'])}",
            f"Links         shaped by {summary['shaper']}, Open vSwitch datapath {summary['datapath']}",
            f"Seed          {summary['seed']}",
            *_leaders(summary["leaders"]),
            *(f"DIED          {line}" for line in summary["died"]),
            *(f"BUGS          {line}" for line in summary["bugs"]),
            *([f"NO KEYS       {summary['why_no_keys']}"] if summary["why_no_keys"] is not None else []),
            f"Summary       {path / 'summary.json'}",
        ]
    )


def _relays(found: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterator[str]:
    """Of how many keys that were made over them relays learned what, a line a mode."""
    for mode, relays in sorted(found.items()):
        said = (
            f"{node} " + ", ".join(f"{what} of {n}" for what, n in counts.items() if n)
            for node, counts in sorted(relays.items())
        )
        yield f"{mode}: {'; '.join(said)}"


def _leaders(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where there are two controllers, when which one began to lead."""
    for i, one in enumerate(found):
        at = time.strftime("%H:%M:%S", time.localtime(one["time"]))
        since = "" if one["silent_s"] is None else f", {one['silent_s']:.1f} s after the last word of a leader"
        yield f"{'' if i else 'Leaders':<14}{one['controller']} in term {one['term']}, from {at} on{since}"


def _verdict(found: Mapping[str, Any]) -> str:
    if found["verdict"] == "clean":
        checked = found["checked"]
        return (
            f"clean: {checked['bytes_generated']} bytes made, {checked['allocations']} allocations,"
            f" {checked['ranges_taken']} ranges taken"
        )
    return f"{found['verdict'].upper()}: {'; '.join(found['findings'][:3])}"
