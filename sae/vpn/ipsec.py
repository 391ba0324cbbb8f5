"""A tunnel's end by IPsec: strongSwan's charon, with each key as a post-quantum pre-shared key (RFC 8784).

Theory of operation. IKEv2 mixes a PPK in while an IKE_SA is set up, and what protects packets is derived from it. So
each key has an IKE_SA of its own: the end that goes first sets one up under the new key beside the one in use, with its
own CHILD_SA between the same addresses, and takes the old one down once the new one stands. Both ends send by the
newest, and take packets from both meanwhile. The gateways authenticate one another by the certificates that they have
as SAEs, each of which is pinned at the other end; a PPK is required, so there is no IKE_SA without a key, and none
between ends that hold different ones. The ID of the PPK is the key's, and lifetimes of strongSwan's own are off.

One charon serves all tunnels of a host. Where the kernel has no ESP, its plugin kernel-libipsec does that work over a
TUN device. Keys reach it over its socket (VICI), certificate and private key likewise: it reads no file but its
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
from sae.vpn.daemons import Daemon, block, tool, unavailable

T = TypeVar("T")

_SOCKET, _CONF = "charon.vici", "strongswan.conf"
_PROGRAM = "/usr/sbin/charon-systemd"
_ESTABLISH_S, _TERMINATE_S = 7.0, 3.0
_LONGEST_CERTIFICATE = 8192
_CHILD = "packets"
_IKE, _ESP = "aes256-sha384-ecp256", "aes256gcm16-ecp256"
_PLUGINS = "random nonce openssl kdf pem pkcs1 pkcs8 x509 pubkey constraints"
_A_STATE = ("src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "0x100")


class Charon:
    """The daemon of a host, started when it is first wanted. Its files lie in `directory`. Thread-safe."""

    def __init__(self, directory: Path, credentials: Credentials) -> None:
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
        plugins = _PLUGINS + ("" if _kernel_has_esp() else " kernel-libipsec")
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
    """This end of a tunnel between the protected addresses `ours` and `theirs`; `here` and `there` are the hosts'."""

    def __init__(self, charon: Charon, here: str, there: str, ours: str, theirs: str) -> None:
        self._charon = charon
        self._here = here
        self._there = there
        self._ours = ours
        self._theirs = theirs
        self._name = f"to-{there}"
        self._certificate = b""  # of the other end
        self._loaded: str | None = None  # the key that was loaded last
        self._used: str | None = None
        block(theirs)
        charon.start()

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


def _kernel_has_esp() -> bool:
    """Whether the kernel of this host can do what protects packets."""
    cipher = ("aead", "rfc4106(gcm(aes))", f"0x{'00' * 20}", "128")  # a key for no packet
    try:
        tool("ip", "xfrm", "state", "add", *_A_STATE, "mode", "tunnel", *cipher)
    except Failed:
        return False
    tool("ip", "xfrm", "state", "delete", *_A_STATE)
    return True
