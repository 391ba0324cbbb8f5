"""Workloads: files, distributions, and the arrivals drawn from them."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenario.topology import load as load_topology
from scenario.topology_description import TopologyError
from scenario.workload import Distribution, arrivals, load, parse
from testbed.planning.make import make_plan
from testbed.planning.plan import SaePlan

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "workloads"
SAES = [SaePlan(f"{node}{i}", node, f"id-{node}{i}", 1) for node in "abcde" for i in range(3)]
GOOD = {"name": "mine", "applications": 4, "gap_s": {"constant": 2}, "length_s": {"uniform": [10, 20]}}

# The largest distance between an empirical distribution of n values and its law that chance explains in 999 of 1000
# cases is 1.95 / sqrt(n) (Kolmogorov).
CHANCE = 1.95


def distance(values, law):
    """Kolmogorov's distance of `values` from the cumulative distribution `law`."""
    ordered = sorted(values)
    n = len(ordered)
    return max(max(abs((i + 1) / n - law(v)), abs(i / n - law(v))) for i, v in enumerate(ordered))


def drawn(distribution, number=5000, seed=1):
    generator = random.Random(seed)
    return [distribution.draw(generator) for _ in range(number)]


def test_exponential_figures_follow_the_exponential_law():
    values = drawn(Distribution("exponential", 60))

    assert distance(values, lambda v: 1 - math.exp(-v / 60)) < CHANCE / math.sqrt(len(values))


def test_uniform_figures_follow_the_uniform_law():
    values = drawn(Distribution("uniform", 10, 30))

    assert distance(values, lambda v: (v - 10) / 20) < CHANCE / math.sqrt(len(values))


def test_constant_figures_are_constant():
    assert set(drawn(Distribution("constant", 5), 100)) == {5}


def test_what_exceeds_the_cut_is_the_cut():
    """As in the authors' published software: min(drawn, 120), so a share of exp(-2) lasts exactly 120 s."""
    values = drawn(Distribution("exponential", 60, at_most=120))

    assert max(values) == 120
    assert values.count(120) / len(values) == pytest.approx(math.exp(-2), abs=0.02)


def test_the_papers_workload_is_what_it_says():
    """52 applications with exponential gaps, cut exponential lengths, 128 bits every 5 s."""
    workload = load("paper", SHIPPED)
    found = [a for seed in range(100) for a in arrivals(workload, SAES, seed)]
    lengths = [a.length_s for a in found if a.length_s < 120]
    gaps = []
    for seed in range(100):
        times = [a.at_s for a in arrivals(workload, SAES, seed)]
        assert times[0] == 0
        gaps += [b - a for a, b in itertools.pairwise(times)]
    mean = workload.gap_s.first

    assert len(found) == 5200
    assert {(a.qos.key_size_bits, a.qos.interval_s) for a in found} == {(128, 5)}
    assert distance(gaps, lambda v: 1 - math.exp(-v / mean)) < CHANCE / math.sqrt(len(gaps))
    inside = 1 - math.exp(-2)
    assert distance(lengths, lambda v: (1 - math.exp(-v / 60)) / inside) < CHANCE / math.sqrt(len(lengths))


def test_pairs_are_drawn_evenly_from_all_on_different_nodes():
    """Over many seeds each ordered pair of nodes comes up alike; within one no pair of SAEs twice."""
    workload = parse(GOOD | {"applications": 52}, "w.yaml")
    count: dict[tuple[str, str], int] = {}
    for seed in range(200):
        pairs = [(a.master, a.slave) for a in arrivals(workload, SAES, seed)]
        assert len(set(pairs)) == 52
        for master, slave in pairs:
            count[master.node, slave.node] = count.get((master.node, slave.node), 0) + 1

    assert len(count) == 20
    assert all(number == pytest.approx(52 * 200 / 20, rel=0.2) for number in count.values())


@given(seed=st.integers(0, 2**31))
def test_same_seed_gives_the_same_arrivals(seed):
    workload = load("paper", SHIPPED)

    assert arrivals(workload, SAES, seed) == arrivals(workload, SAES, seed)


def test_changing_one_distribution_leaves_what_the_others_give():
    """So that a sweep over one figure compares like with like."""
    one = arrivals(parse(GOOD, "w.yaml"), SAES, 3)
    other = arrivals(parse(GOOD | {"gap_s": {"exponential": 9}}, "w.yaml"), SAES, 3)

    assert [(a.master, a.slave, a.length_s) for a in one] == [(a.master, a.slave, a.length_s) for a in other]


def test_faster_load_is_the_same_load_in_less_time():
    workload = load("paper", SHIPPED)
    usual, fast = (arrivals(w, SAES, 3) for w in (workload, workload.faster(5)))

    assert [a.at_s for a in fast] == pytest.approx([a.at_s / 5 for a in usual])
    assert [a.length_s for a in fast] == pytest.approx([a.length_s / 5 for a in usual])
    assert {a.qos.interval_s for a in fast} == {1}


def test_more_applications_than_pairs_are_refused():
    with pytest.raises(TopologyError, match="expected at most 180 applications"):
        arrivals(parse(GOOD | {"applications": 181}, "w.yaml"), SAES, 1)


@pytest.mark.parametrize("name", ["paper", "prototype"])
def test_shipped_workloads_fit_poliqi(name):
    plan = make_plan(load_topology("poliqi", ROOT / "topologies"))

    assert len(arrivals(load(name, SHIPPED), plan.saes, 1)) == 52


def test_a_workload_survives_being_written_down():
    for path in SHIPPED.glob("*.yaml"):
        workload = load(path.stem, SHIPPED)
        for one in (workload, workload.faster(5)):
            assert parse(one.to_json(), "again") == one


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"applications": 0}, "applications: expected at least one"),
        ({"applications": "many"}, "applications: expected a whole number"),
        ({"gap_s": 3}, "gap_s: expected a mapping"),
        ({"gap_s": {}}, "gap_s: expected one of constant, exponential, uniform"),
        ({"gap_s": {"constant": 1, "exponential": 1}}, "gap_s: expected one of constant"),
        ({"gap_s": {"exponential": 0}}, "gap_s.exponential: expected a mean above 0"),
        ({"length_s": {"uniform": [2, 1]}}, "length_s.uniform: expected two numbers, the lower one first"),
        ({"length_s": {"constant": 1, "at_most": -1}}, "length_s.at_most: expected a plain number"),
        ({"length_s": {"constant": 1, "at_least": 5, "at_most": 4}}, "at_least <= at_most"),
        ({"interval_s": {"constant": 1, "at_least": 0}}, "interval_s: expected 0.001 <= at_least"),
        ({"on_key_failure": "panic"}, "on_key_failure: expected end or go_on"),
        ({"pace": "slow"}, "pace: expected session or application"),
        ({"speed": 1}, "unknown member 'speed'"),
    ],
)
def test_mistakes_are_named_with_what_was_expected(change, said):
    with pytest.raises(TopologyError) as caught:
        parse(GOOD | change, "w.yaml")

    assert said in str(caught.value)
    assert "w.yaml" in str(caught.value)


def test_unknown_name_lists_what_there_is():
    with pytest.raises(TopologyError, match="paper, prototype"):
        load("papr", SHIPPED)


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(TopologyError, match="No such file"):
        load(str(tmp_path / "none.yaml"), SHIPPED)
