"""Series: what is left to do, that the same seed means the same work, and that other settings are not mixed in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scenario.topology import load as load_topology
from scenario.workload import arrivals
from scenario.workload import load as load_workload
from testbed.errors import UserError
from testbed.experiments import command
from testbed.experiments.experiment import Seen, Settings, groups, over_repeats
from testbed.experiments.kinds import fig8, sweep
from testbed.experiments.series import NETWORK_S, Store, clear, remaining, seconds, seed_of
from testbed.planning.databases import HA, SINGLE
from testbed.planning.make import make_plan

ROOT = Path(__file__).resolve().parents[4]
WORKLOADS = {p.stem: load_workload(p.stem, ROOT / "workloads") for p in (ROOT / "workloads").glob("*.yaml")}
SETTINGS = Settings(
    seed=3, repeats=3, quick=False, speed=1, topology=load_topology("poliqi", ROOT / "topologies"), workloads=WORKLOADS
)
SWEEP = replace(SETTINGS, over={"mode": ["basic", "qkp"], "ttl": ["5", "15"]})
PAPERS = ("table1", "fig7", "fig8", "latency")


def runs(name, settings=SETTINGS):
    return command.EXPERIMENTS[name].runs(settings)


@pytest.mark.parametrize("name", PAPERS)
def test_same_seed_gives_the_same_runs(name):
    assert runs(name) == runs(name)
    assert runs(name) != runs(name, replace(SETTINGS, seed=4))


@pytest.mark.parametrize("name", PAPERS)
def test_all_phases_of_a_repeat_are_offered_the_same_sessions(name):
    """And another repeat others."""
    seeds = {run.repeat: {phase.seed for phase in run.phases} for run in runs(name)}

    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == 3


@pytest.mark.parametrize("name", PAPERS)
def test_phases_have_names_of_their_own(name):
    for quick in (False, True):
        names = [n for run in runs(name, replace(SETTINGS, quick=quick, speed=5 if quick else 1)) for n in run.names()]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "said",
    ["fig8 --seed 3", "fig8 --workload closest --ttl 20 --seed 3", "latency --topology mine.yaml --repeat 9 --seed 3",
     "fig8 --virtual --quick --seed 3", "table1 --database ha --controller ha --seed 3",
     "sweep --over mode=basic,qkp --over ttl=5,15 --speed 2 --seed 3"],
)  # fmt: skip
def test_command_that_makes_results_again_says_all_that_was_asked(said):
    """Whatever is not as it usually is."""
    words = iter(said.split())
    experiment, given = command.EXPERIMENTS[next(words)], {}
    over, flags = {}, {"--virtual": "virtual", "--quick": "quick"}
    for word in words:
        if word in flags:
            given[flags[word]] = True
        elif word == "--over":
            name, _, values = next(words).partition("=")
            over[name] = values.split(",")
        else:
            given[word] = next(words)
    quick = given.get("quick", False)
    settings = replace(
        SETTINGS, seed=int(given["--seed"]), over=over, virtual=given.get("virtual", False), quick=quick,
        speed=int(given.get("--speed", command._QUICK_SPEED if quick else 1)), workload=given.get("--workload"),
        database=given.get("--database", "single"), controller=given.get("--controller", "single"),
        usual_ttl=int(given.get("--ttl", 15)), topology_said=given.get("--topology", "poliqi"),
        repeats=int(given.get("--repeat", experiment.quick_repeats if quick else experiment.repeats)),
    )  # fmt: skip

    assert command._command(experiment, settings).removeprefix("sudo ") == f"python testbed/run.py experiment {said}"


def test_a_quick_look_takes_about_five_minutes_in_all():
    """As estimated; what the machine adds, the machine adds."""
    total = 0.0
    for name in PAPERS:
        experiment = command.EXPERIMENTS[name]
        total += sum(map(seconds, runs(name, replace(SETTINGS, quick=True, speed=5, repeats=experiment.quick_repeats))))

    assert 150 < total < 360


@pytest.mark.parametrize("name", PAPERS)
def test_time_that_loads_take_is_estimated_within_a_third(name):
    """By the sessions that are drawn: all of a series together, before its first run."""
    saes, drawn = make_plan(SETTINGS.topology).saes, 0.0
    for run in runs(name):
        drawn += NETWORK_S
        for phase in run.phases:
            drawn += phase.settle_s + max(a.at_s + a.length_s for a in arrivals(phase.workload, saes, phase.seed))

    assert sum(map(seconds, runs(name))) == pytest.approx(drawn, rel=1 / 3)


def test_time_that_remains_goes_by_the_runs_that_are_done():
    first, second, third = runs("table1")

    assert remaining([], [first, second], 0.0) == 2 * seconds(first)
    assert remaining([first], [second, third], 3 * seconds(first)) == pytest.approx(6 * seconds(first))


@pytest.mark.parametrize("options", [["--seed", "4"], ["--repeat", "4"]])
def test_what_cannot_go_on_is_said_before_anything_is_run(options, tmp_path, monkeypatch):
    """Not after the hours that other experiments take."""
    monkeypatch.setattr(command, "execute", lambda *_: pytest.fail("something was run"))
    Store(tmp_path / "latency", {"experiment": "latency", "seed": 3, "repeats": 3})

    with pytest.raises(UserError, match="latency holds a series with other settings"):
        command.main(["all", "--out", str(tmp_path), *options], lambda: None)


def test_figure_8_is_five_runs_of_52_or_more():
    """Shares of whole applications out of at least 260, as in the paper."""
    experiment = command.EXPERIMENTS["fig8"]
    found = runs("fig8", replace(SETTINGS, repeats=experiment.repeats))

    assert experiment.repeats >= 5
    assert {phase.workload.applications for run in found for phase in run.phases} == {52}


def test_what_went_well_is_not_done_again(tmp_path):
    store = Store(tmp_path, {"seed": 3})
    first, *_ = runs("fig7")
    store.keep(first.names()[0], {"labels": {}})

    left = store.missing(first)

    assert [p.labels for p in left.phases] == [first.phases[1].labels]
    assert (left.repeat, left.measure_rtts) == (first.repeat, first.measure_rtts)
    assert Store(tmp_path, {"seed": 3}).missing(left) != first


def test_what_failed_is_listed_and_tried_again_and_then_forgotten(tmp_path):
    store = Store(tmp_path, {"seed": 3})
    run, *_ = runs("table1")
    (name,) = run.names()

    store.fail(name, "the cause", tmp_path / "run")

    assert store.missing(run) == run
    assert [f["cause"] for f in store.failures()] == ["the cause"]
    assert list(store.outcomes([run])) == []
    store.keep(name, {"labels": {}})
    assert store.failures() == []
    assert len(list(store.outcomes([run]))) == 1


def test_a_series_with_other_settings_is_not_mixed_in(tmp_path):
    Store(tmp_path, {"seed": 3, "repeats": 6})

    with pytest.raises(UserError, match=r"other settings \(repeats: 6, not 7\)"):
        Store(tmp_path, {"seed": 3, "repeats": 7})
    assert seed_of(tmp_path) == 3


def test_beginning_anew_touches_nothing_else(tmp_path):
    Store(tmp_path, {"seed": 3})
    (tmp_path / "notes.txt").write_text("mine")
    clear(tmp_path)

    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    clear(tmp_path)
    Store(tmp_path, {"seed": 4})


def test_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        Store(tmp_path / "file" / "out", {"seed": 3})


def test_outcome_that_cannot_be_written_is_one_line(tmp_path):
    """As on a disk that is full, or in a folder of root's."""
    store = Store(tmp_path, {"seed": 3})
    (tmp_path / "raw" / "one.json").mkdir()

    with pytest.raises(UserError, match=r"^cannot write \S+/raw/\S+: Is a directory: choose another --out$"):
        store.keep("one", {})


