"""Round trips as parties measure them over a real wire: those that are really so long count, and nothing else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtls.call import Caller, Unreachable
from mtls.identity import Identity, Role
from mtls.serve import allow, new_app
from mtls.server import Server
from testbed.namespaces import call_in_network, network_of, threads_in_network
from tests.service.wire import Wire, Y, eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")

FAR = Identity(Role.NODE, "b")


class Far:
    """A caller at x, and a server at y that answers at once."""

    def __init__(self, wire: Wire, issue: Callable) -> None:
        app = new_app("far")
        app.get("/")(allow(Role.NODE)(lambda: {}))
        self.wire = wire
        self._networks = {end: network_of(wire.holders[end].pid) for end in "xy"}
        self._server = Server(app, Y, 0, issue("node", "b"))
        call_in_network(self._networks["y"], self._server.start)
        self.caller = Caller(issue("node", "a"))
        self.at_x: ThreadPoolExecutor = threads_in_network(self._networks["x"], 4, "x")

    def ask(self, timeout_s: float = 5.0) -> bool:
        """Whether an answer comes."""
        url = f"https://{Y}:{self._server.port}/"
        try:
            return self.at_x.submit(self.caller.request, "GET", url, to=FAR, timeout_s=timeout_s).result().ok
        except Unreachable:
            return False

    def close(self) -> None:
        """End both."""
        self.at_x.shutdown()
        self.caller.close()
        self._server.stop()
        for fd in self._networks.values():
            os.close(fd)


@pytest.fixture
def far(tmp_path: Path, issue) -> Iterator[Far]:
    """Both, and a wire of no length to speak of."""
    wire = Wire(tmp_path)
    wire.start()
    made = Far(wire, issue)
    yield made
    made.close()
    wire.stop()


@pytest.mark.parametrize("warm", [True, False], ids=["kept connection", "new connection"])
def test_partition_does_not_count_as_a_long_round_trip(far, warm):
    """What y sends is lost for a while. What comes then answers packets of seconds ago; the way is as short as ever."""
    if warm:
        assert far.ask()
    far.wire.change(back={"delay_ms": 1, "loss_percent": 100}, delay_ms=1)
    asked = threading.Thread(target=far.ask, args=(10.0,))
    asked.start()
    time.sleep(2.5)
    far.wire.change(delay_ms=1)
    asked.join()

    assert far.ask()
    assert far.caller.round_trip_s == 0


def test_wire_that_grew_long_is_noticed_and_one_that_grew_short_again_too(far):
    """On connections that are kept, in a few dozen calls; on new ones at the first."""
    assert far.ask()
    far.wire.change(delay_ms=150)
    assert eventually(lambda: far.ask() and far.caller.round_trip_s >= 0.25, 60)
    assert far.caller.round_trip_s < 0.5

    far.wire.change(delay_ms=1)
    assert eventually(lambda: far.ask() and far.caller.round_trip_s == 0, 60)
