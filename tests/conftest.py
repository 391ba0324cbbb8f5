"""The suite on several workers, for tests wait more than they compute: what runs on which.

Experiments, lessons, one healthy PoliQI that many look at, networks that are broken, networks with tunnels, a database
of their own or other controllers, other networks on Mininet, virtual machines, services on loopback (those of the
standards, of the controller, of devices, and some others apart), and everything else: each of these on one worker,
since what they start would compete with its like for ports and time.
A worker that is free takes the longest of those that are left, so that none is left alone with a long one at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.guardian import Guardian

# How long an example takes is for benchmarks: on a busy machine none is too slow.
# Nor is a failure explained: that traces every line, and then Python 3.11 may hang when another thread wants to run.
settings.register_profile("unhurried", deadline=None, phases=set(Phase) - {Phase.explain})
settings.load_profile("unhurried")
_GUARDIAN = pytest.StashKey[Guardian]()
_HEALTHY = (
    "client_page", "conformance_page", "consumers_page", "controller_page", "expose", "gs015", "monitoring", "poliqi",
    "stories",
)  # fmt: skip
_KEYED = ("database_fails_over", "replay", "ryu", "standby_controller", "user_database", "vpn")
_FAULTY = ("fault_commands", "trouble", "life", "bad_input", "storm")
# Each kind of tests with how their names begin: of those that fit, the most exact one. The longest first, as measured.
_KINDS = {
    "services": ["tests/service/"],
    "broken networks": [f"tests/e2e/test_{name}.py" for name in _FAULTY],
    "networks": ["tests/e2e/"],
    "everything else": [""],
    "tunnels, databases and controllers": [f"tests/e2e/test_{name}" for name in _KEYED],
    "the controller": ["tests/service/controller/"],
    "standards": ["tests/service/gs"],
    "a healthy PoliQI": [f"tests/e2e/test_{name}.py" for name in _HEALTHY],
    "metrics, moves, maps and mtls": ["tests/service/test_m"],
    "lessons": ["tests/e2e/test_lessons"],
    "experiments": ["tests/e2e/test_experiments"],
    "devices": ["tests/service/test_devices"],
    "virtual machines": ["tests/uml/"],
}


def _kind(nodeid: str) -> str:
    fitting = ((len(start), kind) for kind, starts in _KINDS.items() for start in starts if nodeid.startswith(start))
    return max(fitting)[1]


class ByRoom(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of one kind stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return _kind(nodeid)


@pytest.hookimpl(optionalhook=True)  # nobody asks for it where pytest runs without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByRoom:
    """Whatever the command line says of --dist."""
    config.option.loadscopereorder = False  # by the number of tests, that is
    return ByRoom(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order in which workers take them."""
    kinds = list(_KINDS)
    items.sort(key=lambda item: kinds.index(_kind(item.nodeid)))


def pytest_sessionstart(session: pytest.Session) -> None:
    """A suite that is stopped, by whatever signal, leaves no process behind; each worker has its own guardian."""
    session.config.stash[_GUARDIAN] = Guardian()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nor does one that ends by itself."""
    session.config.stash[_GUARDIAN].end()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium for all tests of a module."""
    from tests.support.browser import chromium  # most modules do without

    started = chromium(tmp_path_factory.mktemp("chromium") / "profile")
    try:
        yield started
    finally:
        started.quit()