def test_sweep_makes_all_combinations():
    found = {tuple(p.labels.values()): p.parameters for p in sweep.points(SWEEP)}

    assert set(found) == {("basic", "5"), ("basic", "15"), ("qkp", "5"), ("qkp", "15")}
    assert found["qkp", "5"]["mode"] == "qkp"
    assert found["qkp", "5"]["ttl_slots"] == 5


def test_sweep_over_a_mean_keeps_the_kind_of_distribution_and_its_cut():
    point, *_ = sweep.points(replace(SETTINGS, over={"length": ["30"]}))

    assert (point.workload.length_s.kind, point.workload.length_s.mean) == ("exponential", 30)
    assert point.workload.length_s.at_most == 120


def test_values_swept_over_are_those_before_a_load_is_made_faster():
    point, *_ = sweep.points(replace(SETTINGS, speed=5, over={"gap": ["2"]}))

    assert point.workload.gap_s.mean == pytest.approx(0.4)


def test_a_sweep_at_speed_scales_ttl_and_rates_with_the_load():
    """So that a quick look at 33-47 bytes a slot is one at that, and not at a fifth of it."""
    point, *_ = sweep.points(replace(SETTINGS, speed=5, over={"qc-rate": ["33-47"], "ttl": ["30"]}))

    assert point.qc_rate == (165, 235)
    assert point.parameters["ttl_slots"] == 6


