"""QCs that are not a fibre's own in the live view: those that are lit on demand, and devices of the user's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scenario.topology import load
from testbed.dashboard.collected.snapshot import Heard, Sample, Snapshot
from testbed.dashboard.views import view_map, view_tables
from testbed.dashboard.views.selection import WHOLE
from testbed.planning.fault import Fault
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan

BYPASS = make_plan(load("poliqi-bypass", Path("topologies")))
QC = "government~telecom/1"


def shown(*qcs: dict[str, Any], **changes: Any) -> Snapshot:
    """The controller tells of these QCs."""
    curves = {qc["qc"]: (Sample(1, 12, 0, 0, 300),) for qc in qcs}
    return Snapshot(controller=Heard({"qcs": qcs}), curves=curves, **changes)


def told(status: str = "ACTIVE", qc: str = QC) -> dict[str, Any]:
    """What it says of one that is lit."""
    return {"qc": qc, "status": status, "enabled": True, "qber_percent": 3.1}


def row(shot: Snapshot) -> view_tables.QcRow | None:
    """The row of the QC on demand."""
    return next((found for found in view_tables.qcs(BYPASS, shot) if found.qc == QC), None)


def test_qc_on_demand_is_in_the_table_while_it_is_lit():
    """With whom its light goes past, its rate and its error rate; it is a QC of no fibre."""
    found = row(shown(told()))

    assert row(shown()) is None
    assert found is not None
    assert (found.link, found.past, found.state, found.error_rate) == ("", "past military", "● generates", "3.10 %")
    assert found.sparks[0].now == "12 B/s"


@pytest.mark.parametrize(
    ("shot", "state", "drawn"),
    [
        (shown(told("PENDING")), "◐ is being lit", view_map.NO_KEY),
        (shown(told("OFF")), "✕ off", view_map.NO_KEY),
        (shown(told(), faults=[Fault("cut", ("military", "telecom"), 0.0)]), "✕ broken", view_map.NO_KEY),
        (shown(told()), "● generates", view_map.UP),
    ],
)
def test_state_of_its_light_is_said_and_drawn(shot, state, drawn):
    """A fibre on its way that is cut takes it along."""
    found = row(shot)
    (arc,) = view_map.draw(BYPASS, shot, WHOLE).lights

    assert found is not None
    assert (found.state, arc.state) == (state, drawn)
    assert arc.words.startswith(f"QC {QC} is lit, past military: ")


def test_arcs_between_the_same_datacenters_lie_apart():
    """Two QCs on demand; nothing is drawn of those that are dark."""
    one = next(one for one in BYPASS.topology.switched if one.qc.name == QC)
    other = replace(one, qc=replace(one.qc, name=f"{QC[:-1]}2"))
    plan = make_plan(replace(BYPASS.topology, switched=(one, other)))

    arcs = view_map.draw(plan, shown(told(), told(qc=other.qc.name)), WHOLE).lights

    assert view_map.draw(plan, shown(), WHOLE).lights == ()
    assert [arc.key[2] for arc in arcs] == [QC, other.qc.name]
    assert len({arc.curve for arc in arcs}) == 2


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A network whose one QC is a device."""
    folder = tmp_path_factory.mktemp("network")
    ends = {}
    for number, node in enumerate(("north", "south"), 1):
        files = {"cert": f"{node}.pem", "key": f"{node}.key", "ca": "ca.pem"}
        for name in files.values():
            (folder / name).touch(mode=0o600)
        sae_id = f"a11ce000-0000-4000-8000-00000000000{number}"
        ends[node] = {"url": f"https://127.0.0.1:900{number}", "sae_id": sae_id, **files}
    qc = {"source": {"gs014": {"ends": ends}}}
    path = folder / "device.yaml"
    path.write_text(json.dumps({
        "name": "device", "nodes": [{"name": "north"}, {"name": "south"}],
        "links": [{"a": "north", "b": "south", "length_km": 1, "qcs": [qc]}],
        "saes": [{"name": "one", "node": "north"}, {"name": "two", "node": "south"}],
    }))  # fmt: skip
    return make_plan(load(str(path), folder))


def device(state: str, why: str = "") -> dict[str, Any]:
    """What a node tells of its end."""
    return {"devices": {"north-south/1": {"role": "leads", "state": state, "why": why}}}


@pytest.mark.parametrize(
    ("north", "south", "state"),
    [
        (device("answers"), device("answers"), "● generates, device answers"),
        (device("answers"), device("silent", "its device does not answer: refused"),
         "● generates, device at north answers, device at south does not answer"),
        (device("suspected", "they gave different bytes"), device("suspected", "they gave different bytes"),
         "● generates, device is switched off: they gave different bytes"),
        (device("refuses"), {}, "● generates, device at north gives no keys"),
        ({}, {}, "● generates"),
    ],
)  # fmt: skip
def test_state_of_a_device_stands_beside_that_of_its_qc(devices, north, south, state):
    """At both ends alike, or at each; of what nobody has told there is no word."""
    shot = shown(told(qc="north-south/1"), nodes={"north": Heard(north), "south": Heard(south)})

    (found,) = view_tables.qcs(devices, shot)

    assert found.state == state


def test_qc_that_is_emulated_has_no_device():
    """Whatever a node says."""
    assert view_tables.device_states(BYPASS, shown(told()), QC) == []
