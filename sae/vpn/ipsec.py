"""A tunnel's end by IPsec: strongSwan's charon, with each key as a post-quantum pre-shared key (RFC 8784).

Theory of operation. IKEv2 mixes a PPK in while an IKE_SA is set up, and what protects packets is derived from it. So
each key has an IKE_SA of its own: the end that goes first sets one up under the new key beside the one in use, with its
own CHILD_SA between the same addresses, and takes the old one down once the new one stands. Both ends send by the
newest, and take packets from both meanwhile. The gateways authenticate one another by the certificates that they have
as SAEs, each of which is pinned at the other end; a PPK is required, so there is no IKE_SA without a key, and none
between ends that hold different ones. The ID of the PPK is the key's, and lifetimes of strongSwan's own are off.

One charon serves all tunnels of a host. Packets go by the kernel's ESP. Where the kernel has none, charon's plugin
kernel-libipsec does that work over a TUN device, and what it knows ends with it. The kernel's states do not: an end
takes back by itself what a charon that was killed has left there. And as packets go out in the clear where a route is
left and a policy is not, a policy of the tunnel's own, weaker than charon's, drops what charon's does not cover.

Keys reach it over its socket (VICI), certificate and private key likewise: it reads no file but its
configuration, which holds no secret.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import vici
import vici.exception

from documents.checks import text
from documents.secret import Secret
from mtls.credentials import Credentials
from sae.client import Failed
from sae.vpn import kernel
from sae.vpn.daemons import Daemon, block, tool, unavailable

T = TypeVar("T")

_SOCKET, _CONF = "charon.vici", "strongswan.conf"
_PROGRAM = "/usr/sbin/charon-systemd"
_ESTABLISH_S, _TERMINATE_S = 7.0, 3.0
_LONGEST_CERTIFICATE = 8192
_CHILD = "packets"
_IKE, _ESP = "aes256-sha384-ecp256", "aes256gcm16-ecp256"
_PLUGINS = "random nonce openssl kdf pem pkcs1 pkcs8 x509 pubkey constraints"
_ROUTES = "220"  # the table of routes that charon makes where the kernel has ESP
_WEAKEST = str((1 << 32) - 1)  # of priorities of the kernel's policies


class Charon:
    """The daemon of the host at `here`, started when it is first wanted. Its files lie in `directory`. Thread-safe."""

    def __init__(self, directory: Path, credentials: Credentials, here: str) -> None:
        self.here = here
        self.in_kernel = False  # whether ESP is the kernel's
        self._directory = directory
        self._credentials = credentials
        self._lock = threading.Lock()
        self._daemon: Daemon | None = None
        self.certificate = credentials.certificate.read_bytes()

    def start(self) -> None:
        """Have it run; Failed. One that has ended is started anew, and knows nothing of what it was told."""
        with self._lock:
            if self._daemon is not None and self._daemon.alive():
                return
            self.in_kernel = kernel.has_esp()
            if self.in_kernel:  # and it may know what another charon told it
                for end in ("src", "dst"):
                    _quietly("xfrm", "state", "deleteall", end, self.here, "proto", "esp")
            conf = self._directory / _CONF
            conf.write_text(self._configuration())
            # Under a name of our own: where AppArmor confines the one in /usr/sbin, it may not read what lies here.
            program = shutil.copy2(_PROGRAM, self._directory / "charon")
            (self._directory / _SOCKET).unlink(missing_ok=True)
            self._daemon = Daemon(
                [str(program)], self._directory / "charon.out",
                {"PATH": os.environ.get("PATH", ""), "STRONGSWAN_CONF": str(conf)},
            )  # fmt: skip
            self._daemon.wait_until(self._answers)
        self.ask(lambda session: session.load_key({"type": "any", "data": self._credentials.key.read_bytes()}))

    def ask(self, request: Callable[[vici.Session], T]) -> T:
        """What it answers; Failed."""
        try:
            with self._session() as session:
                return request(session)
        except (vici.exception.CommandException, vici.exception.SessionException) as error:
            raise unavailable(f"charon: {' '.join(str(error).split())}") from None
        except OSError as error:
            raise unavailable(f"charon does not answer: {error.strerror or error}") from None

    def stop(self) -> None:
        """End it, and all its tunnels with it."""
        with self._lock:
            if self._daemon is not None:
                self._daemon.stop()
                self._daemon = None

    @contextlib.contextmanager
    def _session(self) -> Iterator[vici.Session]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._directory / _SOCKET))
            yield vici.Session(connection)

    def _answers(self) -> bool:
        try:
            with self._session() as session:
                session.version()
        except OSError:
            return False
        return True

    def _configuration(self) -> str:
        plugins = _PLUGINS + ("" if self.in_kernel else " kernel-libipsec")
        body = "\n".join(
            [
                f"load = {plugins} kernel-netlink socket-default vici",
                "install_virtual_ip = no",
                "half_open_timeout = 8",
                "retransmit_timeout = 1.0",
                "retransmit_tries = 3",
                f"plugins {{ vici {{ socket = unix://{self._directory / _SOCKET} }} }}",
                f"filelog {{ log {{ path = {self._directory / 'charon.log'}\nflush_line = yes\ndefault = 1 }} }}",
            ]
        )
        return "".join(f"{name} {{\n{body}\n}}\n" for name in ("charon", "charon-systemd"))


class Ipsec:
    """This end of a tunnel between the protected addresses `ours` and `theirs`; `there` is the other host's."""

    def __init__(self, charon: Charon, there: str, ours: str, theirs: str) -> None:
        self._charon = charon
        self._here = charon.here
        self._there = there
        self._ours = ours
        self._theirs = theirs
        self._name = f"to-{there}"
        self._certificate = b""  # of the other end
        self._loaded: str | None = None  # the key that was loaded last
        self._used: str | None = None
        # Also what has a route, but for what a policy of charon's covers.
        self._drop_all = ("dst", f"{theirs}/32", "dir", "out")
        block(theirs)
        charon.start()
        if charon.in_kernel:
            tool("ip", "xfrm", "policy", "update", *self._drop_all, "action", "block", "priority", _WEAKEST)

    @property
    def data_path(self) -> str:
        """What carries packets at this end."""
        return "kernel ESP" if self._charon.in_kernel else "kernel-libipsec"

    def offer(self) -> dict[str, Any]:
        """What the other end must know."""
        return {"certificate": self._charon.certificate.decode()}

    def accept(self, theirs: Mapping[str, Any]) -> None:
        """What the other end offers; Malformed."""
        # Certificates are printable but for the ends of their lines.
        given = theirs.get("certificate")
        text("".join(given.split()) if isinstance(given, str) else given, "certificate", longest=_LONGEST_CERTIFICATE)
        self._certificate = str(given).encode()

    def load(self, key_id: str, key: Secret, *, first: bool) -> None:
        """Be ready for an IKE_SA under a key, beside the one that is there; Failed."""
        self._charon.start()
        if self._loaded is not None and self._loaded != self._used:
            self._unload(self._loaded)
        secret = {"id": key_id, "type": "PPK", "data": key.reveal(), "owners": [key_id]}
        self._charon.ask(lambda session: session.load_shared(secret))
        self._loaded = key_id
        # The other end is told which PPK to take, and takes any that it has.
        name = self._of(key_id) if first else self._name
        connection = self._connection() | ({"ppk_id": key_id} if first else {})
        self._charon.ask(lambda session: session.load_conn({name: connection}))

    def establish(self, key_id: str) -> None:
        """Set up the IKE_SA under the key that was loaded; Failed."""
        try:
            self._charon.ask(lambda session: list(session.initiate(
                {"ike": self._of(key_id), "child": _CHILD, "timeout": str(int(1000 * _ESTABLISH_S)), "loglevel": "0"}
            )))  # fmt: skip
        except Failed as error:
            self._terminate(self._of(key_id), force=True)
            raise Failed(504, "handshake", f"no IKE_SA under the new key: {error}") from None

    def turn(self, key_id: str) -> None:
        """Send under the key that was loaded from now on, as charon does since its IKE_SA stands."""
        if self._loaded != key_id:
            raise Failed(409, "other_key", "another key than this one was loaded last")
        before, self._used = self._used, key_id
        if before is not None and before != key_id:
            self._terminate(self._of(before), force=False)
            self._unload(before)

    def forget_others(self) -> None:
        """Nothing is left of them: the IKE_SA of the old key ends when there is one of the new one."""

    def close(self) -> None:
        """Let nothing through."""
        block(self._theirs)
        for key_id in filter(None, {self._used, self._loaded}):
            self._terminate(self._of(key_id), force=True)
            self._unload(key_id)
        self._terminate(self._name, force=True)
        self._used = self._loaded = None
        if self._charon.in_kernel:  # and charon may have ended without notice
            for a, b in ((self._ours, self._theirs), (self._theirs, self._ours)):
                _quietly("xfrm", "policy", "deleteall", "src", f"{a}/32", "dst", f"{b}/32")
            for a, b in ((self._here, self._there), (self._there, self._here)):
                _quietly("xfrm", "state", "deleteall", "src", a, "dst", b, "proto", "esp")
            _quietly("route", "delete", f"{self._theirs}/32", "table", _ROUTES)

    def carried(self) -> tuple[int, int]:
        """Bytes received and sent by the newest IKE_SA."""
        names = {self._name, self._of(self._used or "")}
        sas = self._charon.ask(lambda session: list(session.list_sas()))
        children = [
            child for sa in sas for name, of in sa.items() if name in names for child in of["child-sas"].values()
            if child.get("state") == b"INSTALLED"
        ]  # fmt: skip
        newest = max(children, key=lambda child: int(child["uniqueid"]), default=None)
        return (0, 0) if newest is None else (int(newest["bytes-in"]), int(newest["bytes-out"]))

    def remove(self) -> None:
        """As if it had never been, but for the route that lets nothing through."""
        self.close()
        with contextlib.suppress(Failed):
            self._charon.ask(lambda session: session.unload_conn({"name": self._name}))
        if self._charon.in_kernel:
            _quietly("xfrm", "policy", "delete", *self._drop_all)

    def _connection(self) -> dict[str, Any]:
        lifetimes_off = {"rekey_time": "0", "reauth_time": "0", "over_time": "0"}
        child = {
            "local_ts": [f"{self._ours}/32"], "remote_ts": [f"{self._theirs}/32"], "mode": "tunnel",
            "esp_proposals": [_ESP], "rekey_time": "0", "life_time": "0", "start_action": "none",
        }  # fmt: skip
        return {
            "version": "2", "local_addrs": [self._here], "remote_addrs": [self._there], "proposals": [_IKE],
            "ppk_required": "yes", "unique": "never", "encap": "yes", "mobike": "no", "childless": "force",
            "local-1": {"auth": "pubkey", "certs": [self._charon.certificate]},
            "remote-1": {"auth": "pubkey", "certs": [self._certificate]},
            "children": {_CHILD: child}, **lifetimes_off,
        }  # fmt: skip

    def _of(self, key_id: str) -> str:
        """The name of the connection that this end sets up under that key."""
        return f"{self._name}-{key_id}"

    def _unload(self, key_id: str) -> None:
        """Have charon know that key no more, nor the connection that asks for it. Of what it does not know, nothing."""
        for forget in (lambda s: s.unload_shared({"id": key_id}), lambda s: s.unload_conn({"name": self._of(key_id)})):
            with contextlib.suppress(Failed):
                self._charon.ask(forget)

    def _terminate(self, name: str, *, force: bool) -> None:
        wanted = {"ike": name, "force": "yes" if force else "no", "timeout": str(int(1000 * _TERMINATE_S))}
        with contextlib.suppress(Failed):  # there is none
            self._charon.ask(lambda session: list(session.terminate(wanted)))


def _quietly(*command: str) -> None:
    """Have `ip` take something from the kernel, which mostly is not there."""
    with contextlib.suppress(Failed):
        tool("ip", *command)