def test_a_ttl_that_speed_makes_shorter_than_a_slot_is_one_slot():
    """The shortest that there is, which a network comes up with."""
    point, *_ = sweep.points(replace(SETTINGS, speed=5, over={"ttl": ["5"]}))
    shorter, *_ = sweep.points(replace(SETTINGS, speed=5, over={"ttl": ["2"]}))

    assert (point.parameters["ttl_slots"], shorter.parameters["ttl_slots"]) == (1, 1)


def test_speed_leaves_the_load_as_it_is_against_the_qcs():
    fast = replace(SETTINGS, speed=5)

    assert fast.qc_rate() == (5 * 33, 5 * 47)
    assert fast.ttl_slots * 5 == SETTINGS.ttl_slots == 15
    assert SETTINGS.qc_rate() is None


def test_ttl_of_the_users_choice_is_that_of_all_phases():
    """Figure 8's, too; at speed it is as long against the load."""
    for speed, slots in ((1, 20), (5, 4)):
        found = fig8.runs(replace(SETTINGS, usual_ttl=20, speed=speed))
        assert {phase.parameters["ttl_slots"] for run in found for phase in run.phases} == {slots}


def test_sweep_over_policies_of_the_users_has_a_network_for_each(tmp_path, policies_as_they_were):
    """And says by its labels which; ours beside them need none of their own."""
    policy = "def {}(path, demand):\n    return None\n"
    (tmp_path / "mine.py").write_text(policy.format("all") + policy.format("some"))
    mine = [f"{tmp_path}/mine.py:{name}" for name in ("all", "some")]

    found = sweep.runs(replace(SETTINGS, repeats=1, quick=True, over={"admission": [*mine, "eq1", "none"]}))

    assert [dict(run.policies) for run in found] == [{"admission": mine[0]}, {"admission": mine[1]}, {}]
    labels = [[phase.labels["admission"] for phase in run.phases] for run in found]
    assert labels == [[mine[0]], [mine[1]], ["eq1", "none"]]
    assert [run.phases[0].parameters["admission"] for run in found] == ["all", "some", "eq1"]


