"""What joins the machines of a run: WireGuard between each two of them, and in it a VXLAN for each fibre.

Theory of operation. The interface is made in the machine's own network namespace and then moved to the run's. Its
socket stays where it was made, so encrypted packets leave by the machine's own network, while the run's namespace has
no other leg outside. In place of the kernel's WireGuard, wireguard-go runs in the machine's namespace, over TUN. Keys
are made for the run on each machine, and public ones alone travel.

Emulated frames keep 1500 bytes of payload. VXLAN and WireGuard add 50 and 60 bytes to them, so that a full frame is one
packet of 1610 bytes outside; where the real network takes no more than 1500 it goes in two fragments.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import secrets
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sae.vpn import kernel
from testbed.machine import namespaces
from testbed.machine.processes import Processes, ProcessFailed, run_tool

MTU = 1560  # a full frame, with its headers and those of VXLAN, UDP and IP
_SOCKETS = Path("/run/wireguard")  # where wg looks for wireguard-go
_KEEPALIVE_S = "25"  # firewalls forget a UDP connection on which nothing comes
_START_S, _LOOK_S = 10.0, 0.02
_PINGS, _BETWEEN_S = 40, 0.02


class Transport:
    """This machine's end of it, with an `address` inside, in this process's network; ProcessFailed.

    `outside`: the file of the machine's own network namespace.
    """

    def __init__(self, processes: Processes, outside: str, address: str) -> None:
        # Names of interfaces that users have are none of ours.
        self._name = f"qkd-{secrets.token_hex(4)}"
        there = ["nsenter", f"--net={outside}", "--"]
        if kernel.has_wireguard():
            run_tool(*there, "ip", "link", "add", self._name, "type", "wireguard")
        else:
            namespaces.mount_memory(_SOCKETS)
            daemon = processes.start(
                "wireguard", [*there, "wireguard-go", "--foreground", self._name], says_ready=False
            )
            _await(lambda: _listens(_SOCKETS / f"{self._name}.sock"), daemon.last_words)
        run_tool(*there, "ip", "link", "set", self._name, "mtu", str(MTU), "netns", str(os.getpid()))
        run_tool("ip", "address", "add", f"{address}/24", "dev", self._name)
        run_tool("ip", "link", "set", self._name, "up")
        private = X25519PrivateKey.generate()
        plain = serialization.Encoding.Raw
        raw = private.private_bytes(plain, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        run_tool("wg", "set", self._name, "private-key", "/dev/stdin", given=base64.b64encode(raw).decode())
        self.public_key = base64.b64encode(private.public_key().public_bytes(plain, serialization.PublicFormat.Raw))
        # wireguard-go notices within a second that its interface is up, and then takes a port.
        _await(lambda: self._port() != 0, lambda: "WireGuard takes no port")
        self.port = self._port()

    def _port(self) -> int:
        return int(run_tool("wg", "show", self._name, "listen-port"))

    def offer(self) -> dict[str, str | int]:
        """What the other machines must know."""
        return {"public_key": self.public_key.decode(), "port": self.port}

    def join(self, inside: str, outside: str, offered: Mapping[str, str | int]) -> None:
        """Have the machine with these two addresses, inside and outside, for a peer; it offers that."""
        host = f"[{outside}]" if ipaddress.ip_address(outside).version == 6 else outside
        run_tool(
            "wg", "set", self._name, "peer", str(offered["public_key"]), "endpoint", f"{host}:{offered['port']}",
            "allowed-ips", f"{inside}/32", "persistent-keepalive", _KEEPALIVE_S,
        )  # fmt: skip


def round_trip_ms(address: str, *, within_s: float = 15.0) -> float:
    """The median time there and back to a machine by its address inside; ProcessFailed if none answers."""
    _await(lambda: _pinged(address, 1), lambda: f"{address} does not answer over WireGuard", within_s)
    return statistics.median(_pinged(address, _PINGS))


def _pinged(address: str, number: int) -> Sequence[float]:
    """The round trips of those pings that were answered, in ms."""
    try:
        said = run_tool("ping", "-n", "-c", str(number), "-i", str(_BETWEEN_S), "-W", "1", address)
    except ProcessFailed:
        return []
    return [float(line.rpartition("time=")[2].split()[0]) for line in said.splitlines() if "time=" in line]


def _await(ready: Callable[[], object], otherwise: Callable[[], str], within_s: float = _START_S) -> None:
    deadline = time.monotonic() + within_s
    while not ready():
        if time.monotonic() > deadline:
            raise ProcessFailed(otherwise())
        time.sleep(_LOOK_S)


def _listens(path: Path) -> bool:
    """Whether somebody listens at that socket: wg removes one that is bound and not listened at yet, as a stale one."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0
