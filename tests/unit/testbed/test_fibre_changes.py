"""The shape of fibres: what may be configured, what shapers are told of it, and `qkd fibre` on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from documents.checks import Malformed
from scenario.shape import Shape, parse_shape
from scenario.topology import load
from scenario.topology_description import Field
from scenario.topology_document import build
from testbed.errors import UserError
from testbed.fibres.fibres import FibreError, Fibres
from testbed.fibres.probe import is_off
from testbed.fibres.shapers import netem_arguments
from testbed.machine.processes import ProcessFailed
from testbed.operation.fibre_commands import changes, obey, shapes
from testbed.operation.operator import fibre_document
from testbed.planning.make import make_plan
from testbed.planning.plan import delay_lines

TWINS = {
    "name": "twins",
    "nodes": [{"name": "alice"}, {"name": "bob"}, {"name": "carol"}],
    "links": [
        {"a": "alice", "b": "bob", "delay_ms": 1, "b_to_a": {"delay_ms": 8, "bandwidth_mbit": 100}},
        {"a": "alice", "b": "bob", "delay_ms": 2},
        {"a": "bob", "b": "carol", "delay_ms": 3},
    ],
    "saes": [{"name": "x", "node": "alice"}, {"name": "y", "node": "bob"}],
}


class Recorder:
    """A shaper that keeps what it is told; it refuses a delay of 13 ms."""

    def __init__(self):
        self.told = []

    def apply(self, plan, *, before, after):
        """Take note of it."""
        if Shape(13) in after:
            raise ProcessFailed("unlucky")
        self.told.append((plan.link.name, before, after))


@pytest.fixture
def shaper():
    """What the fibres are shaped by."""
    return Recorder()


@pytest.fixture
def fibres(shaper):
    """Two fibres between alice and bob, one between bob and carol."""
    return Fibres(make_plan(build(Field("twins", "", TWINS))), shaper, ttl_slots=15)


def requests(fibres):
    """What an operator asks of fibres that are all dark: there are no interfaces here."""

    def do(name, **given):
        if name == "fibres":
            return [fibre_document(fibre, lit=False) for fibre in fibres.all()]
        towards = given.get("towards")
        way = {"change_fibre": lambda: fibres.change(given["fibre"], given["shape"], towards=towards),
               "reset_fibre": lambda: fibres.reset(given["fibre"])}  # fmt: skip
        return fibre_document(way[name](), lit=False) | {"rtt": None}

    return do


def test_fibres_are_shaped_as_the_topology_says_at_first(fibres):
    """Each direction on its own."""
    assert fibres.get("alice-bob").directions == (("alice", "bob", Shape(1)), ("bob", "alice", Shape(8, 0, 0, 100)))
    assert fibres.get("alice-bob").rtt_ms == 9
    assert [f.name for f in fibres.all()] == ["alice-bob", "alice-bob-2", "bob-carol"]


def test_a_change_leaves_what_it_does_not_name(fibres, shaper):
    """Both ways, or towards one end; None lifts a limit; and the way back to the topology's shape."""
    fibres.change("alice-bob", {"loss_percent": 1})
    assert shaper.told[-1] == (
        "alice-bob", (Shape(1), Shape(8, 0, 0, 100)), (Shape(1, 0, 1), Shape(8, 0, 1, 100))
    )  # fmt: skip

    fibres.change("alice-bob", {"bandwidth_mbit": None, "delay_ms": 2}, towards="alice")
    assert fibres.get("alice-bob").b_to_a == Shape(2, 0, 1)
    assert fibres.get("alice-bob").a_to_b == Shape(1, 0, 1)

    assert fibres.reset("alice-bob").directions == (("alice", "bob", Shape(1)), ("bob", "alice", Shape(8, 0, 0, 100)))
    assert len(shaper.told) == 3
    assert fibres.get("alice-bob-2").a_to_b == Shape(2)


