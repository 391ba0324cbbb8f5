"""A tunnel's end by WireGuard, in the kernel where it has the module, else by wireguard-go.

Theory of operation. A WireGuard session takes the pre-shared key when it begins, and keeps what it derived from it
until the next handshake. To change the key under a running peer would leave open when it counts; and if both ends do
not change it between the same two handshakes, the next handshake fails. So each end has two interfaces, and each key
has a peer of its own on one of them: while packets go by the first, the new peer is set up on the second with the new
key, and the handshake is made there. Both ends then take packets from either. The route is turned over to the second,
at one end and then at the other, and only then is the old peer removed, and with it all that was derived from the old
key. A peer is never there without a key, so no packet is ever sent under none.
"""

from __future__ import annotations

import base64
import os
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from documents.checks import Malformed, integer, mapping, sequence, text
from documents.secret import Secret
from sae.client import Failed
from sae.vpn import kernel
from sae.vpn.daemons import Daemon, block, route, tool, unavailable

_HANDSHAKE_S = 7.0  # WireGuard tries again after 5 s and a bit
_LOOK_S = 0.01
_KEEPALIVE_S = 25  # who asks for it makes the handshake, though there is nothing to send
_PUBLIC_BYTES = 32


class _Interface:
    """One of the two, with the peer that it has now. OSError, Failed."""

    def __init__(self, directory: Path) -> None:
        # Names of sockets of wireguard-go and of interfaces that users have are none of ours.
        self.name = f"wg-{secrets.token_hex(4)}"
        self.key_id: str | None = None
        self._peer: str | None = None
        self._daemon = self._make(directory)
        private = X25519PrivateKey.generate()
        plain = serialization.Encoding.Raw
        raw = private.private_bytes(plain, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        public = private.public_key().public_bytes(plain, serialization.PublicFormat.Raw)
        self.public = base64.b64encode(public).decode()
        tool("wg", "set", self.name, "private-key", "/dev/stdin", secret=base64.b64encode(raw))
        tool("ip", "link", "set", self.name, "up")
        self.port = int(tool("wg", "show", self.name, "listen-port"))

    def _make(self, directory: Path) -> Daemon | None:
        """None if it is the kernel's."""
        if kernel.has_wireguard():
            tool("ip", "link", "add", self.name, "type", "wireguard")
            return None
        daemon = Daemon(
            ["wireguard-go", "--foreground", self.name], directory / f"{self.name}.log",
            {"PATH": os.environ.get("PATH", ""), "LOG_LEVEL": "error"},
        )  # fmt: skip
        daemon.wait_until(lambda: _listens(f"/run/wireguard/{self.name}.sock"))
        return daemon

    def meet(self, key_id: str, key: Secret, public: str, endpoint: str, theirs: str, *, first: bool) -> None:
        """Have that peer, and no other; `first`: make the handshake."""
        self.part()
        tool(
            "wg", "set", self.name, "peer", public, "preshared-key", "/dev/stdin", "endpoint", endpoint,
            "allowed-ips", f"{theirs}/32", "persistent-keepalive", str(_KEEPALIVE_S) if first else "off",
            secret=base64.b64encode(key.reveal()),
        )  # fmt: skip
        self._peer, self.key_id = public, key_id

    def part(self) -> None:
        """Have no peer, and nothing that was derived from its key."""
        if self._peer is not None and self.alive():  # else it went with the daemon
            tool("wg", "set", self.name, "peer", self._peer, "remove")
        self._peer = self.key_id = None

    def wait_for_handshake(self) -> None:
        """Return when both ends have agreed under this peer's key; Failed."""
        deadline = time.monotonic() + _HANDSHAKE_S
        while int(tool("wg", "show", self.name, "latest-handshakes").split()[-1]) == 0:  # seconds since 1970
            if time.monotonic() > deadline:
                raise Failed(504, "handshake", f"no WireGuard handshake under the new key within {_HANDSHAKE_S:g} s")
            time.sleep(_LOOK_S)

    def carried(self) -> tuple[int, int]:
        """Bytes received and sent under this peer's key."""
        words = tool("wg", "show", self.name, "transfer").split()
        return (int(words[-2]), int(words[-1])) if words else (0, 0)

    def remove(self) -> None:
        """As if it had never been."""
        if self._daemon is None:
            tool("ip", "link", "delete", self.name)
        else:
            self._daemon.stop()

    @property
    def data_path(self) -> str:
        """What carries its packets."""
        return "kernel WireGuard" if self._daemon is None else "wireguard-go"

    def alive(self) -> bool:
        """Whether its daemon, if it has one, runs."""
        return self._daemon is None or self._daemon.alive()


class WireGuard:
    """This end of a tunnel between the protected addresses `ours` and `theirs`, whose host is `there`. Failed."""

    def __init__(self, directory: Path, there: str, ours: str, theirs: str) -> None:
        self._there = there
        self._ours = ours
        self._theirs = theirs
        self._peers: list[tuple[str, int]] = []  # public keys and ports of the other end's two
        self._used = 0  # which of the two packets take
        block(theirs)
        first = _Interface(directory)
        try:
            self._interfaces = (first, _Interface(directory))
        except BaseException:
            first.remove()
            raise

    @property
    def data_path(self) -> str:
        """What carries packets at this end."""
        return self._interfaces[self._used].data_path

    def offer(self) -> dict[str, Any]:
        """What the other end must know."""
        return {"interfaces": [{"public_key": each.public, "port": each.port} for each in self._interfaces]}

    def accept(self, theirs: Mapping[str, Any]) -> None:
        """What the other end offers; Malformed."""
        given = sequence(theirs.get("interfaces"), "interfaces", longest=2)
        if len(given) != len(self._interfaces):
            raise Malformed("interfaces", "two")
        self._peers = [_peer(mapping(each, f"interfaces[{i}]"), f"interfaces[{i}]") for i, each in enumerate(given)]

    @property
    def idle(self) -> int:
        """Which of the two is set up under the next key."""
        return 1 - self._used

    def load(self, key_id: str, key: Secret, far: int, *, first: bool) -> None:
        """Be ready for a handshake under a key with interface `far` of the other end; make it, if this end is `first`.

        After a turn that the other end did not hear of, the two ends do not go by the same one of their two.
        """
        public, port = self._peers[far]
        idle = self._interfaces[self.idle]
        if not idle.alive():
            raise unavailable("wireguard-go has ended")
        idle.meet(key_id, key, public, f"{self._there}:{port}", self._theirs, first=first)

    def establish(self, _: str) -> None:
        """Both ends have agreed under the key that was loaded."""
        self._interfaces[self.idle].wait_for_handshake()

    def turn(self, key_id: str) -> None:
        """Send under the key that was loaded from now on."""
        if self._interfaces[self.idle].key_id != key_id:
            raise Failed(409, "other_key", "another key than this one was loaded last")
        self._used = self.idle
        route(self._theirs, self._interfaces[self._used].name, self._ours)

    def forget_others(self) -> None:
        """Take no more packets under any key but the one that this end sends under."""
        self._interfaces[self.idle].part()

    def close(self) -> None:
        """Let nothing through."""
        block(self._theirs)
        for each in self._interfaces:
            each.part()

    def carried(self) -> tuple[int, int]:
        """Bytes received and sent under the key in use."""
        return self._interfaces[self._used].carried()

    def remove(self) -> None:
        """As if it had never been, but for the route that lets nothing through."""
        block(self._theirs)
        for each in self._interfaces:
            each.remove()


def _peer(given: Mapping[str, Any], where: str) -> tuple[str, int]:
    public = text(given.get("public_key"), f"{where}.public_key")
    try:
        good = len(base64.b64decode(public, validate=True)) == _PUBLIC_BYTES
    except ValueError:
        good = False
    if not good:
        raise Malformed(f"{where}.public_key", f"{_PUBLIC_BYTES} bytes in base64")
    return public, integer(given.get("port"), f"{where}.port", low=1, high=65535)


def _listens(path: str) -> bool:
    """Whether somebody listens at that socket: wg removes one that is bound and not listened at yet, as a stale one."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(path) == 0
