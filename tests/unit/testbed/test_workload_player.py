"""Key sessions of a workload are opened as an operator opens them, also when a run is interrupted."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from etsi.gs004 import QoS
from scenario.workload import Arrival
from testbed.network.workload_player import OfferedLoad
from testbed.operation.desk import NotDone
from testbed.operation.interface import checked

MAIL, BANK = SimpleNamespace(id="1", name="mail"), SimpleNamespace(id="2", name="bank")


def test_each_session_is_opened_by_the_operators_request_and_what_is_not_opened_is_said():
    """With the keys and the length that the workload has for it; one that is refused holds up no other one."""
    asked, said = [], []

    def do(name: str, /, **arguments: Any) -> dict[str, Any]:
        asked.append((name, checked(name, arguments)))
        if arguments["master"] == BANK.id:
            raise NotDone("not opened: QC full")
        return {"ksid": "k"}

    load = OfferedLoad(do, [Arrival(0.0, BANK, MAIL), Arrival(0.01, MAIL, BANK, 7.5, QoS(256, 2.0))], said.append)
    load.start()
    load.join()

    assert asked == [
        ("open", {"master": "2", "slave": "1", "key_size_bits": 128, "interval_s": 5.0}),
        ("open", {"master": "1", "slave": "2", "key_size_bits": 256, "interval_s": 2.0, "duration_s": 7.5}),
    ]
    assert said == ["bank with mail: not opened: QC full"]


def test_sessions_that_arrive_together_are_opened_together():
    """An opening takes round trips over links that may be slow; the next arrival does not wait for it."""
    together = threading.Barrier(3)

    def do(_: str, /, **__: Any) -> None:
        together.wait(20)

    said: list[str] = []
    load = OfferedLoad(do, [Arrival(0.0, MAIL, BANK)] * 3, said.append)
    load.start()
    load.join()

    assert not together.broken
    assert said == []


def test_nothing_is_opened_and_awaited_any_more_after_ctrl_c():
    """Whoever closes what the answers come by may do so once `stop` has returned."""
    answer = threading.Event()  # which does not come while the run lasts
    load = OfferedLoad(lambda *_, **__: answer.wait(), [Arrival(0.0, MAIL, BANK)], lambda _: None)
    load.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            load.join()
    finally:
        signal.signal(signal.SIGINT, before)

    load.stop()

    for thread in threading.enumerate():
        if thread.name == "arrivals":
            thread.join(5)  # it has said that it is done
            assert not thread.is_alive()
    answer.set()