def test_what_is_so_already_is_not_done_again(fibres, shaper):
    """The shaper is left in peace."""
    fibres.change("bob-carol", {"delay_ms": 3})

    assert shaper.told == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("alice-bob", {"delay_ms": -1}, None), "delay_ms: expected a number from 0 to 60000"),
        (("alice-bob", {"delay_ms": None}, None), "delay_ms: expected a number from 0 to 60000"),
        (("alice-bob", {"jitter_ms": "2"}, None), "jitter_ms: expected a number from 0 to 60000"),
        (("alice-bob", {"loss_percent": float("nan")}, "bob"), "loss_percent: expected a number from 0 to 100"),
        (("alice-bob", {"bandwidth_mbit": 0}, "alice"), "bandwidth_mbit: expected a number from 0.001 to 1000"),
        (("alice-bob", {"delay": 5}, None), "delay: expected only the members delay_ms, jitter_ms,"),
        (("alice-bob", {"delay_ms": 5}, "carol"), "fibre alice-bob leads to alice and bob, not to 'carol'"),
        (("alice-carol", {"delay_ms": 5}, None), "no fibre 'alice-carol': there are alice-bob, alice-bob-2, bob-carol"),
        (("alice-bob", {"delay_ms": 13, "bandwidth_mbit": None}, None), "fibre alice-bob: unlucky"),
    ],
)
def test_a_wrong_change_is_refused_in_one_line_and_changes_nothing(fibres, wrong, said):
    """Whether a value, a name or the shaper itself is the reason."""
    name, change, towards = wrong
    before = fibres.all()
    with pytest.raises(FibreError, match=f"^{re.escape(said)}") as refused:
        fibres.change(name, change, towards=towards)

    assert "\n" not in str(refused.value)
    assert fibres.all() == before


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("delay 20ms", {"delay_ms": 20}),
        ("delay 20", {"delay_ms": 20}),
        ("delay 0.5s jitter 250us", {"delay_ms": 500, "jitter_ms": 0.25}),
        ("loss 1% bandwidth 100mbit", {"loss_percent": 1, "bandwidth_mbit": 100}),
        ("loss .1 bandwidth 64kbit", {"loss_percent": 0.1, "bandwidth_mbit": 0.064}),
        ("bandwidth 1Gbit", {"bandwidth_mbit": 1000}),
        ("bandwidth none", {"bandwidth_mbit": None}),
    ],
)
def test_words_become_values_in_the_units_of_a_shape(line, found):
    """As people write them; without a unit they are the topology file's."""
    assert changes(line.split()) == pytest.approx(found)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bob carol delay", "delay: expected a value such as 20ms, got ''"),
        ("bob carol delay -1ms", "delay: expected a value such as 20ms, got '-1ms'"),
        ("bob carol delay 1e3", "delay: expected a value such as 20ms, got '1e3'"),
        ("bob carol delay 5km", "delay: expected a value such as 20ms, got '5km'"),
        ("bob carol jitter none", "jitter: expected a value such as 2ms, got 'none'"),
        ("bob carol bandwidth 5ms", "bandwidth: expected a value such as 100mbit, or none, got '5ms'"),
        ("bob carol loss 1% loss 2%", "loss: given twice"),
        ("alice-bob loss 101%", "loss_percent: expected a number from 0 to 100"),
        ("alice-bob delay 61s", "delay_ms: expected a number from 0 to 60000"),
        ("alice-bob colour red", "unknown 'colour': expected delay, jitter, loss, bandwidth,"),
        ("alice-bob delay 5ms measure", "unknown 'measure': expected delay,"),
        ("alice bob delay 5ms", "several fibres join alice and bob: take one by its name, of alice-bob, alice-bob-2"),
        ("alice carol delay 5ms", "no fibre between alice and carol"),
        ("alice dave delay 5ms", "no datacenter 'dave': there are alice, bob, carol"),
        ("alice", "no fibre 'alice': there are alice-bob,"),
        ("alice ->", "expected a datacenter behind ->"),
        ("bob -> carol", "expected what to change: delay, jitter, loss, bandwidth"),
        ("bob -> carol reset", "unknown 'reset': expected delay,"),
        ("alice-bob -> carol delay 5ms", "fibre alice-bob leads to alice and bob, not to 'carol'"),
    ],
)
def test_wrong_commands_are_refused_in_one_line(fibres, shaper, line, said):
    """That names the word and what was expected."""
    with pytest.raises(UserError, match=f"^{re.escape(said)}") as refused:
        obey(requests(fibres), line.split())

    assert "\n" not in str(refused.value)
    assert shaper.told == []


@pytest.mark.parametrize(
    ("line", "there", "back"),
    [
        ("bob carol delay 9ms", Shape(9), Shape(9)),
        ("carol bob delay 9ms", Shape(9), Shape(9)),
        ("bob -> carol delay 9ms", Shape(9), Shape(3)),
        ("carol -> bob loss 5% jitter 1ms", Shape(3), Shape(3, 1, 5)),
        ("bob-carol -> bob delay 9ms", Shape(3), Shape(9)),
        ("bob-carol bandwidth 10mbit", Shape(3, 0, 0, 10), Shape(3, 0, 0, 10)),
    ],
)
def test_commands_change_both_directions_or_the_one_of_the_arrow(fibres, line, there, back):
    """Names of datacenters, or of the fibre."""
    assert "bob-carol is down" in obey(requests(fibres), line.split())
    assert (fibres.get("bob-carol").a_to_b, fibres.get("bob-carol").b_to_a) == (there, back)


