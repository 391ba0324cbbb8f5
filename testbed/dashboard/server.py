"""Serves the page from a thread: listens outside, on this machine's loopback, and acts inside, as the operator."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from telemetry import bugs
from testbed.dashboard import address
from testbed.dashboard.collected.watch import Watch
from testbed.dashboard.guard import Guard
from testbed.machine.namespaces import call_in_network
from testbed.network.emulation import Emulation
from testbed.network.expose import LOOPBACK
from testbed.network.operator_calls import OPENS_WITHIN_S, ControlRoom
from testbed.operation.operator import Operator
from testbed.planning.plan import OPERATOR

# For people at a page: they would rather hear that something does not answer than wait for it.
_TIMEOUT_S = 10.0
_STOP_S = 5.0


class Dashboard:
    """The page of `emulation`, which is up, at a port of the machine's loopback (see `address.listen`)."""

    def __init__(self, emulation: Emulation, port: int | None = None) -> None:
        self._listener = call_in_network(emulation.outside, lambda: address.listen(port))
        self.url = f"http://{LOOPBACK}:{self._listener.getsockname()[1]}/"
        plan = emulation.plan
        self._room = ControlRoom(
            plan, emulation.credentials(OPERATOR), emulation.network.pid("ctl"), threads=len(plan.nodes) + 8,
            timeout_s=_TIMEOUT_S, saes_within_s=OPENS_WITHIN_S,
        )  # fmt: skip
        self._operator = Operator(emulation, room=self._room)
        self._watch = Watch(plan, self._operator.do, self._operator.stream)
        self._server = _Server(self._listener, emulation, self._operator.do, self._watch)

    def start(self) -> None:
        """Begin to watch and to serve; returns when the page can be opened."""
        self._watch.start()
        self._server.start()

    def stop(self) -> None:
        """Serve and watch no more."""
        self._server.stop()
        self._watch.stop()
        self._operator.close()  # with it the events end that the watch follows
        self._room.close()
        self._listener.close()


class _Server:
    """uvicorn in a thread of its own."""

    def __init__(
        self, listener: socket.socket, emulation: Emulation, request: Callable[..., Any], watch: Watch
    ) -> None:
        self._listener = listener
        _log_to(emulation.run.path / "logs" / "dashboard.log")
        # NiceGUI looks where to keep data of users when it is imported; there are none.
        os.environ["NICEGUI_STORAGE_PATH"] = str(emulation.run.path / "dashboard")
        import uvicorn

        from testbed.dashboard.page import make_app

        app = Guard(make_app(emulation.plan, request, watch), listener.getsockname()[1])
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1)
        )
        self._stopping = False  # uvicorn says `should_exit` of itself, too, where it does not come up
        self._thread = bugs.watched_thread(
            self._uvicorn.run, [listener], name="dashboard", stopped=lambda: self._stopping
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = self._uvicorn.should_exit = True
        self._thread.join(_STOP_S)


def _log_to(path: Path) -> None:
    """What web server and page have to say is for a file: the terminal is the command line's."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    for name in ("uvicorn", "nicegui", "fastapi", "asyncio", "engineio", "socketio"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
