"""Runs of a series in virtual time: the same phases, without root or network; each worker does one run at a time."""

from __future__ import annotations

import functools
import importlib.metadata
import math
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decisions import user_policies
from scenario.scenario import Scenario
from scenario.topology_description import Topology
from scenario.workload import arrivals
from simulation.engine import Simulation
from simulation.qcs import QcState
from simulation.records import Recorder
from testbed.evidence import summary
from testbed.experiments.evaluation import outcome
from testbed.experiments.execute import provenance
from testbed.experiments.series import Phase, Run, Store
from testbed.experiments.workers import Each

_NOTHING = "nothing: in virtual time"
_PACKAGES = ("qkd-testbed", "networkx", "scipy")


def simulate(runs: Sequence[Run], topology: Topology, store: Store, each: Each, say: Callable[[str], None]) -> None:
    """All runs whose outcomes `store` lacks; UserError if the workers are gone."""
    todo = store.todo(runs, say)
    facts = {"shaper": _NOTHING, "datapath": _NOTHING, "versions": _versions(), "provenance": provenance()}
    for run, documents in zip(todo, each(functools.partial(seen, topology=topology), todo), strict=True):
        for name, document in zip(run.names(), documents, strict=True):
            store.keep(name, document | facts)


def seen(run: Run, topology: Topology) -> list[dict[str, Any]]:
    """What each phase showed, in the form in which a network's is kept. PURE but for the user's policies."""
    user_policies.use(run.policies)
    return [_phase(run, phase, run.network(topology)) for phase in run.phases]


def _phase(run: Run, phase: Phase, topology: Topology) -> dict[str, Any]:
    scenario = Scenario(
        topology, arrivals(phase.workload, topology.saes, phase.seed), phase.parameters,
        on_key_failure=phase.workload.on_key_failure, pace=phase.workload.pace, seed=phase.seed,
    )  # fmt: skip
    simulation = Simulation(scenario)
    with tempfile.TemporaryDirectory(prefix="qkd-") as folder:
        recorder = simulation.witness = Recorder(Path(folder), scenario, simulation.qcs)
        simulation.run()
        recorder.close(simulation.now_s)
        events = outcome.kept(summary.read_run(Path(folder), *outcome.KEPT), -math.inf, math.inf)
    return {
        "repeat": run.repeat, "delay_ms": run.delay_ms, "qc_rate": run.qc_rate, "labels": dict(phase.labels),
        "parameters": dict(phase.parameters), "workload": phase.workload.to_json(), "seed": phase.seed, "rtts_ms": [],
        "made": list(made(simulation.qcs, simulation.now_s)), "events": events,
    }  # fmt: skip


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()}


def made(qcs: Mapping[str, QcState], now_s: float) -> Iterator[tuple[str, float, int]]:
    """What the QCs have made by then, from a TTL before the first session on: (QC, seconds, bytes)."""
    for name, qc in qcs.items():
        for block in range(qc.supply.made(now_s)):
            n_bytes = qc.supply.heads[block + 1] - qc.supply.heads[block]
            yield name, qc.supply.made_s(block), n_bytes