def test_sweep_over_the_network_has_a_network_for_each_value():
    found = sweep.runs(replace(SETTINGS, over={"delay": ["0", "10"], "qc-rate": ["33-47", "66-94"]}))

    assert {(r.delay_ms, r.qc_rate) for r in found} == {(d, q) for d in (0, 10) for q in ((33, 47), (66, 94))}


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"colour": ["red"]}, "--over colour: expected one of workload, mode"),
        ({"mode": ["nothing.py:fast"]}, "nothing.py: no such file"),
        ({"mode": ["fast"]}, "--over mode=fast: expected one of basic, qkp, otp, parallel, paths-2, paths-3"),
        ({"ttl": ["0"]}, "--over ttl=0: expected an integer from 1 to"),
        ({"ttl": ["1.5"]}, "--over ttl=1.5: expected an integer from 1 to"),
        ({"gap": ["nan"]}, "--over gap=nan: expected a number"),
        ({"qc-rate": ["9-3"]}, "--over qc-rate=9-3: expected LOW-HIGH"),
        ({"workload": ["none"]}, "--over workload=none: expected one of"),
        ({"ttl": [str(i + 1) for i in range(501)]}, "501 combinations are more than"),
    ],
)
def test_what_cannot_be_swept_over_is_named(over, said):
    with pytest.raises(UserError) as caught:
        sweep.points(replace(SETTINGS, over=over))

    assert said in str(caught.value)


def seen(repeat, values):
    """A phase in which keys took `values` ms."""
    events = [
        {"event": "key_delivered", "method": "enc_keys", "ksid": "k", "hops": 1, "source": "direct", "duration_ms": v}
        for v in values
    ]
    labels, parameters = {"mode": "BASIC"}, {"mode": "basic"}
    return Seen({"repeat": repeat, "labels": labels, "parameters": parameters, "rtts_ms": [], "events": events})


def test_repeats_are_summed_up_one_by_one_and_those_without_values_left_out():
    phases = [seen(1, [1.0, 3.0]), seen(2, []), seen(3, [10.0])]
    ((labels, group),) = groups(phases)
    (found,) = over_repeats(
        "x", "m", "ms", labels, group, observe=lambda one: [d.ms for d in one.deliveries], summarise=max
    )

    assert (found.estimate.low, found.estimate.high, found.estimate.n, found.samples) == (3, 10, 2, 3)


def test_series_of_failures_only_makes_no_results(tmp_path):
    """Its causes are told."""
    experiment = command.EXPERIMENTS["fig7"]
    with pytest.raises(UserError, match=r"no results: .*the cause"):
        command._write(experiment, SETTINGS, {"a": 1}, [], failed=[{"cause": "the cause"}], missing=0, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_settings_can_be_written_down():
    json.dumps(SWEEP.to_json())


def test_networks_of_a_series_have_what_must_not_fail_twice_if_that_is_asked_for():
    """It is another series then; one without begins as it ever did."""
    twice = replace(SETTINGS, database=HA, controller=HA)
    run = runs("table1")[0]

    plan = twice.plan(run)
    assert (plan.database, [each.name for each in plan.controllers]) == (HA, ["ctl", "ctl2"])
    assert twice.to_json() == SETTINGS.to_json() | {"database": HA, "controller": HA}
    plain = SETTINGS.plan(run)
    assert (plain.database, len(plain.controllers)) == (SINGLE, 1)


def test_folder_of_such_a_series_is_another_one(tmp_path, monkeypatch):
    """Its name says what is there twice; without the tools of such a database there is none."""
    monkeypatch.setattr(command, "execute", lambda *_: pytest.fail("nothing is to be run"))
    monkeypatch.setattr(command, "check_tools", refuse)
    options = ["table1", "--database", "ha-async", "--controller", "ha", "--out", str(tmp_path)]

    with pytest.raises(UserError, match="cannot find etcd"):
        command.main(options, lambda: None)
    assert not list(tmp_path.iterdir())

    monkeypatch.setattr(command, "check_tools", lambda _: None)
    monkeypatch.setattr(command, "_run", lambda *_: None)
    monkeypatch.setattr(command, "_make", lambda *_: 0)
    assert command.main(options, lambda: None) == 0
    assert (tmp_path / "table1-database-ha-async-controller-ha" / "series.json").is_file()


def refuse(_: object) -> None:
    """As where nothing of the kind is installed."""
    raise UserError("cannot find etcd")
