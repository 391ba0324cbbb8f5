"""What benchmarks of whole runs make of their samples."""

from __future__ import annotations

from collections import Counter

import pytest

from decisions.ranges import STOCK_BYTES
from tests.benchmarks.high_rate import faults
from tests.benchmarks.samples import Sample, told


def test_memory_is_told_from_when_a_run_has_settled_to_its_end():
    """In quarters of that time, and at most.

    What there was before does not count; a kind of process that came later is left out.
    """
    samples = [
        Sample(60.0 * i, Counter(node=2, late=i // 4), Counter(node=kb * 1024, late=i // 4 * 1024), 10.0 * i)
        for i, kb in enumerate((900, 100, 140, 110, 120))
    ]

    table, sizes = told(samples, 60.0, lambda s: f"{s / 60:.0f} min").rsplit("\n", 1)

    head, *rows = [line.split() for line in table.splitlines()]
    assert " ".join(head) == (
        "process number MB at 1 min MB at 1 min MB at 2 min MB at 3 min MB at 4 min most ratio"
    )
    assert [row for row in rows if row[0] == "node"] == [
        ["node", "2", "100.000", "100.000", "140.000", "110.000", "120.000", "140.000", "1.20"]
    ]
    assert not [row for row in rows if row[0] == "late"]
    assert sizes.startswith("run directory: 0 MB at 0 min, 10 MB at 1 min")


def figures(**changed: int) -> dict[str, int]:
    """A node's, of a QC, all of whose bytes are accounted for."""
    usual = {"generated": 900_000_000, "used": 100, "expired": 700_000_000, "differing": 0, "stored": 199_999_900}
    return {f"{name}_bytes": n_bytes for name, n_bytes in {**usual, **changed}.items()}


@pytest.mark.parametrize(
    ("first", "last", "keys", "found"),
    [
        ({}, {}, 1, []),
        ({}, {}, 0, ["no key came"]),
        ({"stored": STOCK_BYTES + 1}, {}, 1, [f"node b stored {STOCK_BYTES + 1} bytes, and {STOCK_BYTES} may be"]),
        ({}, {"expired": 600_000_000}, 1, ["node b does not account for 100000000 bytes"]),
    ],
)
def test_stock_that_is_too_large_at_any_time_and_bytes_of_which_nothing_is_known_are_told(first, last, keys, found):
    """A block may be on its way between two figures."""
    seen = [{"a": figures(), "b": figures(**first)}, {"a": figures(generated=901_000_000), "b": figures(**last)}]

    assert faults(seen, keys) == found
