"""A quantum channel that several threads change at a time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from telemetry.journal import Journal
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
