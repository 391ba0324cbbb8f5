"""Whether a run was a success."""

from __future__ import annotations

import pytest

from testbed.session import is_sound

SUMMARY = {
    "pairs": {"compared": 3, "identical": 3}, "audit": {"verdict": "clean"},
    "died": [], "bugs": [], "why_no_keys": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [
        {"pairs": {"compared": 3, "identical": 2}},
        {"audit": {"verdict": "violated"}},
        {"audit": {"verdict": "not possible"}},
        {"died": ["node-a: killed"]},
        {"bugs": ["ValueError in pool.py"]},
        {"why_no_keys": "no material"},
    ],
)
def test_run_with_a_fault_is_no_success(fault):
    """Of whatever kind; without one it is."""
    assert is_sound(SUMMARY)
    assert not is_sound(SUMMARY | fault)
