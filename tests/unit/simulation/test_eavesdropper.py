"""Eavesdroppers in virtual time: what they leave of a QC, what a network does then, and what is left when they go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etsi.gs004 import QoS
from scenario.outages import Outage
from scenario.quantum.qc_models import Blocks, Model, Uniform, intercepted, left_under_eve
from scenario.scenario import Scenario
from scenario.topology import load
from scenario.topology_description import Topology
from scenario.workload import Arrival
from simulation.engine import Simulation
from simulation.qcs import QcState

POLIQI = load("poliqi", Path(__file__).resolve().parents[3] / "topologies")
SAES = {sae.node: sae for sae in POLIQI.saes}
FIBRE = "telecom-finance"
QC = f"{FIBRE}/1"
NO_KEY = 0.4  # of the pulses: 2 % and nearly a tenth are above 11 %


def played(*outages: Outage, topology: Topology = POLIQI, lasts_s: float = 400.0, **session: float) -> Simulation:
    """A key session between telecom and finance."""
    qos = QoS(int(session.get("size_bits", 128)), session.get("every_s", 1.0))
    arrival = Arrival(0.0, SAES["telecom"], SAES["finance"], lasts_s, qos)
    simulation = Simulation(Scenario(topology, [arrival], {"mode": "basic"}, outages=outages, lasts_s=lasts_s, seed=3))
    simulation.result = simulation.run()
    return simulation


def brought(qc: QcState, begin_s: float, end_s: float) -> int:
    """Bytes that it made between two times."""
    heads, made = qc.supply.heads, qc.supply.made
    return heads[made(end_s)] - heads[made(begin_s)]


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_qc_makes_what_the_eavesdropper_leaves_by_its_model_until_she_goes(one, other):
    """Whoever of two leaves first; then as much as if nobody had ever been there."""
    eves = Outage("eve", FIBRE, 100, 200, one), Outage("eve", FIBRE, 200, 200, other)
    qc = played(*eves, lasts_s=600.0).qcs[QC]
    undisturbed = Uniform(33, 47)

    for begin_s, eve in ((100, one), (200, one + other - one * other / 2), (300, other), (400, 0.0)):
        expected = 100 * intercepted(undisturbed, min(1.0, eve))[0]
        assert brought(qc, begin_s, begin_s + 99.5) == pytest.approx(0.99 * expected, rel=0.06, abs=2)


@pytest.mark.parametrize(("eve", "silent"), [(0.1, False), (NO_KEY, True)])
def test_no_session_opens_over_a_qc_of_which_an_eavesdropper_leaves_nothing(eve, silent):
    """Below 11 % it serves, if slowly. Telecom and finance have another way round, over all others."""
    simulation = played(Outage("eve", FIBRE, 0, None, eve))
    path = simulation.result.sessions[0].path

    assert (len(path.qcs) > 1) is silent
    assert (brought(simulation.qcs[QC], 0, 399) == 0) is silent


def test_session_leaves_a_qc_of_which_nothing_comes_and_returns_when_the_eavesdropper_has_gone():
    """The store lasts until it has moved."""
    result = played(Outage("eve", FIBRE, 50, 100, NO_KEY)).result

    assert (result.moves, result.failed_requests) == (2, 0)


def test_session_that_needs_more_than_is_left_runs_short_where_it_is():
    """The QC goes on, so nobody moves; half of its key is gone at a fraction of 14 %, and comes back with her going."""
    assert left_under_eve(0.02, 0.14) < 0.6
    result = played(Outage("eve", FIBRE, 100, 100, 0.14), size_bits=8 * 32).result

    assert result.moves == 0
    assert 10 < result.failed_requests < 60
    assert played(size_bits=8 * 32).result.failed_requests == 0


@pytest.mark.parametrize("cut_first", [True, False])
def test_qc_of_a_cut_fibre_makes_nothing_whoever_listens_besides(cut_first):
    """It makes key again when both have gone, the one who leaves it nothing and the cut."""
    times = ((50, 100), (60, 150)) if cut_first else ((60, 150), (50, 100))
    cut, eve = Outage("fibre", FIBRE, *times[0]), Outage("eve", FIBRE, *times[1], NO_KEY)
    qc = played(cut, eve).qcs[QC]

    assert brought(qc, 60, 209) == 0
    assert brought(qc, 211, 399) > 33 * 180


def test_qc_that_follows_a_model_of_its_own_gives_less_too(poliqi_of):
    """Blocks come in their time, and are smaller."""
    model = Blocks(400, 10.0)
    qc = played(Outage("eve", FIBRE, 0, None, 0.1), topology=poliqi_of(model)).qcs[QC]

    assert brought(qc, 0, 399) == pytest.approx(40 * 400 * left_under_eve(0.02, 0.1), rel=0.05)


@pytest.fixture
def poliqi_of():
    """The network with a model on all of its QCs."""
    def of(model: Model) -> Topology:
        links = [replace(link, qcs=tuple(replace(qc, model=model) for qc in link.qcs)) for link in POLIQI.links]
        return replace(POLIQI, links=tuple(links))

    return of
