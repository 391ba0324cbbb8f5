"""The suite on several workers, for tests wait more than they compute: what runs on which.

Experiments, lessons, one healthy PoliQI that many look at, networks that are broken, other networks on Mininet, virtual
machines, services on loopback (those of the standards, of the controller, of devices, and some others apart), and
everything else: each of these on one worker, since what they start would compete with its like for ports and time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.guardian import Guardian

# How long an example takes is for benchmarks: on a busy machine none is too slow.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
_GUARDIAN = pytest.StashKey[Guardian]()


_HEALTHY = tuple(
    f"tests/e2e/test_{name}.py"
    for name in (
        "client_page", "conformance_page", "controller_page", "expose", "gs015", "monitoring", "poliqi", "stories",
    )
)
_FAULTY = tuple(f"tests/e2e/test_{name}.py" for name in ("fault_commands", "trouble", "life", "bad_input", "storm"))


class ByRoom(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of one kind stay together."""

    def _split_scope(self, nodeid: str) -> str:
        for name, files in (("healthy", _HEALTHY), ("faulty", _FAULTY)):
            if nodeid.startswith(files):
                return name
        kinds = (
            "tests/e2e/test_experiments", "tests/e2e/test_lessons", "tests/e2e/", "tests/uml/", "tests/service/gs",
            "tests/service/controller/", "tests/service/test_devices", "tests/service/test_m", "tests/service/",
        )  # fmt: skip
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium for all tests of a module."""
    from tests.support.browser import chromium  # most modules do without

    started = chromium(tmp_path_factory.mktemp("chromium") / "profile")
    try:
        yield started
    finally:
        started.quit()
