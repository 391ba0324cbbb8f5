"""The OpenFlow framework, and the only place that imports it: os-ken, or Ryu, whose continuation it is.

Mends what os-ken's native threads leave undone: exceptions vanish without a word, and when a switch goes away, its
sending thread waits for ever for more to send, the connection is never declared dead, and nobody hears of it.
"""

from __future__ import annotations

import threading
from typing import Any

try:
    from os_ken import cfg
    from os_ken.base.app_manager import AppManager
    from os_ken.base.app_manager import OSKenApp as App
    from os_ken.controller import controller, ofp_event, ofp_handler
    from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from os_ken.lib import hub
    from os_ken.lib.packet import arp, ethernet, packet
    from os_ken.ofproto import ofproto_v1_3
except ModuleNotFoundError as missing:
    if missing.name != "os_ken":
        raise
    from ryu import cfg
    from ryu.base.app_manager import AppManager
    from ryu.base.app_manager import RyuApp as App
    from ryu.controller import controller, ofp_event, ofp_handler
    from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from ryu.lib import hub
    from ryu.lib.packet import arp, ethernet, packet
    from ryu.ofproto import ofproto_v1_3

__all__ = [
    "DEAD_DISPATCHER",
    "MAIN_DISPATCHER",
    "App",
    "arp",
    "ethernet",
    "ofp_event",
    "ofproto_v1_3",
    "packet",
    "set_ev_cls",
    "start",
]


class _TaskExit(BaseException):
    """Ends a thread of the framework. os-ken takes Exception itself for that, and so hides every error."""


def _mend() -> None:
    # A subclass of Datapath would not do: its constructor finds itself by its name in the module.
    receive = controller.Datapath._recv_loop

    def receive_and_end_sending(datapath: Any) -> None:
        try:
            receive(datapath)
        finally:
            datapath.send(b"", close_socket=True)

    controller.Datapath._recv_loop = receive_and_end_sending
    if hub.HUB_TYPE == "native":
        hub.TaskExit = _TaskExit


def start(app: type[App], host: str, port: int, **options: Any) -> tuple[App, list[threading.Thread]]:
    """Await switches on host:port with an instance of `app`; it, and the threads that must not die.

    Nothing tells whether the port could be bound: connect to it to see.
    """
    _mend()
    cfg.CONF(args=[], project="qkd-controller", default_config_files=[])
    cfg.CONF.set_override("ofp_listen_host", host)
    cfg.CONF.set_override("ofp_tcp_listen_port", port)
    manager = AppManager.get_instance()
    running = manager.instantiate(app, **options)
    handler = manager.instantiate(ofp_handler.OFPHandler)
    running.start()
    server = handler.start()
    return running, [server, *running.threads, *handler.threads]
