"""The lease and the store of two controllers, in a real PostgreSQL: who leads is decided there, and only he writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.leading.lease import Leader
from controller.leading.shared_store import Calls, LeaseCalls, SharedStore, TermOver
from controller.network.store import NotKept
from tests.support.two_controllers import NAMES, TwoControllers

LONG_S = 60.0


class Party:
    """What a controller has of the database."""

    def __init__(self, world: TwoControllers, name: str) -> None:
        self.name = name
        self.calls = Calls(world.store_url(name), world.schema, name, round_trip_s=0.0)
        self.lease = LeaseCalls(self.calls, LONG_S)
        self.term = 0
        self.sure, self.overs = True, 0
        self.store = SharedStore(self.calls, lambda: self.term, lambda: self.sure, self.over)

    def over(self) -> None:
        """Its term is."""
        self.overs += 1

    def try_to_lead(self) -> bool:
        """Whether it leads now."""
        leader, _ = self.lease.lead()
        if leader.name == self.name:
            self.term = leader.term
        return leader.name == self.name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoControllers]:
    """The database."""
    found = TwoControllers(tmp_path_factory.mktemp("store"))
    yield found
    found.stop()


@pytest.fixture
def world(made: TwoControllers) -> TwoControllers:
    """As it is at the beginning."""
    made.sql("DELETE FROM kept; UPDATE leader SET name = 'ctl', term = 0, until = clock_timestamp() + interval '1 h'")
    return made


@pytest.fixture
def parties(world: TwoControllers) -> Iterator[dict[str, Party]]:
    """Both."""
    found = {name: Party(world, name) for name in NAMES}
    yield found
    for party in found.values():
        party.calls.close()


def let_expire(world: TwoControllers) -> None:
    """The leader has said nothing for as long as its lease lasts."""
    world.sql("UPDATE leader SET until = clock_timestamp()")


def test_first_controller_leads_first_and_the_other_one_when_its_lease_is_over(world, parties):
    """Each in a term of its own."""
    ctl, ctl2 = parties.values()
    assert not ctl2.try_to_lead()
    assert ctl.try_to_lead()
    assert not ctl2.try_to_lead()

    let_expire(world)

    assert ctl2.try_to_lead()
    assert (ctl.term, ctl2.term) == (1, 2)
    assert ctl.lease.renew(ctl.term, 0) == Leader("ctl2", 2)


def test_leader_that_resigns_need_not_be_waited_for(parties):
    """As at an orderly end."""
    ctl, ctl2 = parties.values()
    ctl.try_to_lead()
    ctl.lease.resign(ctl.term)

    assert ctl2.try_to_lead()


def test_what_a_leader_kept_the_next_one_finds(world, parties):
    """Sessions and settings; and what it forgot is not there."""
    ctl, ctl2 = parties.values()
    ctl.try_to_lead()
    ctl.store.put_session("a", {"n": 1})
    ctl.store.put_session("b", {"n": 2})
    ctl.store.put_session("a", {"n": 3})
    ctl.store.remove_session("b")
    ctl.store.put_setting("parameters", {"mode": "otp"})
    let_expire(world)
    ctl2.try_to_lead()

    assert ctl2.store.sessions() == [{"n": 3}]
    assert (ctl2.store.setting("parameters"), ctl2.store.setting("none")) == ({"mode": "otp"}, {})


def test_leader_whose_term_is_over_keeps_and_forgets_nothing(world, parties):
    """Though it does not know: it slept. It is told, and nothing has changed."""
    ctl, ctl2 = parties.values()
    ctl.try_to_lead()
    ctl.store.put_session("a", {"by": "ctl"})
    let_expire(world)
    ctl2.try_to_lead()

    with pytest.raises(TermOver):
        ctl.store.put_session("a", {"by": "a sleeper"})
    ctl.store.remove_session("a")

    assert ctl.overs == 2
    assert ctl2.store.sessions() == [{"by": "ctl"}]


def test_lease_that_nobody_took_over_goes_on(world, parties):
    """The database was away for longer than the lease lasts."""
    ctl = parties["ctl"]
    ctl.try_to_lead()
    let_expire(world)

    ctl.store.put_session("a", {})

    assert ctl.lease.renew(ctl.term, 0) == Leader("ctl", ctl.term)


def test_term_goes_above_what_nodes_have_heard_of(world, parties):
    """A database that lost commits gives a term anew; nodes go by the one that had it first."""
    ctl = parties["ctl"]
    ctl.try_to_lead()

    assert ctl.lease.renew(ctl.term, 6) == Leader("ctl", 7)
    assert ctl.lease.renew(7, 6) == Leader("ctl", 7)


def test_controller_that_comes_again_takes_its_own_lease_over(parties):
    """In a new term: what it was before may still have calls under way."""
    ctl = parties["ctl"]
    assert ctl.try_to_lead()
    assert ctl.try_to_lead()

    assert ctl.term == 2


def test_unsure_leader_refuses_at_once_and_forgets_later(world, parties):
    """Nobody waits for a database that does not answer; what was to be forgotten is, once that is possible."""
    ctl = parties["ctl"]
    ctl.try_to_lead()
    ctl.store.put_session("a", {})
    ctl.sure = False

    with pytest.raises(NotKept, match="may lead no more"):
        ctl.store.put_session("b", {})
    ctl.store.remove_session("a")
    assert ctl.store.sessions() == [{}]

    ctl.sure = True
    ctl.store.catch_up()
    assert ctl.store.sessions() == []


def test_controller_speaks_for_itself_and_touches_no_table(world, parties):
    """Nor anything of the nodes'."""
    with psycopg.connect(world.store_url("ctl"), autocommit=True) as connection:
        schemas = map(psycopg.sql.Identifier, (world.schema, world.stack.schema))
        connection.execute(psycopg.sql.SQL("SET search_path = {}, {}").format(*schemas))
        for statement in (
            "SELECT * FROM ctl_lead('ctl2', 1000, true)", "SELECT ctl_keep('ctl2', 0, 'setting', 'x', '{}')",
            "SELECT * FROM leader", "UPDATE leader SET term = 9", "SELECT * FROM kept",
            "SELECT * FROM node",
        ):  # fmt: skip
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable)):
                connection.execute(statement)


