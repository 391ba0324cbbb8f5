"""The OpenFlow framework, and the only place that imports it: os-ken, or Ryu 4.34, whose continuation os-ken is.

Whichever is installed is used, os-ken if both are. They differ in their threads. os-ken's are real ones, and leave
undone what is mended here: exceptions vanish without a word, and when a switch goes away, its sending thread waits for
ever for more to send, the connection is never declared dead, and nobody hears of it. Ryu's are green: eventlet switches
between them within one real thread. The rest of the controller blocks in real threads (Flask, SQLite, locks), so
nothing is monkey-patched; all of Ryu lives in one real thread of its own, and only there its green threads are touched.
"""

from __future__ import annotations

import importlib.metadata
import threading
import warnings
from concurrent.futures import Future
from typing import Any

try:
    from os_ken import cfg
    from os_ken.base.app_manager import AppManager
    from os_ken.base.app_manager import OSKenApp as App
    from os_ken.controller import controller, event, ofp_event, ofp_handler
    from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from os_ken.lib import hub
    from os_ken.ofproto import ofproto_v1_3
except ModuleNotFoundError as missing:
    if missing.name != "os_ken":
        raise
    # Its authors discourage eventlet for new programs, which no reader of our log can do anything about.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    import eventlet.wsgi

    # Ryu's WSGI part, of which nothing is used here, imports a name that eventlet 0.30.3 took away.
    eventlet.wsgi.ALREADY_HANDLED = object()
    from ryu import cfg
    from ryu.base.app_manager import AppManager
    from ryu.base.app_manager import RyuApp as App
    from ryu.controller import controller, event, ofp_event, ofp_handler
    from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from ryu.lib import hub
    from ryu.ofproto import ofproto_v1_3

    _PACKAGE = "ryu"
else:
    _PACKAGE = "os-ken"

# Name and version of what is in use.
FRAMEWORK = f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}"

__all__ = [
    "DEAD_DISPATCHER",
    "FRAMEWORK",
    "MAIN_DISPATCHER",
    "App",
    "event",
    "hub",
    "ofp_event",
    "ofproto_v1_3",
    "set_ev_cls",
    "start",
]


class _TaskExit(BaseException):
    """Ends a thread of the framework. os-ken takes Exception itself for that, and so hides every error."""


def _mend_native() -> None:
    # A subclass of Datapath would not do: its constructor finds itself by its name in the module.
    receive = controller.Datapath._recv_loop

    def receive_and_end_sending(datapath: Any) -> None:
        try:
            receive(datapath)
        finally:
            datapath.send(b"", close_socket=True)

    controller.Datapath._recv_loop = receive_and_end_sending
    hub.TaskExit = _TaskExit


def start(app: type[App], host: str, port: int, **options: Any) -> tuple[App, list[threading.Thread]]:
    """Await switches on host:port with an instance of `app`; it, and the threads that must not die.

    Nothing tells whether the port could be bound: connect to it to see.
    """
    cfg.CONF(args=[], project="qkd-controller", default_config_files=[])
    cfg.CONF.set_override("ofp_listen_host", host)
    cfg.CONF.set_override("ofp_tcp_listen_port", port)
    if hub.HUB_TYPE == "native":
        _mend_native()
        return _start(app, options)
    started: Future[App] = Future()
    home = threading.Thread(target=_live_green, args=(app, options, started), name=FRAMEWORK, daemon=True)
    home.start()
    return started.result(), [home]


def _start(app: type[App], options: dict[str, Any]) -> tuple[App, list[Any]]:
    """The app, and the framework's threads (real or green) that serve it."""
    manager = AppManager.get_instance()
    running = manager.instantiate(app, **options)
    handler = manager.instantiate(ofp_handler.OFPHandler)
    running.start()
    server = handler.start()
    return running, [server, *running.threads, *handler.threads]


def _live_green(app: type[App], options: dict[str, Any], started: Future[App]) -> None:
    """The thread in which all green ones live. It ends as soon as one of those did that must not die."""
    try:
        running, watched = _start(app, options)
    except Exception as error:
        started.set_exception(error)
        return
    ended = hub.Event()
    for thread in watched:
        thread.link(lambda _: ended.set())
    started.set_result(running)
    ended.wait()
