"""Whoever goes on after a bug of its own tells of it with its place, wherever it struck, and does go on."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from controller import limits
from controller.following.follower import Follower
from controller.network.nodes import Agent as Address
from controller.sessions.bandwidth_updates import Reweigher
from controller.sessions.mover import Mover
from etsi import gs015, gs015_testbed
from mtls.call import Unreachable
from node.agent.agent import Agent
from telemetry import bugs, journal
from telemetry.journal import Journal

VALUE = "5ec2e7"  # what an exception's text may quote
SOON_S = 0.01


class Broken:
    """Raises what is a bug at its first call, then does what `well` does. `again`: it was called anew."""

    def __init__(self, well: Callable[..., Any]) -> None:
        self._well = well
        self._calls = 0
        self.again = threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        """The place that the log is to name."""
        self._calls += 1
        if self._calls == 1:
            raise KeyError(VALUE)
        self.again.set()
        return self._well(*arguments)


@pytest.fixture
def written(tmp_path) -> Journal:
    """A process's journal."""
    return Journal(tmp_path / "journal.jsonl", "test")


@pytest.fixture(autouse=True)
def soon(monkeypatch) -> None:
    """The controller's pauses."""
    for name in ("LOOK_S", "AGAIN_S", "RETRY_S", "POLL_S"):
        monkeypatch.setattr(limits, name, SOON_S)


def agent(written: Journal, broken: Broken) -> Agent:
    """A node's, which cannot erase what is too old; all else that it works with does nothing."""

    def expire() -> None:
        broken()

    names = [name for name in inspect.signature(Agent).parameters if name != "config"]
    parts, config = {name: MagicMock() for name in names} | {"journal": written}, MagicMock()
    config.slot_s = parts["store"].spare_s = SOON_S
    config.qcs, parts["datastore"].tree = [], {gs015.NODE: {}, gs015_testbed.NODE: {}}
    parts["shared"].enter.return_value = ("server", 0)
    parts["kme"].expire = expire
    return Agent(config, **parts)


def mover(written: Journal, broken: Broken) -> Mover:
    """Of a controller whose book of sessions cannot be read."""
    book = SimpleNamespace(open=broken)
    upkeep = SimpleNamespace(later=lambda *_: True, clean_again=None, sweep=None)
    return Mover(None, book, None, upkeep, written, lighting=None, steady_s=1.0)


def reweigher(written: Journal, broken: Broken) -> Reweigher:
    """The same."""
    return Reweigher(SimpleNamespace(open=broken), None, written)


def follower(written: Journal, broken: Broken) -> Follower:
    """Of a node to which there is no listening."""
    return Follower(
        Address("a", "https://a"), graph=SimpleNamespace(lost=lambda _: None), agents=SimpleNamespace(listen=broken),
        journal=written, identities=None, sessions=None, settings=SimpleNamespace(version=0), upkeep=None,
        on_tended=int, number=lambda: 1,
    )  # fmt: skip


class Silent:
    """An event stream on which nothing comes."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def events(self) -> Iterator[None]:
        """None, until it is closed."""
        self.closed.wait(10)
        return iter(())

    def close(self) -> None:
        """End it."""
        self.closed.set()


def poller(written: Journal, broken: Broken) -> Follower:
    """Of a node that is read each slot, as it knows the standard alone."""

    def links() -> dict[str, Any]:
        return broken()

    graph = SimpleNamespace(
        lost=lambda _: None, put=lambda *_, **__: None, links=links, nodes=dict, report=lambda *_: None
    )
    agents = SimpleNamespace(listen=lambda _: (Silent(), False), node=lambda _: {"qkdn_id": "1"})
    return Follower(
        Address("a", "https://a"), graph=graph, agents=agents, journal=written,
        identities=SimpleNamespace(check=lambda *_: None), sessions=SimpleNamespace(expire=lambda: None),
        settings=SimpleNamespace(version=0, wishes=lambda _: {}), upkeep=None, on_tended=int, number=lambda: 1,
    )  # fmt: skip


def away(*_: object) -> Iterator[None]:
    """As a node that does not answer."""
    raise Unreachable("https://a", "connection refused")


@pytest.mark.parametrize(
    ("party", "what"),
    [
        ((agent, list), "step expire"),
        ((mover, list), "looking for sessions to be moved"),
        ((reweigher, list), "reweighing"),
        ((follower, away), "following a node"),
        ((poller, dict), "asking a node"),
    ],
    ids=["agent", "mover", "reweigher", "follower", "poller"],
)
def test_bug_is_told_with_its_place_and_the_thread_goes_on(written, tmp_path, caplog, party, what):
    """In the log with a traceback, in the journal by its type; its text, which may quote data, is nowhere."""
    start, well = party
    broken = Broken(well)
    running = start(written, broken)
    running.start()
    try:
        assert broken.again.wait(10), "the thread goes on"
    finally:
        running.stop()

    assert f"{what}: {bugs.MARK}, KeyError\nKeyError at\n" in caplog.text
    assert f'File "{__file__}", line' in caplog.text, "the place"
    assert "in __call__" in caplog.text
    assert VALUE not in caplog.text
    told = journal.read(tmp_path / "journal.jsonl", bugs.EVENT)
    assert [(event["what"], event["error"]) for event in told] == [(what, "KeyError")]
