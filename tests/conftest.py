"""The suite on several workers, for tests wait more than they compute: what runs on which.

Experiments, lessons, other networks on Mininet, virtual machines, services on loopback, and everything else: each of
these on one worker, since what they start would compete with its like for ports and time.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.guardian import Guardian

_GUARDIAN = pytest.StashKey[Guardian]()


class ByRoom(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of one kind stay together."""

    def _split_scope(self, nodeid: str) -> str:
        kinds = ("tests/e2e/test_experiments", "tests/e2e/test_lessons", "tests/e2e/", "tests/uml/", "tests/service/")
        return next((kind for kind in kinds if nodeid.startswith(kind)), "rest")


@pytest.hookimpl(optionalhook=True)  # nobody asks for it where pytest runs without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByRoom:
    """Whatever the command line says of --dist."""
    return ByRoom(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    """A suite that is stopped, by whatever signal, leaves no process behind; each worker has its own guardian."""
    session.config.stash[_GUARDIAN] = Guardian()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nor does one that ends by itself."""
    session.config.stash[_GUARDIAN].end()
