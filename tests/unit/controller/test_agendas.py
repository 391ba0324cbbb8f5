"""What open sessions have declared to need of each QC, as the book of sessions changes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from controller.agents.configuration import Route, Wants
from controller.network.settings import Parameters
from controller.network.store import FileStore
from controller.sessions.agendas import Agendas
from controller.sessions.key_session import KeySession
from controller.sessions.registry import Book
from decisions.paths import Path
from etsi.gs004 import QoS

PARAMETERS = Parameters()
OVER_B = Path(("a", "b", "c"), ("ab", "bc"))
DIRECT = Path(("a", "c"), ("ac",))


@pytest.fixture
def book(tmp_path) -> Iterator[Book]:
    """An empty one."""
    store = FileStore(tmp_path / "controller.db")
    yield Book(store)
    store.close()


def opened(book: Book, path: Path, duration_s: float | None = None, interval_s: float = 5.0) -> KeySession:
    """A session from a to c on that path."""
    pair = str(uuid.uuid4()), str(uuid.uuid4())
    wants = Wants(QoS(128, interval_s), {}, duration_s)
    for node, side in (("a", "master"), ("c", "slave")):
        session, _ = book.register(node, pair, side, wants, implicit=False)
    session.path, session.route = path, Route(list(path.nodes), list(path.qcs))
    book.opened(session)
    return session


def rates(agendas: Agendas, besides: KeySession | None = None) -> dict[str, float]:
    """Bytes a slot that are reserved."""
    return {qc: agendas.reserved_per_slot(qc, besides) for qc in ("ab", "bc", "ac")}


def test_sessions_count_for_the_qcs_of_their_path_from_their_opening_to_their_end(book):
    """In BASIC twice for the first one of several; not for themselves."""
    agendas = Agendas(book)
    first, second = opened(book, OVER_B), opened(book, DIRECT)
    agendas.follow(PARAMETERS, time.monotonic())

    assert rates(agendas) == {"ab": 6.4, "bc": 3.2, "ac": 3.2}
    assert rates(agendas, besides=first) == {"ab": 0, "bc": 0, "ac": 3.2}

    book.take(second)
    agendas.follow(PARAMETERS, time.monotonic())
    assert rates(agendas) == {"ab": 6.4, "bc": 3.2, "ac": 0}


def test_session_that_moves_counts_for_both_paths_until_it_has_moved(book):
    """Then for the new one alone."""
    agendas, session = Agendas(book), opened(book, OVER_B)
    with book.holding(session) as is_open:
        assert is_open
        book.aim(session, DIRECT)
        agendas.follow(PARAMETERS, time.monotonic())
        assert rates(agendas) == {"ab": 6.4, "bc": 3.2, "ac": 3.2}
    agendas.follow(PARAMETERS, time.monotonic())

    assert rates(agendas) == {"ab": 6.4, "bc": 3.2, "ac": 0}


def test_what_is_planned_ends_where_a_session_said_that_it_would(book):
    """A key of 16 bytes each five seconds, for 20 seconds: four of them, wherever a slot begins."""
    agendas, now_s = Agendas(book), time.monotonic()
    opened(book, DIRECT, duration_s=20.0)
    endless = opened(book, DIRECT)
    agendas.follow(PARAMETERS, now_s)

    planned = agendas.planned("ac", endless, int(now_s), 60)

    assert sum(planned) in (48, 64)  # the first one may be over by now
    assert set(planned[30:]) == {0}
    assert sum(agendas.planned("ac", None, int(now_s), 60)) - sum(planned) in (11 * 16, 12 * 16, 13 * 16)
    assert agendas.endless_per_slot("ac", None) == pytest.approx(3.2)
    assert agendas.endless_per_slot("ac", endless) == pytest.approx(0)


def test_book_that_has_not_changed_is_not_gone_through_again(book, monkeypatch):
    """A decision beside ten thousand sessions looks at none of them."""
    agendas = Agendas(book)
    opened(book, OVER_B)
    agendas.follow(PARAMETERS, time.monotonic())
    monkeypatch.setattr(book, "all", lambda: 1 / 0)

    agendas.follow(PARAMETERS, time.monotonic())

    assert rates(agendas)["ab"] == 6.4


def test_other_parameters_are_other_costs(book):
    """In OTP the first QC gives no more than the others."""
    agendas = Agendas(book)
    opened(book, OVER_B)
    agendas.follow(PARAMETERS, time.monotonic())

    agendas.follow(Parameters(mode="otp"), time.monotonic())

    assert rates(agendas) == {"ab": 3.2, "bc": 3.2, "ac": 0}
