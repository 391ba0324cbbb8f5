"""The suite on several workers, for tests wait more than they compute: what runs on which.

Experiments, lessons, other networks on Mininet, virtual machines, services on loopback, and everything else: each of
these on one worker, since what they start would compete with its like for ports and time. What takes longest begins
first, or all would wait for it at last.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# The longest first; what is none of them is the rest.
KINDS = ("tests/uml/", "tests/service/", "tests/e2e/test_experiments", "tests/e2e/test_lessons", "tests/e2e/")


def kind(nodeid: str) -> str:
    """Of a test: the first of KINDS that it is of."""
    return next((kind for kind in KINDS if nodeid.startswith(kind)), "rest")


class ByRoom(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of one kind stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return kind(nodeid)


@pytest.hookimpl(optionalhook=True)  # nobody asks for it where pytest runs without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByRoom:
    """Whatever the command line says of --dist."""
    config.option.loadscopereorder = False  # by the number of tests, of which the longest kind has the fewest
    return ByRoom(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest kinds first; tests of one kind stay in their order."""
    kinds = [*KINDS, "rest"]
    items.sort(key=lambda item: kinds.index(kind(item.nodeid)))
