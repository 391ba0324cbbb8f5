"""Transcripts of the lessons match what a reader would call the same, and nothing else."""

from __future__ import annotations

import pytest

from tests.support.transcript import Step, steps

OPENED = "open: KSID a7ea23c9-360c-49cb-8a12-53ad1d7ff474, path government - military\n"
LINKS = """QC                     between                 made B/s  stock B
a-b/1                  a - b                     41.700      158
government-military/1  government - military      6.000       44
"""


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (OPENED, OPENED.replace("a7ea23c9", "00000000")),
        ("...\ngovernment-military/1 government - military   6.000   ~9\n", LINKS),
        ("QC  between  made B/s  stock B\n...\n", LINKS),
        ("...\n", LINKS),
        ("19:24:36  took 4.9 ms, trace 0bd868cb3a6241d34cd0f22d0ec29e25\n",
         "07:00:00  took 1.20 s, trace ffffffffffffffffffffffffffffffff\n"),
        ("run directory  .../runs\n", "run directory  /home/me/runs\n"),
        ("a\nb\n", "a\n\nb\n\n"),
    ],
)  # fmt: skip
def test_what_a_reader_would_call_the_same_is_shown(shown, printed):
    """IDs, times, durations, figures after ~, width of columns, blank lines, and what is left out."""
    assert Step("qkd qcs", shown).is_shown_by(printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (OPENED, OPENED.replace("military", "telecom")),
        (OPENED, "not opened: no application 'x'\n"),
        (OPENED, OPENED + "another line\n"),
        (OPENED, ""),
        ("...\ngovernment-military/1 government - military   16.000   ~9\n...\n", LINKS),
        ("...\ngovernment-military/1 ...\na-b/1 ...\n", LINKS),
        ("5 of 5 connected\n", "4 of 5 connected\n"),
        ("a\nc\n", "a\nb\nc\n"),
    ],
)
def test_what_differs_is_not_shown(shown, printed):
    """Another word, another figure, another order, a line too many or too few."""
    assert not Step("qkd qcs", shown).is_shown_by(printed)


def test_block_is_read_as_steps():
    """What is typed after each prompt, and what stands below."""
    block = f"qkd-testbed> qkd open a b\n{OPENED}\nqkd-testbed> qkd sessions\nno key sessions\n"

    assert steps(block) == [Step("qkd open a b", OPENED), Step("qkd sessions", "no key sessions\n")]


@pytest.mark.parametrize("command", ["qkd qcs", "qkd story a b", "qkd fault", "qkd fibre a b", "a ping -c 3 b"])
def test_command_that_only_looks_may_be_typed_again(command):
    """Until it shows what the page shows."""
    assert Step(command, "").looks


@pytest.mark.parametrize("command", ["qkd open a b", "qkd set mode otp", "qkd fault cut a b", "qkd fibre a b reset"])
def test_command_that_changes_something_is_typed_once(command):
    """Twice would be another thing."""
    assert not Step(command, "").looks
