"""The suite on two workers: networks on Mininet on one, everything else on the other."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class ByRoom(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of one kind stay together: what they start would compete with its like for ports and time."""

    def _split_scope(self, nodeid: str) -> str:
        return "e2e" if nodeid.startswith("tests/e2e/") else "rest"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByRoom:
    """Whatever the command line says of --dist."""
    return ByRoom(config, log)
