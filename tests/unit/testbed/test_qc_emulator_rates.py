"""A quantum channel that several threads change at a time, and one that follows a model."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scenario.quantum.qc_models import Trace, source, to_json
from telemetry import journal
from telemetry.journal import Journal
from testbed.quantum import qc_emulator
from testbed.quantum.qc_emulator import Qc, QcConfig

READ = QcConfig("a-b/1", 10, 20, ())


@pytest.fixture
def qc(tmp_path: Path) -> Iterator[Qc]:
    """One without ends, whose threads take turns all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield Qc(READ, 1, Journal(tmp_path / "journal.jsonl", "qcs"))
    sys.setswitchinterval(interval)


def test_rate_that_an_end_sets_undoes_nothing_that_is_reread_meanwhile(qc):
    """Nor is it undone: what breaks a QC, and how fast it is, are said by different parties."""
    for turn in range(1000):
        rate = 100 + turn, 200 + turn
        end = threading.Thread(target=qc.set_rate, args=rate)
        end.start()
        qc.reread(replace(READ, broken=turn % 2 == 0))
        end.join()

        assert (qc.config.broken, qc.config.low, qc.config.high) == (turn % 2 == 0, *rate)


TRACE = Trace((2.0, 5.0), (160.0, 2400.0), (0.02, 0.04))


def test_qc_makes_what_its_model_says_until_a_rate_is_set(tmp_path):
    """A break costs what would have come meanwhile: the device goes on."""
    written = Journal(tmp_path / "journal.jsonl", "qcs")
    qc = Qc(replace(READ, model=TRACE), 1, written)
    for slot in range(1, 11):
        if slot == 6:
            qc.reread(replace(READ, model=TRACE, broken=True))
        if slot == 8:
            qc.reread(replace(READ, model=TRACE))
        qc.make(slot)
    qc.set_rate(7, 7)
    qc.make(11)

    made = [event["n_bytes"] for event in journal.read(tmp_path / "journal.jsonl", "block")]
    follows = source(TRACE, random.Random(1))
    expected = [follows.make(slot).n_bytes for slot in range(1, 11)]
    assert made == [*expected[:5], 0, 0, *expected[7:], 7]
    assert expected[:5] == [10, 10, 100, 100, 100]


def test_device_without_power_brings_nothing_later_of_what_it_would_have_made(tmp_path):
    """As in virtual time; what came at once would be more than there was time for."""
    qc = Qc(replace(READ, model=TRACE), 1, Journal(tmp_path / "journal.jsonl", "qcs"))
    for slot in range(1, 11):
        if slot in (4, 9):
            qc.reread(replace(READ, model=TRACE, off=slot == 4))
        qc.make(slot)

    made = {event["slot"]: event["n_bytes"] for event in journal.read(tmp_path / "journal.jsonl", "block")}
    follows = source(TRACE, random.Random(1))
    expected = {slot: follows.make(slot).n_bytes for slot in range(1, 11)}
    assert made == {slot: expected[slot] for slot in (1, 2, 3, 9, 10)}


def test_eavesdropper_raises_the_errors_until_no_key_is_made(tmp_path):
    """A quarter of what she intercepts; the journal says why nothing comes, and when it comes again."""
    config = QcConfig("a-b/1", 100, 100, (), qber_percent=2.0)
    qc = Qc(config, 1, Journal(tmp_path / "journal.jsonl", "qcs"))
    for slot, eve in enumerate((0.0, 0.2, 1.0, 1.0, 0.0), 1):
        qc.reread(replace(config, eve=eve))
        qc.make(slot)

    events = list(journal.read(tmp_path / "journal.jsonl"))
    made = [event["n_bytes"] for event in events if event["event"] == "block"]
    assert made[0] == made[4] == 100 > made[1] > 20
    assert made[2:4] == [0, 0]
    said = [(event["event"], event["qber_percent"]) for event in events if event["event"] in ("no_key", "key_again")]
    assert said == [("no_key", 26.0), ("key_again", 2.0)]


def test_model_is_read_from_the_configuration(tmp_path):
    """And one that is none is refused by name."""
    file = tmp_path / "qcs.json"
    qc = {"qc": "a-b/1", "low": 0, "high": 100, "ends": [], "model": to_json(TRACE)}
    file.write_text(json.dumps({"directory": str(tmp_path), "qcs": [qc]}))
    (read,) = qc_emulator.load(file).qcs
    assert source(read.makes, random.Random(1)).make(1).n_bytes == 10

    file.write_text(json.dumps({"directory": str(tmp_path), "qcs": [qc | {"model": {"model": "x"}}]}))
    with pytest.raises(ValueError, match=r"qcs\[0\]\.model: expected a model"):
        qc_emulator.load(file)
