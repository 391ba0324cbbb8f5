"""A QKD device of somebody else's: two KMEs of GS QKD 014 on real HTTPS with mutual TLS, with faults as a test says.

It knows nothing of this project but how to issue certificates. Its keys are random bytes, each given once at each end.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mtls.authority import Authority
from mtls.identity import Identity, Role
from testbed.network.loopback import LOOPBACK, free_port

SAES = {"a": "sae-at-a", "b": "sae-at-b"}  # as which our two nodes are known there
# What an end may do in place of what it should.
BUSY, SILENT, SLOW, LYING, SHORT, TWICE, AGAIN, FORGETFUL, HUNG_UP, BABBLING = FAULTS = (
    "busy", "silent", "slow", "lying", "short", "twice", "again", "forgetful", "hung_up", "babbling",
)  # fmt: skip
SLOW_S = 1.5  # that a slow one takes for an answer


class DevicePair:
    """Both ends. `made`: all keys by ID, as they were made; `given`: key IDs in the order in which an end gave them."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.lock = threading.Lock()
        self.made: dict[str, bytes] = {}
        self.ends = {end: DeviceEnd(self, end) for end in "ab"}

    def documents(self, qc: str, *, number: int = 2, size_bits: int = 256, every_s: float = 0.2) -> dict[str, Any]:
        """What our nodes must know of it, by node and QC."""
        return {
            end: {qc: {
                "url": f"https://{LOOPBACK}:{self.ends[end].port}", "peer_sae": SAES["b" if end == "a" else "a"],
                "credentials": self.authority.issue(Identity(Role.SAE, SAES[end]), addresses=[]).to_config(),
                "number": number, "size_bits": size_bits, "every_s": every_s,
            }}
            for end in "ab"
        }  # fmt: skip

    def stop(self) -> None:
        """End both."""
        for end in self.ends.values():
            end.stop()


class DeviceEnd:
    """The KME of one end. `fault`: what it does at requests for keys; `before`: called when one has come."""

    def __init__(self, pair: DevicePair, name: str) -> None:
        self.pair = pair
        self.name = name
        self.port = free_port()
        self.fault: str | None = None
        self.before: Callable[[str], None] = lambda _: None
        self.given: list[str] = []
        self.asked = self.refused = 0
        self.waiting: dict[str, bytes] = {}  # keys that its twin gave, and that wait here
        self.released = threading.Event()
        credentials = pair.authority.issue(Identity(Role.NODE, f"kme-{name}"), addresses=[LOOPBACK])
        self.context = credentials.server_context()
        self.server: ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        """Serve, again perhaps."""
        end = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                self.request.settimeout(30)
                self.request = end.context.wrap_socket(self.request, server_side=True)
                end.connections.append(self.request)
                super().setup()

            def finish(self) -> None:
                super().finish()
                self.request.close()

            def do_GET(self) -> None:
                self.answer(b"")

            def do_POST(self) -> None:
                self.answer(self.rfile.read(int(self.headers["Content-Length"])))

            def answer(self, body: bytes) -> None:
                uris = [value for kind, value in self.request.getpeercert()["subjectAltName"] if kind == "URI"]
                if uris != [f"urn:qkd:sae:{SAES[end.name]}"] or SAES[end.other] not in self.path:
                    found = 401, {"message": "unauthorized"}
                else:
                    found = end.answered(self.path.rpartition("/")[2], json.loads(body or b"{}"))
                if found is None:
                    self.close_connection = True
                    return
                status, document = found
                raw = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        class Server(ThreadingHTTPServer):
            allow_reuse_port = True
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that is gone is nothing to talk about."""

        self.connections: list[socket.socket] = []
        self.released.clear()
        self.server = Server((LOOPBACK, self.port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be gone, as a device without power is; keys stay."""
        if self.server is not None:
            self.released.set()
            self.server.shutdown()
            self.server.server_close()
            self.server = None
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def heal(self) -> None:
        """Behave again."""
        self.fault = None
        self.released.set()

    @property
    def other(self) -> str:
        """The other end's name."""
        return "b" if self.name == "a" else "a"

    def answered(self, what: str, document: dict[str, Any]) -> tuple[int, Any] | None:
        """Status and body; None: it hangs up."""
        if what == "status":
            return (503, {"message": "busy"}) if self.fault == BUSY else (200, {"key_size": 256})
        self.asked += 1
        self.before(what)
        if self.fault == SILENT:
            self.released.wait(60)
            return None
        if self.fault == BUSY:
            self.refused += 1
            return 503, {"message": "busy"}
        if self.fault == SLOW:
            time.sleep(SLOW_S)
        if self.fault == BABBLING:
            return 200, b"no key" * 10
        with self.pair.lock:
            found = self._new(document) if what == "enc_keys" else self._waiting(document)
        if found is None:
            return 400, {"message": "one or more keys specified are not found on KME"}
        self.given += found
        if self.fault == HUNG_UP:
            return None
        keys = [{"key_ID": key_id, "key": base64.b64encode(self._shown(key)).decode()} for key_id, key in found.items()]
        return 200, {"keys": keys[:1] * 2 if self.fault == TWICE else keys}

    def _new(self, document: dict[str, Any]) -> dict[str, bytes]:
        if self.fault == AGAIN and self.given:
            return {key_id: self.pair.made[key_id] for key_id in self.given[-document["number"] :]}
        found = {str(uuid.uuid4()): secrets.token_bytes(document["size"] // 8) for _ in range(document["number"])}
        self.pair.made |= found
        self.pair.ends[self.other].waiting |= found
        return found

    def _waiting(self, document: dict[str, Any]) -> dict[str, bytes] | None:
        ids = [entry["key_ID"] for entry in document["key_IDs"]]
        if self.fault == FORGETFUL or not set(ids) <= set(self.waiting):
            return None
        return {key_id: self.waiting.pop(key_id) for key_id in ids[::-1]}  # in whatever order

    def _shown(self, key: bytes) -> bytes:
        if self.fault == LYING:
            return bytes([key[0] ^ 1]) + key[1:]
        return key[:-1] if self.fault == SHORT else key


def laid(local_db: Path, qc: str) -> list[str]:
    """The IDs of the keys that a node laid into the QC's stream, in order."""
    database = sqlite3.connect(f"{local_db.absolute().as_uri()}?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT key_id FROM laid WHERE qc = ? ORDER BY number", (qc,)).fetchall()
    finally:
        database.close()
    return [str(uuid.UUID(bytes=row[0])) for row in rows]
