"""An end of TLS 1.3 under external pre-shared keys (RFC 8446, 4.2.11), by stunnel: from clients to a web server.

Theory of operation. Each key is an external PSK. Its identity, which a ClientHello bears in the clear, is the key's
ID. The end that leads is the TLS client: whoever connects at its host to the other end's protected address is served by
stunnel, which connects under the newest key. The other end is the TLS server, and passes on to what listens there at
its protected address. stunnel reads its keys again when it is told to, and goes on with the connections that it has: so
the server takes the new key beside the old one, then the client turns to the new one, then the server forgets the old
one. A connection stays under the key with which it began. Where no key is left both ends cut all connections.

There is no certificate, no other cipher, and no session to resume: without the key no handshake comes about. An
ephemeral Diffie-Hellman exchange comes beside it (psk_dhe_ke), as TLS 1.3 has it.

Keys are in no file system: stunnel reads them out of memory of the gateway, by a path that leads to nobody else's.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from documents.checks import integer
from documents.secret import Secret
from sae.client import Failed
from sae.vpn.daemons import Daemon, block, tool, unavailable

SERVICE_PORT = 80
_CIPHER = "TLS_AES_128_GCM_SHA256"  # external PSKs without a hash of their own are for SHA-256 (RFC 8446, 4.2.11)
_READY = "Configuration successful"
_LOG_BYTES = 1 << 16
_CLOSED = re.compile(r"(\d+) byte\(s\) sent to TLS, (\d+) byte\(s\) sent to socket")


class Tls:
    """This end between the protected addresses `ours` and `theirs`, of the hosts `here` and `there`. Failed.

    `leads`: it connects; else it is connected to.
    """

    def __init__(self, directory: Path, here: str, there: str, ours: str, theirs: str, *, leads: bool) -> None:
        self._there = there
        self._theirs = theirs
        self._leads = leads
        self._log = directory / f"stunnel-{theirs}.log"
        self._config = directory / f"stunnel-{theirs}.conf"
        self._keys: dict[str, Secret] = {}  # by ID, the newest one last
        self._daemon: Daemon | None = None
        self._memory = os.memfd_create("keys")
        os.fchmod(self._memory, 0o600)
        self._accept = f"{theirs}:{SERVICE_PORT}" if leads else f"{here}:{_free_port(here)}"
        self._connect = "" if leads else f"{ours}:{SERVICE_PORT}"
        block(theirs)

    @property
    def data_path(self) -> str:
        """What carries connections at this end."""
        return "stunnel"

    def offer(self) -> dict[str, Any]:
        """What the other end must know: a server's port."""
        return {} if self._leads else {"port": int(self._accept.rpartition(":")[2])}

    def accept(self, theirs: Mapping[str, Any]) -> None:
        """What the other end offers; Malformed."""
        if self._leads:
            self._connect = f"{self._there}:{integer(theirs.get('port'), 'port', low=1, high=65535)}"

    @property
    def idle(self) -> int:
        """There is one way, on which keys are side by side."""
        return 0

    def load(self, key_id: str, key: Secret, _: int, *, first: bool) -> None:
        """Have that key; a server takes it from now on."""
        self._keys[key_id] = Secret(key.reveal())
        if not first:
            self._read_again()

    def establish(self, key_id: str) -> None:
        """Both ends have that key. Each connection makes a handshake of its own."""

    def turn(self, key_id: str) -> None:
        """A client connects under that key from now on."""
        if next(reversed(self._keys), None) != key_id:
            raise Failed(409, "other_key", "another key than this one was loaded last")
        if self._leads:
            self._drop_others()
            tool("ip", "address", "replace", f"{self._theirs}/32", "dev", "lo")
            self._read_again()

    def forget_others(self) -> None:
        """Make and take no connection under any key but the newest one."""
        if len(self._keys) > 1:
            self._drop_others()
            self._read_again()

    def close(self) -> None:
        """Cut all connections, and let nobody connect."""
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None
        # After that: who was connected hears of the end at this address.
        if self._leads and tool("ip", "address", "show", "to", f"{self._theirs}/32").strip():
            tool("ip", "address", "delete", f"{self._theirs}/32", "dev", "lo")
        while self._keys:
            self._keys.popitem()[1].wipe()
        self._write()

    def carried(self) -> tuple[int, int]:
        """Bytes received and sent by the connections that have ended under this key, and a little before."""
        told = _CLOSED.findall(self._log.read_text(errors="replace")) if self._log.exists() else []
        return sum(int(received) for _, received in told), sum(int(sent) for sent, _ in told)

    def remove(self) -> None:
        """As if it had never been, but for the route that lets nothing through."""
        self.close()
        self._config.unlink(missing_ok=True)
        os.close(self._memory)

    def _drop_others(self) -> None:
        for key_id in list(self._keys)[:-1]:
            self._keys.pop(key_id).wipe()

    def _write(self) -> None:
        """As stunnel reads them; nothing of others stays behind."""
        os.ftruncate(self._memory, 0)
        lines = [key_id.encode() + b":" + key.reveal().hex().encode() + b"\n" for key_id, key in self._keys.items()]
        os.pwrite(self._memory, b"".join(reversed(lines)), 0)

    def _read_again(self) -> None:
        """Return when stunnel goes by the keys that there are now. It is started if it does not run."""
        self._write()
        if self._daemon is None or not self._daemon.alive():
            self._daemon = self._started()
            return
        if self._log.stat().st_size > _LOG_BYTES:
            os.truncate(self._log, 0)
        before = self._log.stat().st_size
        os.kill(self._daemon.pid, signal.SIGHUP)
        self._daemon.wait_until(lambda: _READY in self._log.read_bytes()[before:].decode(errors="replace"))


    def _started(self) -> Daemon:
        """stunnel, at work."""
        self._config.write_text(
            f"foreground = yes\npid =\nsyslog = no\ndebug = notice\n[service]\n"
            f"client = {'yes' if self._leads else 'no'}\naccept = {self._accept}\nconnect = {self._connect}\n"
            f"sessionResume = no\noptions = NO_TICKET\n"
            f"sslVersion = TLSv1.3\nciphersuites = {_CIPHER}\nciphers = PSK\n"
            f"PSKsecrets = /proc/{os.getpid()}/fd/{self._memory}\n"
        )
        self._log.write_bytes(b"")
        host, _, port = self._accept.rpartition(":")
        # stunnel is given the socket, as by systemd. One of its own it would close, and open anew, when it reads keys
        # again, and whoever connects in that moment would be sent away.
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, int(port)))
                listener.listen()
            except OSError as error:
                raise unavailable(f"cannot listen on {self._accept}: {error.strerror}") from None
            command = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&0 0</dev/null', "sh"]
            daemon = Daemon(
                [*command, "stunnel", str(self._config)], self._log, {"PATH": os.environ.get("PATH", "")},
                stdin=listener.fileno(), name="stunnel",
            )  # fmt: skip
        daemon.wait_until(lambda: _READY in self._log.read_text(errors="replace"))
        return daemon


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
