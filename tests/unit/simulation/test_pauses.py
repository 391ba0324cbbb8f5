"""QCs that bring nothing for longer than their rhythm, in virtual time: no session begins over one, and all leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from etsi.gs004 import QoS
from scenario.outages import Outage
from scenario.quantum.qc_models import Trace
from scenario.scenario import Scenario
from scenario.topology import load
from scenario.topology_description import Topology
from scenario.workload import Arrival
from simulation.engine import GRACE_S, Simulation
from simulation.network import STEADY_S
from simulation.records import Recorder
from simulation.sessions import Session, Witness

NETWORKS = Path(__file__).resolve().parents[3] / "topologies"
POLIQI = load("poliqi", NETWORKS)
SAES = {sae.node: sae for sae in POLIQI.saes}
QC = "telecom-finance/1"
BEGINS_S, ENDS_S = 60.0, 120.0  # of its silence; time begins a TTL of 15 slots after the trace does
# 40 bytes a second, but for a minute, and each second a block until then.
SILENT = Trace((75.0, 135.0, 400.0), (320.0 * 75, 0.0, 320.0 * 265), (0.02, 0.02, 0.02))


def poliqi(*qcs: str) -> Topology:
    """The network, in which those QCs have a minute of silence."""
    return replace(POLIQI, links=tuple(
        replace(link, qcs=tuple(replace(qc, model=SILENT) if qc.name in qcs else qc for qc in link.qcs))
        for link in POLIQI.links
    ))  # fmt: skip


class Moves(Witness):
    """When a session went which way."""

    def __init__(self) -> None:
        self.at: list[tuple[float, int]] = []

    def opened(self, session: Session, now_s: float) -> None:
        self.at.append((now_s, session.hops))

    def moved(self, session: Session, now_s: float, *_: object) -> None:
        self.at.append((now_s, session.hops))


def played(topology: Topology, at_s: float = 10.0, **options: object) -> tuple[Simulation, list[tuple[float, int]]]:
    """A session between telecom and finance."""
    arrival = Arrival(at_s, SAES["telecom"], SAES["finance"], 250.0, QoS(128, 1.0))
    simulation = Simulation(Scenario(topology, [arrival], {"mode": "otp"}, **options))  # type: ignore[arg-type]
    moves = simulation.witness = Moves()
    simulation.run()
    return simulation, moves.at


def test_session_leaves_a_qc_that_does_not_generate_and_returns_when_it_has_for_a_while():
    """By the other way round; each at the time at which a controller of ours does so. It had stock all the while."""
    simulation, moves = played(poliqi(QC))

    (_, direct), (left_s, longer), (back_s, again) = moves
    assert (direct, again) == (1, 1)
    assert longer > 1
    assert BEGINS_S <= left_s - GRACE_S <= BEGINS_S + 2
    assert ENDS_S <= back_s - STEADY_S <= ENDS_S + 2
    assert simulation.result.failed_requests == 0


def test_session_opens_by_another_way_than_over_a_qc_that_does_not_generate():
    """As if that QC were not there."""
    _, moves = played(poliqi(QC), BEGINS_S + 20)

    assert moves[0][1] > 1


def test_session_is_refused_where_there_is_no_qc_that_generates():
    """There is no path; nobody was short of anything."""
    simulation, _ = played(poliqi(*(qc.name for qc, _, _ in POLIQI.qcs())), BEGINS_S + 20)

    assert simulation.result.refused == {"no_path": 1}


def test_same_seed_leaves_the_same_files_to_the_byte_while_qcs_pause(tmp_path):
    """With an outage beside."""
    topology = poliqi(QC, "government-university/1")
    found = []
    for name in ("one", "other"):
        arrivals = [
            Arrival(20.0 * n, SAES["telecom"], SAES["finance"], 100.0 + n, QoS(128, 1.0)) for n in range(8)
        ]
        scenario = Scenario(topology, arrivals, outages=[Outage("qc", QC, 70.0, 10.0)], seed=5)
        simulation = Simulation(scenario)
        recorder = simulation.witness = Recorder(tmp_path / name, scenario, simulation.qcs)
        simulation.run()
        recorder.close(simulation.now_s)
        found.append({
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in sorted((tmp_path / name).rglob("*")) if path.is_file()
        })  # fmt: skip
    assert found[0] == found[1]
    assert found[0]


def test_nothing_is_made_of_a_qc_that_nobody_asks():
    """Of no QC that never pauses, but those of the session's way; nor of one that may pause once sessions are over."""
    simulation, _ = played(poliqi("government-military/1"))

    made = {name: len(qc.supply.heads) for name, qc in simulation.qcs.items()}
    assert made["telecom-finance/1"] > 200
    assert made["university-government/1"] == made["military-telecom/1"] == 1
    arrival = Arrival(5000.0, SAES["telecom"], SAES["finance"], 1.0, QoS(128, 1.0))
    late = Simulation(Scenario(poliqi("government-military/1"), [arrival], {"mode": "otp"}, lasts_s=9000.0))
    late.run()
    assert len(late.qcs["government-military/1"].supply.heads) < 5100
