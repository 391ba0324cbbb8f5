"""`run.py simulate`: a scenario in virtual time, without root, network or waiting; and what came of it."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decisions.rekey import GO_ON, SESSION
from scenario.key_requests import load as load_requests
from scenario.outages import load as load_outages
from scenario.scenario import Scenario
from scenario.topology import load
from scenario.workload import load as load_workload
from simulation.engine import Simulation
from simulation.records import Recorder
from simulation.sessions import Result
from testbed import audit, options
from testbed.errors import UserError
from testbed.evidence import summary
from testbed.evidence.replay import recording, replay

_DEFAULT_S = 60.0
_TOPOLOGY = "poliqi"


def main(arguments: list[str], *, topologies: Path, workloads: Path) -> int:
    """Simulate as `arguments` say; the exit status. UserError or TopologyError for what cannot be."""
    given = _parser().parse_args(arguments)
    if given.replay is not None:
        return _replay(given.replay)
    loads = {"--workload": given.workload, "--sessions": given.sessions, "--requests": given.requests,
             "--recorded": given.recorded}  # fmt: skip
    if len(chosen := [name for name, value in loads.items() if value is not None]) > 1:
        raise UserError(f"{' and '.join(chosen)}: choose one")
    recorded = None if given.recorded is None else recording(given.recorded)
    if recorded is None or given.topology is not None:
        topology = load(given.topology or _TOPOLOGY, topologies).with_overrides(qc_rate=given.qc_rate)
        recorded = None if recorded is None else recorded.on(topology)
    else:
        topology = recorded.topology
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    workload = None if given.workload is None else load_workload(given.workload, workloads)
    parameters, _ = options.parameters(given, topology)
    asked = recorded or (None if given.requests is None else load_requests(given.requests, topology.saes))
    scenario = Scenario(
        topology,
        asked.arrivals if asked is not None else options.arrivals(
            given, topology.saes, workload, seed, handful=options.DEFAULT_SESSIONS,
            length_s=given.duration or _DEFAULT_S,
        ),
        parameters,
        on_key_failure=GO_ON if workload is None else workload.on_key_failure,
        pace=SESSION if workload is None else workload.pace,
        outages=() if given.outages is None else load_outages(given.outages, topology),
        seed=seed,
    )  # fmt: skip
    run = None if given.run_dir is None else _folder(given.run_dir)
    simulation = Simulation(scenario, recorded.supplies if recorded else None, asked.asks if asked else None)
    recorder = None if run is None else Recorder(run, scenario, simulation.qcs)
    simulation.witness = recorder
    started = time.monotonic()
    result = simulation.run(_progress(started) if sys.stderr.isatty() else None)
    took_s = time.monotonic() - started
    document = _document(scenario, result)
    sound = True
    if run is not None and recorder is not None:
        recorder.close(simulation.now_s)
        events = summary.read_run(run, *summary.SUMMARISED)
        document |= summary.summarise(events) | {"audit": audit.load(run).to_json()}
        sound = document["audit"]["verdict"] == "clean"
        (run / "summary.json").write_text(json.dumps(document, indent=2) + "\n")
    print(_for_people(document, simulation.now_s, took_s), end="")
    return 0 if sound else 1


def _replay(run: Path) -> int:
    """Print where virtual time differs from that run."""
    found = replay(run)
    for d in found.differences:
        which = f"session {d.session}" + ("" if d.request is None else f", request {d.request}")
        print(f"{which}: recorded {d.recorded}, simulated {d.simulated or 'nothing'}: {d.reason}")
    print(
        f"{run}: {found.compared} sessions and requests, {found.failing} of them in vain;"
        f" {100 * found.agreeing:.1f} % agree"
    )
    return 0


def _folder(path: Path) -> Path:
    """A new folder, or an empty one; UserError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise UserError(f"run directory {path}: expected none, or an empty one: choose another --run-dir")
    except OSError as error:
        raise UserError(f"run directory {path}: {error.strerror}: choose another --run-dir") from None
    return path


def _document(scenario: Scenario, result: Result) -> dict[str, Any]:
    """What came of it, for a program."""
    return {
        "topology": scenario.topology.name,
        "parameters": dict(scenario.parameters),
        "seed": scenario.seed,
        "virtual": {
            "offered": result.offered, "refused": dict(sorted(result.refused.items())), "unbroken": result.unbroken,
            "with_key_errors": result.with_errors, "requests": result.requests,
            "key_errors": dict(sorted(result.errors.items())), "keys_made": result.made,
            "keys_from_pool": result.from_pool, "keys_expired_in_pool": result.expired, "moves": result.moves,
            "policy_failures": dict(result.policy_failures),
        },
    }  # fmt: skip


def _for_people(document: dict[str, Any], virtual_s: float, took_s: float) -> str:
    found = document["virtual"]
    refused = ", ".join(f"{cause} {number}" for cause, number in found["refused"].items()) or "none"
    errors = ", ".join(f"{what} {number}" for what, number in found["key_errors"].items()) or "none"
    lines = [
        f"{document['topology']}, seed {document['seed']}: {virtual_s:.0f} s in {took_s:.2f} s",
        f"  key sessions  {found['offered']} offered; refused: {refused}; {found['unbroken']} without a key error",
        f"  requests      {found['requests']}; key errors: {errors}",
        f"  keys          {found['keys_made']} made, {found['keys_from_pool']} handed out of pools,"
        f" {found['keys_expired_in_pool']} made ahead for nobody",
    ]
    lines += [f"  policy        {what} ({number} times)" for what, number in found["policy_failures"].items()]
    if found["moves"]:
        lines.append(f"  moves         {found['moves']}")
    if "audit" in document:
        lines.append(f"  audit         {document['audit']['verdict']}")
    return "\n".join(lines) + "\n"


def _progress(started: float) -> Callable[[float, int], None]:
    def tell(now_s: float, events: int) -> None:
        rate = events / (time.monotonic() - started)
        print(f"\r{now_s:.0f} s of virtual time, {events} events, {rate:.0f} a second", end="", file=sys.stderr)

    return tell


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py simulate",
        description="A QKD network in virtual time: the decisions of nodes and controller, and nothing that takes time."
        " Needs no root.",
    )
    options.network(parser)
    parser.add_argument("--duration", type=options.seconds, metavar="S", help=f"how long sessions last that no workload describes (default: {_DEFAULT_S:g})")  # fmt: skip  # noqa: E501
    parser.add_argument("--outages", type=Path, metavar="FILE", help="a YAML file that says what fails when")
    parser.add_argument("--requests", type=Path, metavar="FILE", help="key requests in a CSV file: time_s, master, slave, size_bits")  # fmt: skip  # noqa: E501
    parser.add_argument("--recorded", type=Path, metavar="DIR", help="what a finished run was offered, under these options, on its network or another one")  # fmt: skip  # noqa: E501
    parser.set_defaults(topology=None)
    parser.add_argument("--replay", type=Path, metavar="DIR", help="a finished run, whose arrivals, requests and QC output are offered again; prints what differs")  # fmt: skip  # noqa: E501
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where journals, records and a summary go, as those of a run (default: nowhere)")  # fmt: skip  # noqa: E501
    return parser
