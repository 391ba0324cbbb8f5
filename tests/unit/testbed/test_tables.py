"""Rows for people, on terminals of any width."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.operation.tables import WIDTH, table

HEAD = ("QC", "status", "stored B")
ROWS = [("government-military/1", "ACTIVE", 512), ("military-telecom/1", "disabled", None)]


@pytest.fixture
def narrow() -> Iterator[None]:
    before = WIDTH.set(30)
    yield
    WIDTH.reset(before)


def test_columns_are_as_wide_as_needed_and_numbers_stand_to_the_right():
    assert table(HEAD, ROWS).splitlines() == [
        "QC                     status    stored B",
        "government-military/1  ACTIVE         512",
        "military-telecom/1     disabled         -",
    ]


def test_rows_that_do_not_fit_become_groups_of_lines(narrow):
    assert table(HEAD, ROWS).splitlines() == [
        "QC          government-military/1", "  status    ACTIVE", "  stored B  512",
        "QC          military-telecom/1", "  status    disabled", "  stored B  -",
    ]  # fmt: skip


def test_sentences_in_groups_are_wrapped_at_spaces_below_their_beginning(narrow):
    assert table(("time", "why"), [("12:00", "QC government-military/1 cannot carry the session")]).splitlines() == [
        "time    12:00", "  why   QC", "        government-military/1", "        cannot carry the", "        session",
    ]  # fmt: skip


def test_rows_that_fit_stay_columns_on_a_narrow_terminal(narrow):
    assert table(("a", "b"), [(1, "x")]).splitlines() == ["a  b", "1  x"]
