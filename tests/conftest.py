"""The suite on two workers: networks on Mininet on one, everything else on the other."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one folder stay together: what they start would compete with its like for ports and time."""
    for item in items:
        room = item.path.relative_to(_HERE).parts[0]
        item.add_marker(pytest.mark.xdist_group("e2e" if room == "e2e" else "rest"))
