"""A tunnel's end by IPsec: strongSwan's charon, with each key as a post-quantum pre-shared key (RFC 8784).

Theory of operation. IKEv2 mixes a PPK in while an IKE_SA is set up, and what protects packets is derived from it. So
each key has an IKE_SA of its own: the end that goes first sets one up under the new key beside the one in use, with its
own CHILD_SA between the same addresses. Both ends take packets from both meanwhile, and the old one is taken down once
both ends send by the new one. The gateways authenticate one another by the certificates that they have as SAEs, each of
which is pinned at the other end; a PPK is required, so there is no IKE_SA without a key, and none between ends that
hold different ones. The ID of the PPK is the key's, and lifetimes of strongSwan's own are off.

A charon sends by the newest CHILD_SA as soon as it has it. The end that answers has it first: what it sends then comes
to an end that still reads the answer, and is lost there. So, where packets go by charon's plugin kernel-libipsec, over
a TUN device, each host has two charons, and keys take turns between them as they do between WireGuard's two interfaces:
the route is turned over to the other charon's device, at one end and then at the other, and only then is the old IKE_SA
taken down. Two charons need two ports: 4500, and 4501. One pair of them serves all tunnels of a host.

Where the kernel has ESP, there is one charon, for the kernel has one policy for both, and packets of a turn may be lost
as said. The kernel's states do not end with a charon: an end takes back by itself what one that was killed has left
there. And as packets go out in the clear where a route is left and a policy is not, a policy of the tunnel's own,
weaker than charon's, drops what charon's does not cover.

Keys reach it over its socket (VICI), certificate and private key likewise: it reads no file but its
configuration, which holds no secret.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import vici
import vici.exception

from documents.checks import text
from documents.secret import Secret
from mtls.credentials import Credentials
from sae.client import Failed
from sae.vpn import kernel
from sae.vpn.daemons import Daemon, block, route, tool, unavailable

T = TypeVar("T")

PORTS = (4500, 4501)
_IKE_PORT, _ANY_PORT = 500, 0
_DIRECTORIES = (".", "charon2")
_INTERFACE = re.compile(r"^iff:\s*(\S+)", re.M)
_SOCKET, _CONF = "charon.vici", "strongswan.conf"
_PROGRAM = "/usr/sbin/charon-systemd"
_ESTABLISH_S, _TERMINATE_S = 7.0, 3.0
_LONGEST_CERTIFICATE = 8192
_CHILD = "packets"
_IKE, _ESP = "aes256-sha384-ecp256", "aes256gcm16-ecp256"
_PLUGINS = "random nonce openssl kdf pem pkcs1 pkcs8 x509 pubkey constraints"
_ROUTES = "220"  # the table of routes that charon makes where the kernel has ESP
_LAST_RULE = 40_000  # after that of the main table, in which each tunnel has a route
_WEAKEST = str((1 << 32) - 1)  # of priorities of the kernel's policies


class Charon:
    """A daemon of the host at `here`, started when it is first wanted. Its files lie in `directory`. Thread-safe.

    `number`: 0, or 1 for the second one where the kernel has no ESP.
    """

    def __init__(self, directory: Path, credentials: Credentials, here: str, number: int) -> None:
        self.here = here
        self.port = PORTS[number]  # of ESP in UDP, and of IKE beside it
        self.in_kernel = False  # whether ESP is the kernel's
        self._ike_port = _IKE_PORT if number == 0 else _ANY_PORT
        self._directory = directory / _DIRECTORIES[number]
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
            self._directory.mkdir(mode=0o700, exist_ok=True)
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

    def device(self) -> str:
        """Its TUN device; Failed."""
        with self._lock:
            pid = None if self._daemon is None else self._daemon.pid
        for open_file in Path(f"/proc/{pid}/fdinfo").glob("*"):
            with contextlib.suppress(OSError):  # it is closed by now
                found = _INTERFACE.search(open_file.read_text())
                if found is not None:
                    return found[1]
        raise unavailable("charon has no TUN device")

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
                # Which of the two devices packets take is the tunnels' to say: routes of charon's own come last.
                *([] if self.in_kernel else [f"routing_table = {self.port}", f"routing_table_prio = {_LAST_RULE}"]),
                f"port = {self._ike_port}",
                f"port_nat_t = {self.port}",
                "half_open_timeout = 8",
                "retransmit_timeout = 1.0",
                "retransmit_tries = 3",
                f"plugins {{ vici {{ socket = unix://{self._directory / _SOCKET} }} }}",
                f"filelog {{ log {{ path = {self._directory / 'charon.log'}\nflush_line = yes\ndefault = 1 }} }}",
            ]
        )
        return "".join(f"{name} {{\n{body}\n}}\n" for name in ("charon", "charon-systemd"))


class Ipsec:
    """This end of a tunnel between the protected addresses `ours` and `theirs`; `there` is the other host's.

    `charons`: those of this host, of which it takes both or, where the kernel has ESP, the first one.
    """

    def __init__(self, charons: Sequence[Charon], there: str, ours: str, theirs: str) -> None:
        self._there = there
        self._ours = ours
        self._theirs = theirs
        self._name = f"to-{there}"
        self._certificate = b""  # of the other end
        # Also what has a route, but for what a policy of charon's covers.
        self._drop_all = ("dst", f"{theirs}/32", "dir", "out")
        block(theirs)
        charons[0].start()
        self._in_kernel = charons[0].in_kernel
        self._charons = charons[:1] if self._in_kernel else charons
        self._keys: list[list[str]] = [[] for _ in self._charons]  # that each charon has, the newest one last
        self._way = len(self._charons) - 1  # which of them packets take
        self._used: str | None = None
        if self._in_kernel:
            tool("ip", "xfrm", "policy", "update", *self._drop_all, "action", "block", "priority", _WEAKEST)

    @property
    def data_path(self) -> str:
        """What carries packets at this end."""
        return "kernel ESP" if self._in_kernel else "kernel-libipsec"

    def offer(self) -> dict[str, Any]:
        """What the other end must know."""
        return {"certificate": self._charons[0].certificate.decode()}

    def accept(self, theirs: Mapping[str, Any]) -> None:
        """What the other end offers; Malformed."""
        # Certificates are printable but for the ends of their lines.
        given = theirs.get("certificate")
        text("".join(given.split()) if isinstance(given, str) else given, "certificate", longest=_LONGEST_CERTIFICATE)
        self._certificate = str(given).encode()

    @property
    def idle(self) -> int:
        """Which of the charons gets the next key."""
        return (self._way + 1) % len(self._charons)

    def load(self, key_id: str, key: Secret, far: int, *, first: bool) -> None:
        """Be ready for an IKE_SA under a key with charon `far` of the other end, beside the one in use; Failed."""
        charon = self._charons[self.idle]
        charon.start()
        self.forget_others()
        secret = {"id": key_id, "type": "PPK", "data": key.reveal(), "owners": [key_id]}
        charon.ask(lambda session: session.load_shared(secret))
        self._keys[self.idle].append(key_id)
        # The other end is told which PPK to take, and takes any that it has.
        name = self._of(key_id) if first else self._name
        connection = self._connection(charon, PORTS[far]) | ({"ppk_id": key_id} if first else {})
        charon.ask(lambda session: session.load_conn({name: connection}))

    def establish(self, key_id: str) -> None:
        """Set up the IKE_SA under the key that was loaded; Failed."""
        charon = self._charons[self.idle]
        try:
            charon.ask(lambda session: list(session.initiate(
                {"ike": self._of(key_id), "child": _CHILD, "timeout": str(int(1000 * _ESTABLISH_S)), "loglevel": "0"}
            )))  # fmt: skip
        except Failed as error:
            _terminate(charon, self._of(key_id))
            raise Failed(504, "handshake", f"no IKE_SA under the new key: {error}") from None

    def turn(self, key_id: str) -> None:
        """Send under the key that was loaded from now on. By the kernel it is so since its IKE_SA stands."""
        if self._keys[self.idle][-1:] != [key_id]:
            raise Failed(409, "other_key", "another key than this one was loaded last")
        if not self._in_kernel:
            route(self._theirs, self._charons[self.idle].device(), self._ours)
        self._way, self._used = self.idle, key_id

    def forget_others(self) -> None:
        """Have no IKE_SA, and no key, but that of the key in use."""
        for key_id in [key_id for key_id in self._keys[self.idle] if key_id != self._used]:
            self._forget(self.idle, key_id)
        if not self._in_kernel:  # else that of the key in use has the same name
            _terminate(self._charons[self.idle], self._name)

    def close(self) -> None:
        """Let nothing through."""
        block(self._theirs)
        for way, charon in enumerate(self._charons):
            for key_id in list(self._keys[way]):
                self._forget(way, key_id)
            _terminate(charon, self._name)
        self._used = None
        if self._in_kernel:  # and charon may have ended without notice
            for a, b in ((self._ours, self._theirs), (self._theirs, self._ours)):
                _quietly("xfrm", "policy", "deleteall", "src", f"{a}/32", "dst", f"{b}/32")
            here = self._charons[0].here
            for a, b in ((here, self._there), (self._there, here)):
                _quietly("xfrm", "state", "deleteall", "src", a, "dst", b, "proto", "esp")
            _quietly("route", "delete", f"{self._theirs}/32", "table", _ROUTES)

    def carried(self) -> tuple[int, int]:
        """Bytes received and sent by the newest IKE_SA."""
        names = {self._name, self._of(self._used or "")}
        sas = self._charons[self._way].ask(lambda session: list(session.list_sas()))
        children = [
            child for sa in sas for name, of in sa.items() if name in names for child in of["child-sas"].values()
            if child.get("state") == b"INSTALLED"
        ]  # fmt: skip
        newest = max(children, key=lambda child: int(child["uniqueid"]), default=None)
        return (0, 0) if newest is None else (int(newest["bytes-in"]), int(newest["bytes-out"]))

    def remove(self) -> None:
        """As if it had never been, but for the route that lets nothing through."""
        self.close()
        for charon in self._charons:
            with contextlib.suppress(Failed):
                charon.ask(lambda session: session.unload_conn({"name": self._name}))
        if self._in_kernel:
            _quietly("xfrm", "policy", "delete", *self._drop_all)

    def _connection(self, charon: Charon, far_port: int) -> dict[str, Any]:
        lifetimes_off = {"rekey_time": "0", "reauth_time": "0", "over_time": "0"}
        child = {
            "local_ts": [f"{self._ours}/32"], "remote_ts": [f"{self._theirs}/32"], "mode": "tunnel",
            "esp_proposals": [_ESP], "rekey_time": "0", "life_time": "0", "start_action": "none",
        }  # fmt: skip
        ports = {} if self._in_kernel else {"local_port": str(charon.port), "remote_port": str(far_port)}
        return {
            "version": "2", "local_addrs": [charon.here], "remote_addrs": [self._there], "proposals": [_IKE],
            "ppk_required": "yes", "unique": "never", "encap": "yes", "mobike": "no", "childless": "force",
            "local-1": {"auth": "pubkey", "certs": [charon.certificate]},
            "remote-1": {"auth": "pubkey", "certs": [self._certificate]},
            "children": {_CHILD: child}, **ports, **lifetimes_off,
        }  # fmt: skip

    def _of(self, key_id: str) -> str:
        """The name of the connection that this end sets up under that key."""
        return f"{self._name}-{key_id}"

    def _forget(self, way: int, key_id: str) -> None:
        """Have a charon know a key no more, nor what is derived from it. Of what it does not know, nothing."""
        self._keys[way].remove(key_id)
        charon, name = self._charons[way], self._of(key_id)
        _terminate(charon, name)
        for forget in (lambda s: s.unload_shared({"id": key_id}), lambda s: s.unload_conn({"name": name})):
            with contextlib.suppress(Failed):
                charon.ask(forget)


def _terminate(charon: Charon, name: str) -> None:
    wanted = {"ike": name, "force": "yes", "timeout": str(int(1000 * _TERMINATE_S))}
    with contextlib.suppress(Failed):  # there is none
        charon.ask(lambda session: list(session.terminate(wanted)))


def _quietly(*command: str) -> None:
    """Have `ip` take something from the kernel, which mostly is not there."""
    with contextlib.suppress(Failed):
        tool("ip", *command)
