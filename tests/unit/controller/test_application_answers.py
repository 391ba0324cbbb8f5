"""What the controller has to say to nodes, until they have confirmed it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from controller.network.store import FileStore
from controller.sessions.application_answers import Words
from telemetry.journal import Journal


def test_word_is_told_again_after_a_bug_met_it(tmp_path):
    """It is state until it is confirmed, whatever came between."""
    node = SimpleNamespace(reachable=True, extended=True, agent="agent of a")
    told, confirmed = [], threading.Event()

    def tell(agent: str, document: dict) -> int:
        told.append((agent, document["state"]))
        if len(told) == 1:
            raise ValueError("a bug")
        confirmed.set()
        return int(document["version"])

    store = FileStore(tmp_path / "store.db")
    words = Words(
        SimpleNamespace(nodes=lambda: {"a": node}), SimpleNamespace(tell=tell), store,
        Journal(tmp_path / "journal.jsonl", "controller"),
    )  # fmt: skip
    words.start()
    try:
        words.say("a", "session", {"state": "down"})
        assert confirmed.wait(20), "it was not told again"
    finally:
        words.stop()
        store.close()

    assert told == [("agent of a", "down")] * 2