def test_database_that_sleeps_is_given_up_in_time(world, parties):
    """kill -STOP: connections live, and nothing is answered."""
    ctl = parties["ctl"]
    ctl.try_to_lead()
    world.stack.postgres.pause()
    try:
        began = time.monotonic()
        with pytest.raises(NotKept, match="does not answer"):
            ctl.store.put_session("a", {})
        assert time.monotonic() - began < LONG_S
    finally:
        world.stack.postgres.wake()

    ctl.store.put_session("a", {})


STEP = st.tuples(st.sampled_from(NAMES), st.sampled_from(["lead", "renew", "keep", "expire", "resign"]))


@given(st.lists(STEP, max_size=25))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_the_controller_of_the_latest_term_ever_writes(made, steps):
    """Whatever both do in whatever order, with terms that are over, too."""
    made.sql("DELETE FROM kept; UPDATE leader SET name = 'ctl', term = 0, until = clock_timestamp() + interval '1 h'")
    parties = {name: Party(made, name) for name in NAMES}
    leader, term, free, kept = "ctl", 0, False, None
    with contextlib.ExitStack() as stack:
        for party in parties.values():
            stack.callback(party.calls.close)
        for number, (name, what) in enumerate(steps):
            party = parties[name]
            current = party.term == term > 0 and name == leader
            if what == "expire":
                let_expire(made)
                free = True
            elif what == "lead":
                assert party.try_to_lead() == (free or name == leader)
                if free or name == leader:
                    leader, term, free = name, term + 1, False
                    assert party.term == term
            elif what == "renew":
                assert party.lease.renew(party.term, 0) == Leader(leader, term)
                free = free and not current
            elif what == "resign":
                party.lease.resign(party.term)
                free = free or current
            else:
                with contextlib.nullcontext() if current else pytest.raises(TermOver):
                    party.store.put_session("s", {"step": number})
                kept = number if current else kept
        assert made.sql("SELECT document FROM kept") == ([] if kept is None else [(f'{{"step": {kept}}}',)])
