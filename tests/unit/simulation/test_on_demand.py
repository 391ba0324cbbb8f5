"""QCs on demand in virtual time: sessions wait for them, modules are never short, nodes between learn nothing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decisions.choice import BOTH, BYPASS, IDLE_S, MECHANISMS, RELAY
from decisions.exposure import NOTHING, THE_KEY
from etsi.gs004 import QoS
from scenario.outages import FIBRE, Outage
from scenario.scenario import Scenario
from scenario.topology import load
from scenario.workload import Arrival
from simulation.engine import Simulation
from simulation.network import GRACE_S
from simulation.records import Recorder
from simulation.sessions import Session, Witness
from testbed.stories import journals
from testbed.stories.model import KEY

NETWORK = load("poliqi-bypass", Path(__file__).resolve().parents[3] / "topologies")
SAES = {sae.name: sae for sae in NETWORK.saes}
FAR = "tax-office", "billing"  # at government and telecom, past military
QC = "government~telecom/1"
ALSO_FAR = "land-registry", "stock-exchange"  # at government and finance, past university


class Seen(Witness):
    """What was told: QCs that are lit, when which went on and off, when sessions opened, moved, and had errors."""

    def __init__(self) -> None:
        self.lit: list[str] = []
        self.switches: list[tuple[str, float, bool]] = []
        self.opened_s: dict[int, float] = {}
        self.moves: list[tuple[float, int]] = []  # when, and over how many QCs from then on
        self.errors = 0
        self.refusals = 0
        self.taken: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def switched(self, qc: str, now_s: float, *, lit: bool) -> None:
        self.switches.append((qc, now_s, lit))
        one = next(one for one in NETWORK.on_demand() if one.qc == qc)
        self.taken.update(dict.fromkeys(one.takes, 1 if lit else -1))
        self.most |= self.taken

    def opened(self, session: Session, now_s: float) -> None:
        self.opened_s[session.number] = now_s

    def moved(self, session: Session, now_s: float, *_: object) -> None:
        self.moves.append((now_s, session.hops))

    def failed(self, *_: object) -> None:
        self.errors += 1


def session(pair: tuple[str, str] = FAR, at_s: float = 10.0, length_s: float = 60.0) -> Arrival:
    """Between two applications."""
    return Arrival(at_s, SAES[pair[0]], SAES[pair[1]], length_s, QoS())


def played(*sessions: Arrival, mechanism: str = BYPASS, network=NETWORK, outages=(), **parameters) -> Seen:
    """What was told of it."""
    simulation = Simulation(
        Scenario(network, sessions, {"mechanism": mechanism} | parameters, outages=outages, lasts_s=300.0)
    )
    simulation.witness = seen = Seen()
    seen.refusals = simulation.run().refused.total()
    return seen


def test_session_opens_when_the_qc_that_was_lit_for_it_has_made_enough_for_a_key():
    """Two seconds to set it up, and the slot in which it makes more than 32 bytes."""
    seen = played(session(at_s=10.0))

    assert seen.switches[0] == (QC, 10.0, True)
    assert (seen.opened_s[0], seen.errors) == (13.0, 0)


def test_qc_goes_dark_when_no_session_has_used_it_for_a_while():
    """Until then it serves whoever comes, at once."""
    again = session(at_s=72.0, length_s=10.0)

    seen = played(session(at_s=10.0, length_s=60.0), replace(again, at_s=70.0 + IDLE_S - 1), session(at_s=200.0))

    assert [(lit, at_s) for _, at_s, lit in seen.switches] == [
        (True, 10.0), (False, 70.0 + IDLE_S - 1 + 10.0 + IDLE_S), (True, 200.0), (False, 260.0 + IDLE_S)
    ]  # fmt: skip
    assert seen.opened_s[1] == 70.0 + IDLE_S - 1


def test_session_is_refused_where_there_is_no_module_to_spare():
    """And accepted when one is, or where relays may serve it."""
    nodes = tuple(replace(node, modules=3) for node in NETWORK.nodes)
    spare = tuple((what, 1 if what.startswith("module") else number) for what, number in NETWORK.spare)
    scarce = replace(NETWORK, nodes=nodes, spare=spare)
    both = session(FAR, 10.0, 60.0), session(ALSO_FAR, 20.0, 60.0)

    assert played(*both, network=scarce).refusals == 1
    assert played(both[0], replace(both[1], at_s=90.0), network=scarce).refusals == 0
    assert played(*both, network=scarce, mechanism=RELAY).refusals == 0


def test_fibre_that_is_cut_takes_the_bypass_along_whose_light_goes_through_it():
    """Its session waits; one whose light goes elsewhere does not."""
    cut = (Outage(FIBRE, "government-military", 30.0, 60.0),)

    assert played(session(length_s=100.0), outages=cut).errors > 0
    assert played(session(ALSO_FAR, length_s=100.0), outages=cut).errors == 0


# No QC of government's makes key any more, but light goes on through its fibres.
ALONE = tuple(Outage("qc", qc, 30.0, 60.0) for qc in ("government-military/1", "university-government/1"))


def test_qc_is_lit_for_a_session_that_has_no_other_way_and_it_moves_once_there_is_key():
    """After the grace that nodes and QCs have; then as for a session that opens."""
    seen = played(session(length_s=150.0), mechanism=BOTH, outages=ALONE)

    lit_s = ALONE[0].at_s + GRACE_S
    assert [switch for switch in seen.switches if switch[1] == lit_s] == [(QC, lit_s, True)]
    assert seen.moves == [(lit_s + 3.0, 1)]
    assert 0 < seen.errors <= 3


def test_mechanism_relay_lights_nothing_for_a_move_either():
    """The session waits until there is a way."""
    seen = played(session(length_s=150.0), mechanism=RELAY, outages=ALONE)

    assert (seen.switches, seen.moves) == ([], [])
    assert seen.errors > 3


def test_qc_that_was_lit_for_a_move_goes_dark_when_its_session_has_ended_before():
    """It never came to use it."""
    seen = played(session(length_s=23.0), mechanism=BOTH, outages=ALONE)

    assert [(qc, lit) for qc, _, lit in seen.switches] == [(QC, True), (QC, False)]
    assert seen.moves == []


def test_node_that_light_goes_past_takes_part_in_nothing(tmp_path):
    """No byte of the QC, and nothing in its journal but that it began and ended."""
    scenario = Scenario(NETWORK, [session()], {"mechanism": BYPASS})
    simulation = Simulation(scenario)
    simulation.witness = recorder = Recorder(tmp_path, scenario, simulation.qcs)
    simulation.run()
    recorder.close(simulation.now_s)

    records = json.loads((tmp_path / "audit.json").read_text())
    lines = (tmp_path / "nodes/military/journal.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert records["nodes"]["military"]["taken"] == []
    assert len(records["nodes"]["government"]["taken"]) == 12
    assert events == ["started", "stopped"]


def test_story_of_a_key_names_the_nodes_that_its_light_went_past_and_that_they_learned_nothing(tmp_path):
    """Beside the two ends, which have it; of the ones that other light goes past there is no word."""
    scenario = Scenario(NETWORK, [session(), session(ALSO_FAR)], {"mechanism": BYPASS})
    simulation = Simulation(scenario)
    simulation.witness = recorder = Recorder(tmp_path, scenario, simulation.qcs)
    simulation.run()
    recorder.close(simulation.now_s)
    keys = [head.ident for head in journals.latest(tmp_path, 1000) if head.kind == KEY]

    told = {tuple((one.node, one.what) for one in journals.read(tmp_path, key).learned) for key in keys}

    assert told == {
        (*((end, THE_KEY) for end in ends), (past, NOTHING))
        for ends, past in ((("government", "telecom"), "military"), (("government", "finance"), "university"))
    }


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(SAES)), st.sampled_from(sorted(SAES)), st.floats(0, 200), st.floats(1, 90)),
        max_size=40,
    ),
    st.sampled_from(sorted(MECHANISMS)),
    st.lists(
        st.builds(Outage, st.just("qc"), st.sampled_from(sorted(qc.name for qc, _, _ in NETWORK.qcs())),
                  st.floats(0, 150), st.floats(1, 60)),
        max_size=8,
    ),
)  # fmt: skip
def test_no_more_modules_are_ever_taken_than_there_are(offered, mechanism, outages):
    """Whatever comes, goes and fails; and all are given back."""
    sessions = [
        session((a, b), at_s, length_s) for a, b, at_s, length_s in offered if SAES[a].node != SAES[b].node
    ]

    seen = played(
        *sorted(sessions, key=lambda s: s.at_s), mechanism=mechanism, admission="reserve", outages=outages
    )

    spare = dict(NETWORK.spare)
    assert all(number <= spare[what] for what, number in seen.most.items())
    assert not +seen.taken or max(s.at_s + s.length_s for s in sessions) > 280


def test_same_seed_gives_the_same_result():
    """In whatever order QCs are lit."""
    sessions = [session(FAR, 1.0), session(ALSO_FAR, 2.0)]

    assert played(*sessions).switches == played(*sessions).switches


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_every_mechanism_serves_neighbours_over_the_qc_of_their_fibre(mechanism):
    """Nothing is lit for that."""
    seen = played(session(("tax-office", "command-post")), mechanism=mechanism)

    assert (seen.switches, seen.errors, seen.refusals) == ([], 0, 0)
