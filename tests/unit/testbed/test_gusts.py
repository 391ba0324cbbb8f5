"""The fault storm: what a seed has come, and how it is told."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtls.call import Unreachable
from mtls.identity import Identity, Role
from scenario.topology import load
from testbed.errors import UserError
from testbed.machine.run_directory import open_run_directory
from testbed.planning.databases import HA
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan
from testbed.storm import gusts, raging
from testbed.storm.__main__ import main
from testbed.storm.devices import marked
from testbed.storm.injector import Victims
from testbed.storm.result import Result, parse
from testbed.storm.strangers import StrangerPair, with_strangers
from testbed.storm.watch import Logs, Outcome, Sessions
from tests.e2e.test_storm import DEVICES, DEVICES_FAULTS, DEVICES_SEED, SPARE_SEED
from tests.e2e.test_storm import SEED as SHORT_SEED

POLIQI = load("poliqi", Path(__file__).resolve().parents[3] / "topologies")
PLAN = make_plan(POLIQI)
SPARE = make_plan(POLIQI, HA, standby=True)  # what must not fail is there twice
REAL = make_plan(marked(POLIQI, 3))  # three of five fibres have real QKD devices
LONGEST_S = 30.0
MODES = ("qkp", "basic", "otp", "parallel", "paths-2")  # of gusts 5, 1, 2, 3, 4 and so on
SEEDS = st.integers(0, 1 << 32)


def storm(seed: int, faults: int = 60, plan: Plan = PLAN) -> list[gusts.Gust]:
    """A storm over PoliQI."""
    return gusts.storm(plan, seed, faults, LONGEST_S)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_seed_gives_the_same_storm_again_and_each_gust_of_it_alone(seed):
    """However many faults are asked for."""
    found = storm(seed)

    assert found == storm(seed) == storm(seed, 200)[: len(found)]
    assert [gusts.nth(PLAN, seed, g.number, LONGEST_S) for g in found[::7]] == found[::7]
    assert found != storm(seed + 1)


def test_storm_of_2000_faults_has_all_kinds_and_modes_in_gusts_of_a_few():
    """Each kind often enough to tell how the network heals from it, and what it says of that."""
    found = storm(1, 2000)
    kinds = Counter(blow.kind for gust in found for blow in gust.blows)

    assert sum(kinds.values()) >= 2000
    assert set(kinds) == set(gusts.WEIGHTS) - {gusts.PARTITION, *gusts.OF_DEVICES}
    assert min(kinds.values()) >= 40
    assert Counter(g.mode for g in found).keys() == {"basic", "otp", "parallel", "paths-2", "qkp"}
    assert {len(g.blows) for g in found} == {2, 3, 4, 5}
    assert [g.number for g in found] == list(range(1, len(found) + 1))


def test_storm_hits_the_leader_the_standby_and_each_host_of_a_database_that_fails_over():
    """Where the network has them: by what they are when the gust comes. A standby by hand is none of these faults."""
    found = [blow for gust in storm(1, 2000, SPARE) for blow in gust.blows]
    kinds = Counter(blow.kind for blow in found)

    assert set(kinds) == set(gusts.WEIGHTS) - {gusts.STANDBY, *gusts.OF_DEVICES}
    assert min(kinds.values()) >= 40
    controllers = {(gusts.CONTROLLER, which) for which in ("primary", "standby")}
    hosts = {(gusts.HOST, which) for which in ("primary", "standby", "db3")}
    on = {kind: {blow.on for blow in found if blow.kind == kind} for kind in kinds}
    assert controllers | hosts <= on[gusts.KILL]
    assert controllers <= on[gusts.PAUSE]
    assert on[gusts.PARTITION] == hosts
    assert not {(gusts.CONTROLLER,), (gusts.DATABASE,)} & (on[gusts.KILL] | on[gusts.PAUSE])
    assert ("controller-ctl2",) in on[gusts.DISK]


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_one_host_of_the_database_fails_at_a_time(seed):
    """So much the database bears; of two nobody promises that keys come before both are back."""
    for gust in storm(seed, 60, SPARE):
        assert sum(blow.on[0] == gusts.HOST for blow in gust.blows) <= 1


@pytest.mark.parametrize("number", [2, 5])
def test_storm_over_real_devices_kills_slows_and_cuts_off_those_that_there_are(number):
    """At either end; and asks of no real device what only emulated ones can be asked for."""
    plan = make_plan(marked(POLIQI, number))
    real = {frozenset((link.a, link.b)) for link in POLIQI.links[:number]}
    names = {qc.name for link in POLIQI.links[:number] for qc in link.qcs}
    found = [blow for gust in storm(1, 2000, plan) for blow in gust.blows]
    on = {kind: {blow.on for blow in found if blow.kind == kind} for kind in gusts.WEIGHTS}

    for kind in gusts.OF_DEVICES:
        assert {frozenset(ends) for ends in on[kind]} == real
        assert {ends[0] for ends in on[kind]} == {node for ends in real for node in ends}
    for kind in (gusts.QC, gusts.DEVICE):
        assert not real & {frozenset(ends) for ends in on[kind]}
    assert bool(on[gusts.DEVICE]) == (number < len(POLIQI.links))
    assert not names & {value[1] for value in on[gusts.SET] if value[0] == gusts.RATE}
    assert names <= {value[1] for value in on[gusts.SET] if value[0] == gusts.GENERATION}


def test_more_devices_than_there_are_fibres_are_refused_in_one_line(capsys):
    """Before anything is built."""
    assert main(["--dry-run", "--devices", "6"]) == 2

    assert capsys.readouterr().err == "storm: --devices 6: expected at most 5, one for each fibre\n"


@given(SEEDS, st.sampled_from([PLAN, SPARE, REAL]))
@settings(max_examples=20, deadline=None)
def test_nothing_is_hit_twice_in_a_gust(seed, plan):
    """Neither a process, nor a fibre, nor a disk, nor a session, nor a setting."""
    for gust in storm(seed, plan=plan):
        things = [_thing(blow) for blow in gust.blows]
        assert len(set(things)) == len(things), gust
        killed = [blow.on[0] for blow in gust.blows if blow.kind == gusts.KILL]
        sessions = [blow.on for blow in gust.blows if blow.kind in (gusts.OPEN, gusts.END)]
        assert not gusts.forgotten(PLAN, killed, sessions), gust


def _thing(blow: gusts.Blow) -> tuple[str, ...]:
    families = (
        (gusts.KILL, gusts.PAUSE, gusts.STANDBY, gusts.PARTITION),
        (gusts.ONE_WAY, gusts.CUT, gusts.QC, gusts.DEVICE, *gusts.OF_DEVICES),
        (gusts.OPEN, gusts.END),
    )
    family = next((kinds[0] for kinds in families if blow.kind in kinds), blow.kind)
    if blow.kind == gusts.SET:
        return family, *blow.on[:-1]
    return family, *(sorted(blow.on) if family == gusts.ONE_WAY else blow.on)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_what_is_open_after_a_gust_is_open_before_the_next(seed):
    """A session is opened only where there is none, and ended only where there is one."""
    found = storm(seed)
    for gust, following in itertools.pairwise(found):
        for blow in gust.blows:
            if blow.kind in (gusts.OPEN, gusts.END):
                assert (blow.on in gust.before) == (blow.kind == gusts.END)
        assert following.before == gust.after
        assert len(set(gust.after)) == len(gust.after)


@given(SEEDS, st.floats(0.2, 30))
@settings(max_examples=20, deadline=None)
def test_no_fault_lasts_longer_than_asked_for(seed, longest_s):
    """And what has a duration lasts a tenth of a second at least."""
    for gust in gusts.storm(PLAN, seed, 30, longest_s):
        for blow in gust.blows:
            at_once = blow.kind in (gusts.OPEN, gusts.END)
            assert blow.for_s == 0 if at_once else 0.1 <= blow.for_s <= round(longest_s, 1)


def test_each_datacenter_has_a_stranger_that_the_testbed_does_not_run():
    """Beside the applications that were there."""
    plan = make_plan(with_strangers(POLIQI))

    added = [sae for sae in plan.saes if sae.name not in {s.name for s in PLAN.saes}]
    assert [sae.node for sae in added] == plan.nodes
    assert all(sae.external for sae in added)
    assert len(plan.applications) == len(PLAN.applications)


def test_results_of_networks_add_up_and_are_told_in_a_table():
    """Also after they were written down."""
    late = "gust 2: pair a-b: served after 12.0 s"
    first = Result(2, {"kill": [900, 1100], "cut": [None]}, {"open": 1}, [late], {"identical": 7})
    second = Result(1, {"kill": [5000]}, {"open": 1, "kill": 1}, [], {"identical": 1, "enc_keys: 503 path_down": 3})

    total = Result()
    first.takeovers = {"database": 2}
    second.takeovers = {"database": 1, "controller": 4}
    total.add(parse(json.loads(json.dumps(first.to_json()))))
    total.add(second)

    assert (total.gusts, total.faults) == (3, 4)
    shown = [" ".join(line.split()) for line in total.for_people().splitlines()]
    assert {"kill 3 1100 5000 0 1", "cut 1 - - 1 0", "open 0 - - 0 2", "all 4 1100 5000 1 3"} <= set(shown)
    assert {"identical 8", "database 3", "controller 4"} <= set(shown)
    assert shown[-2:] == [f"FINDING {late}", "3 gusts, 4 faults, 1 findings"]


def test_bug_in_a_log_is_told_once_in_a_line(tmp_path):
    """Whatever else stands there."""
    log = tmp_path / "node-a.log"
    log.write_text("2026 WARNING the database is away\n")
    logs = Logs(tmp_path)
    assert logs.bugs() == []

    with log.open("a") as file:
        file.write('Traceback (most recent call last):\n  File "x.py", line 1, in f\n    g()\nKeyError: 3\nmore\n')
        file.write('GET /x: a bug of ours, ValueError\nValueError at\n  File "x.py", line 1, in f\n    g()\n')

    assert logs.bugs() == ["node-a.log: traceback: KeyError: 3", "node-a.log: GET /x: a bug of ours, ValueError"]
    assert logs.bugs() == []


def test_dry_run_tells_what_would_come(capsys):
    """And needs neither root nor a network."""
    assert main(["--dry-run", "--seed", "4", "--faults", "9", "--longest", "2"]) == 0

    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("seed 4, ")
    assert [line.split()[:3] for line in lines] == [["gust", str(n), MODES[n % 5]] for n in range(1, len(lines) + 1)]


@pytest.mark.parametrize(
    "words", [("--only-gust", "0"), ("--faults", "many"), ("--longest", "0"), ("--longest", "1e9"), ("--within", "nan")]
)
def test_option_that_cannot_be_is_one_line(capsys, words):
    """Exit status 2."""
    with pytest.raises(SystemExit) as error:
        main(words)

    assert error.value.code == 2
    assert f"error: argument {words[0]}: expected " in capsys.readouterr().err


class Played:
    """A foreign SAE whose KME the test plays: it gives one answer, or fails."""

    def __init__(self, node: str, answer: tuple[int, Any] | Exception) -> None:
        self.id = self.node = node
        self._answer = answer

    def call(self, *_: object) -> tuple[int, Any]:
        """The answer."""
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


ID = "8a0e9f7e-7f0c-4c50-9f0c-2d5fb1b0c1aa"
GIVEN = (200, {"keys": [{"key_ID": ID, "key": "AAAA"}]})
OTHER = (200, {"keys": [{"key_ID": ID, "key": "BBBB"}]})
DOWN = (503, {"message": "the path is down", "details": [{"cause": "path_down"}]})


@pytest.mark.parametrize(
    ("master", "slave", "failure", "broken"),
    [
        (GIVEN, GIVEN, "", ""),
        (GIVEN, OTHER, "differ", f"key {ID} of a-b: the two sides got different keys"),
        (DOWN, GIVEN, "enc_keys: 503 path_down", ""),
        (GIVEN, (400, {"message": "not found"}), "dec_keys: 400 not found", ""),
        (GIVEN, DOWN, "dec_keys: 503 path_down", ""),
        ((500, {"message": "oh"}), GIVEN, "enc_keys: 500 oh", "enc_keys: 500 oh"),
        (ConnectionRefusedError(111, "Connection refused"), GIVEN, "enc_keys: Connection refused", ""),
        (GIVEN, TimeoutError("timed out"), "dec_keys: no answer within 5 s", ""),
    ],
)
def test_exchange_tells_what_a_fault_explains_from_what_nothing_does(master, slave, failure, broken):
    """Two keys, and answers that only a bug can give, are findings; refusals and silence are what faults are for."""
    found = StrangerPair(Played("a", master), Played("b", slave)).exchange()

    assert (found.failure, found.broken) == (failure, broken)


@pytest.mark.parametrize("answer", [(200, {"keys": []}), (200, []), (503, "no"), ValueError("not JSON")])
def test_answer_that_the_standard_does_not_know_is_a_finding(answer):
    """Whatever it is."""
    found = StrangerPair(Played("a", answer), Played("b", GIVEN)).exchange()

    assert found.broken.startswith("enc_keys: an answer that the standard does not know")


class PlayedInjector:
    """Sessions as controller and masters see them, and what is asked of them again."""

    def __init__(self) -> None:
        self.controller: dict[tuple[str, str], dict[str, Any]] = {}
        self.keys: dict[tuple[str, str], int] = {}
        self.asked: list[tuple[str, ...]] = []

    def add(self, *pair: str, **facts: Any) -> None:
        """A session that is open and had three keys."""
        session = {"ksid": " ".join(pair), "master": pair[0], "slave": pair[1], "implicit": False,
                   "state": "open", "interruption": None}  # fmt: skip
        self.controller[pair] = session | facts
        self.keys[pair] = 3

    def do(self, name: str, /) -> list[dict[str, Any]]:
        """The sessions at the controller."""
        assert name == "sessions"
        return list(self.controller.values())

    def sessions_of(self, master: str) -> list[dict[str, Any]]:
        """At a master."""
        return [{"ksid": " ".join(p), "peer": p[1], "keys": n, "errors": {}}
                for p, n in self.keys.items() if p[0] == master]  # fmt: skip

    def open(self, *pair: str) -> None:
        """Is noted, and refused."""
        self.asked.append(("open", *pair))
        raise UserError("no")

    def end(self, *pair: str) -> None:
        """Is noted."""
        self.asked.append(("end", *pair))


@pytest.fixture
def played() -> PlayedInjector:
    """Two sessions."""
    made = PlayedInjector()
    made.add("a", "b")
    made.add("c", "d")
    return made


def test_session_is_whole_once_it_has_another_key(played):
    """What came before does not count."""
    sessions = Sessions(played, [("a", "b"), ("c", "d")])
    assert len(list(sessions.lacking())) == 2

    played.keys["a", "b"] += 1
    assert list(sessions.lacking()) == ["session c with d gets no keys: {}"]
    played.keys["c", "d"] += 1
    assert list(sessions.lacking()) == []


def test_sessions_that_are_not_as_they_should_be_are_named_and_left_alone(played):
    """One that is missing, one that is interrupted, one that has ended, one that its master has forgotten."""
    played.add("e", "f", interruption="the path is down")
    del played.keys["a", "b"]
    sessions = Sessions(played, [("a", "b"), ("e", "f"), ("g", "h")])

    assert list(sessions.lacking()) == [
        "session e with f is the path is down",
        "session g with h is not there",
        "session c with d has ended, and is there",
        "session a with b is open, and its master has none",
        "session e with f gets no keys: {}",
    ]
    assert not played.asked


def test_what_was_refused_is_asked_for_until_it_is_done(played):
    """The session that was not ended is ended once; the one that is refused still is asked for again."""
    sessions = Sessions(played, [("a", "b"), ("g", "h")], refused=[("c", "d"), ("g", "h")])

    for _ in range(2):
        assert "session g with h is not there: no" in list(sessions.lacking())

    assert played.asked == [("open", "g", "h"), ("end", "c", "d"), ("open", "g", "h")]


def test_application_that_was_killed_opens_its_sessions_anew(played):
    """After it has ended what others still have of them."""
    del played.keys["c", "d"]
    Sessions(played, [("a", "b"), ("c", "d")], lost=[("c", "d")])

    assert played.asked == [("end", "c", "d"), ("open", "c", "d")]


def test_session_whose_slave_was_killed_is_left_to_its_master(played):
    """It ends it, and opens another one, by itself: an end from elsewhere could hit that one."""
    Sessions(played, [("a", "b"), ("c", "d")], lost=[("c", "d")])

    assert played.asked == [("open", "c", "d")]  # for the case that it could not


class PlayedStorm:
    """What a storm works with: refuses those blows that stand in `refused`, and is whole at once."""

    def __init__(self, refused: list[gusts.Blow]) -> None:
        self.refused = refused
        self.told: list[Any] = []
        self.counted: Counter[str] = Counter()

    def do(self, name: str, /, **_: Any) -> None:
        """A mode is set."""
        assert name == "set"

    def start(self) -> None:
        """Foreign clients ask."""

    def close(self) -> None:
        """They are done."""

    def break_(self, blow: gusts.Blow) -> None:
        """A fault."""
        if blow in self.refused:
            raise UserError("no")

    def heal(self, blow: gusts.Blow) -> None:
        """It is over."""

    def until_whole(self, _: gusts.Gust, __: float, refused: Any) -> Outcome:
        """Nothing is lacking."""
        self.told.append(refused)
        return Outcome(0.1, [])


def test_fault_that_did_not_happen_is_none_and_is_a_finding_unless_the_network_was_asked_for_it(tmp_path, monkeypatch):
    """A session that is not opened is refused by a network under faults; what is done to a network has to be done."""
    cut, kill = gusts.Blow("cut", ("a", "b"), 0, 0), gusts.Blow("kill", ("node-c",), 0, 0)
    opened, ended = gusts.Blow("open", ("d", "e"), 0, 0), gusts.Blow("end", ("f", "g"), 0, 0)
    played, result = PlayedStorm([kill, opened]), Result()
    monkeypatch.setattr(raging, "Strangers", lambda *_: played)
    monkeypatch.setattr(raging, "Watch", lambda *_, **__: played)
    run = open_run_directory(tmp_path / "run", tmp_path)

    storm = raging._Storm(SimpleNamespace(run=run), played, result, 10.0)
    storm.rage([gusts.Gust(n, "otp", (("h", "i"),), (cut, kill, opened, ended)) for n in (1, 2, 3)], faults=3)

    assert (result.gusts, result.faults, result.refused) == (2, 4, {"kill": 2, "open": 2})
    assert result.findings == [
        f"gust {n}: kill node-c at 0.0: was not done, see storm/journal.jsonl" for n in (1, 2)
    ]
    assert played.told == [(("h", "i"),), [("d", "e")], [("d", "e")]]  # at first all that is to be open


class PlayedNetwork:
    """A network of which the test says who leads and which host of the database takes writes; it notes what is done."""

    def __init__(self, leader: str | None, primary: str | None) -> None:
        self.leads, self.primary = leader, primary
        self.done: list[tuple[str, ...]] = []

    def leader(self) -> Identity:
        """As the desk asks."""
        if self.leads is None:
            raise Unreachable("https://ctl", "no controller leads now")
        return Identity(Role.CONTROLLER, self.leads)

    def victims(self) -> Victims:
        """Of the network with spare parts."""
        return Victims(SPARE, self.leader, lambda: self.primary)


LEADER, OTHER_ONE = (gusts.CONTROLLER, "primary"), (gusts.CONTROLLER, "standby")


def test_blow_hits_whoever_has_the_part_then_and_is_healed_where_it_hit():
    """Also when another one has it meanwhile; then it hits that one the next time."""
    network = PlayedNetwork("ctl2", "db2")
    victims = network.victims()

    assert victims.hit(LEADER) == (gusts.CONTROLLER, "ctl2")
    assert victims.hit((gusts.HOST, "standby")) == (gusts.HOST, "db")
    network.leads, network.primary = "ctl", "db"
    assert victims.hit_by(LEADER) == (gusts.CONTROLLER, "ctl2")
    assert victims.hit_by((gusts.HOST, "standby")) == (gusts.HOST, "db")
    victims.forget(LEADER)
    assert victims.hit(LEADER) == (gusts.CONTROLLER, "ctl")
    for on in [(gusts.HOST, "db3"), (gusts.CONTROLLER,), ("node-finance",), ("finance", "telecom")]:
        assert victims.hit(on) == victims.hit_by(on) == on


@pytest.mark.parametrize("leader", ["ctl", "ctl2", None])
def test_two_blows_on_controllers_hit_both_of_them(leader):
    """Whoever leads when the second one comes; and with nobody who has the part, one is hit all the same."""
    network = PlayedNetwork("ctl", None)
    victims = network.victims()
    first = victims.hit(LEADER)
    network.leads = leader

    assert {first[1], victims.hit(OTHER_ONE)[1]} == {"ctl", "ctl2"}
    assert victims.hit((gusts.HOST, "primary")) == (gusts.HOST, "db")


@pytest.mark.parametrize(("refusals", "findings"), [(2, []), (9999, ["gust 1: mode otp: no"])])
def test_mode_is_asked_for_again_as_long_as_a_network_may_take_to_heal(tmp_path, monkeypatch, refusals, findings):
    """The database may fail over at the end of a gust, and the network be served all the same."""
    played, result, asked = PlayedStorm([]), Result(), itertools.count(1)
    monkeypatch.setattr(raging, "_AGAIN_S", 0.001)
    monkeypatch.setattr(raging, "Strangers", lambda *_: played)
    monkeypatch.setattr(raging, "Watch", lambda *_, **__: played)

    def do(*_: object, **__: object) -> None:
        if next(asked) <= refusals:
            raise UserError("no")

    monkeypatch.setattr(played, "do", do)
    storm = raging._Storm(SimpleNamespace(run=open_run_directory(tmp_path / "run", tmp_path)), played, result, 0.05)
    storm._gust = 1

    storm._set_mode("otp")

    assert result.findings == findings


def test_short_storm_of_the_suite_has_every_kind_of_fault():
    """And kills every kind of process."""
    plan = make_plan(with_strangers(POLIQI))
    blows = [blow for gust in gusts.storm(plan, SHORT_SEED, 20, 2.0) for blow in gust.blows]

    assert {blow.kind for blow in blows} == gusts.WEIGHTS.keys() - {gusts.PARTITION, *gusts.OF_DEVICES}
    killed = {blow.on[0].partition("-")[0] for blow in blows if blow.kind == gusts.KILL}
    assert killed == {"node", "sae", gusts.CONTROLLER, gusts.DATABASE, gusts.QCS}


def test_storm_over_a_network_with_spare_parts_hits_what_takes_over():
    """The one of the slow tests."""
    plan = make_plan(with_strangers(POLIQI), HA, standby=True)
    storm = gusts.storm(plan, SPARE_SEED, 12, 12.0)
    lasts_s = {(blow.kind, *blow.on): blow.for_s for gust in storm for blow in gust.blows}

    primary = (gusts.HOST, "primary")
    assert min(lasts_s[gusts.KILL, *LEADER], lasts_s[gusts.PAUSE, *LEADER]) > 3.5
    assert min(lasts_s[gusts.KILL, *primary], lasts_s[gusts.PARTITION, *primary]) > 8.5


def test_short_storm_over_real_devices_has_every_fault_of_theirs():
    """That of the suite; and a node is killed that has keys of one."""
    plan = make_plan(marked(with_strangers(POLIQI), DEVICES))
    blows = [blow for gust in gusts.storm(plan, DEVICES_SEED, DEVICES_FAULTS, 3.0) for blow in gust.blows]
    hit = [blow.on for blow in blows if blow.kind in gusts.OF_DEVICES]

    assert {blow.kind for blow in blows} >= {*gusts.OF_DEVICES}
    killed = {blow.on[0] for blow in blows if blow.kind == gusts.KILL}
    assert killed & {f"node-{node}" for ends in hit for node in ends}