def test_directions_that_differ_are_shown_apart(fibres):
    """Those that do not in one line."""
    lines = shapes(requests(fibres)("fibres")).splitlines()[1:]

    assert [" ".join(line.split()) for line in lines] == [
        "alice-bob alice -> bob 1.000 0.000 0.000 -",
        "alice-bob bob -> alice 8.000 0.000 0.000 100.000",
        "alice-bob-2 both ways 2.000 0.000 0.000 -",
        "bob-carol both ways 3.000 0.000 0.000 -",
    ]


def test_controller_and_delay_line_get_each_direction_apart():
    """The delay of the way out, at the port where it begins."""
    planned = make_plan(build(Field("twins", "", TWINS)))
    delays = {p["interface"]: p["delay_ms"] for s in planned.fabric()["switches"] for p in s["ports"]}
    line = delay_lines(planned.links, "answer.json")["lines"][0]

    assert (delays[planned.links[0].port_a], delays[planned.links[0].port_b]) == (1, 8)
    assert (line["a_to_b"]["delay_ms"], line["b_to_a"]["delay_ms"]) == (1, 8)


@pytest.mark.parametrize("shape", [Shape(0), Shape(5, 1, 0.5, 100), Shape(0.25, 0, 0, 0.001), Shape(60_000, 9, 100)])
def test_a_shape_survives_its_configuration(shape):
    """Nothing is lost on the way to the delay line."""
    assert parse_shape(shape.to_json(), "x") == shape


def test_a_shape_without_a_delay_is_none():
    """It has no default."""
    with pytest.raises(Malformed, match=r"^x\.delay_ms: expected a number"):
        parse_shape({"jitter_ms": 1}, "x")


def test_netem_is_always_told_everything():
    """A rate always, for only then are frames kept in order, and what a change leaves out would stay as it was."""
    assert netem_arguments(Shape(5)) == ["limit", "20000", "delay", "5000us", "loss", "0%", "rate", "1000gbit"]
    limited = Shape(0.25, 0.1, 0.001, 0.064)
    told = ["limit", "1001", "delay", "250us", "100us", "loss", "0.001%", "rate", "64000bit"]
    assert netem_arguments(limited) == told


def test_netems_queue_holds_the_fibre_and_a_thousand_frames_more():
    """Frames on the fibre take room in it: 100 Mbit/s for 20 ms are 3907 of the shortest."""
    assert netem_arguments(Shape(20, 0, 0, 100))[1] == "4907"


@pytest.mark.parametrize(
    ("shape", "measured_ms", "off"),
    [
        (Shape(5), 5.1, False),
        (Shape(5), 4.0, True),
        (Shape(5), 0.02, True),
        (Shape(5), 40.0, True),
        (Shape(5, 2), 3.1, False),
        (Shape(0), 0.04, False),
        (Shape(5), None, True),
        (Shape(5, 0, 100), None, False),
    ],
)
def test_a_direction_that_is_not_shaped_as_configured_is_found_out(shape, measured_ms, off):
    """Never early, but for jitter; nothing may come only where everything is lost."""
    assert is_off(shape, measured_ms) is off


def test_shipped_links_are_the_same_both_ways():
    """Defaults are unchanged: only files that say so have two directions that differ."""
    shipped = Path(__file__).resolve().parents[3] / "topologies"
    for name in ("poliqi", "nsfnet", "pair"):
        assert all(link.a_to_b == link.b_to_a for link in load(name, shipped).links)


def test_fibre_never_becomes_so_slow_that_no_key_could_be_handed_out(fibres):
    """Nothing changes; what is slow and still allowed is done."""
    with pytest.raises(FibreError, match="the longest round trip between two datacenters would take"):
        fibres.change("bob-carol", {"delay_ms": 4000})
    assert fibres.get("bob-carol").rtt_ms < 4000

    assert fibres.change("bob-carol", {"delay_ms": 500}).rtt_ms == 1000


def test_fibre_of_a_running_network_becomes_no_slower_than_its_parties_follow(shaper):
    """Whatever the TTL. One that was so slow from the beginning may be so again."""
    fibres = Fibres(make_plan(build(Field("twins", "", TWINS))), shaper, ttl_slots=60)
    with pytest.raises(FibreError, match=r"would take 1\.403 s: a network that runs follows up to 1\.25 s"):
        fibres.change("bob-carol", {"delay_ms": 700})

    slow = {**TWINS, "links": [*TWINS["links"][:2], {"a": "bob", "b": "carol", "delay_ms": 800}]}
    fibres = Fibres(make_plan(build(Field("slow", "", slow))), shaper, ttl_slots=60)
    fibres.change("bob-carol", {"delay_ms": 1})
    assert fibres.change("bob-carol", {"delay_ms": 800}).rtt_ms == 1600
