"""Key sessions that are being opened when a run is interrupted."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from scenario.workload import Arrival
from testbed.network.workload_player import OfferedLoad


def test_nothing_is_opened_and_awaited_any_more_after_ctrl_c():
    """Whoever closes what the answers come by may do so once `stop` has returned."""
    emulation = SimpleNamespace(open_session=lambda *_: Future())  # its answer never comes
    sae = SimpleNamespace(name="x")
    load = OfferedLoad(emulation, [Arrival(0.0, sae, sae)], lambda _: None)
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
