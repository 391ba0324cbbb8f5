"""`python -m testbed.teraflow RUN NODE [HOST:]PORT`: a front of a node's agent for the QKD driver of TeraFlowSDN.

The driver speaks plain HTTP with a bearer token, and GS QKD 015 without modules' names; the agent mutual TLS and RFC
8040. The front stands between them for as long as it runs. docs/controller.md says what TeraFlowSDN can do with it.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import secrets
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mtls.call import Caller, Reply, Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity, Role

_LOOPBACK = "127.0.0.1"
_LINKS = "/restconf/data/etsi-qkd-sdn-node:qkd_node/qkd_links"
_MAX_BODY_BYTES = 1 << 20
_PATIENCE_S = 10.0


def unprefixed(document: Any) -> Any:
    """An answer of the agent's with the outermost name as the driver looks for it."""
    if not isinstance(document, Mapping):
        return document
    return {name.rpartition(":")[2]: value for name, value in document.items()}


def as_modelled(body: Any) -> Any:
    """Links as the driver posts them, but with one next hop: it lists all nodes that are left, the next one first."""
    match body:
        case {"qkd_links": {"qkd_link": [*links]}}:
            return {"qkd_links": {"qkd_link": [_with_next_hop_alone(link) for link in links]}}
    return body


def _with_next_hop_alone(link: Any) -> Any:
    match link:
        case {"virt_next_hop": [following, *_]}:
            return {**link, "virt_next_hop": [following]}
    return link


class Front(ThreadingHTTPServer):
    """Serves at `address` what the agent of `node` at `url` says to `caller`, to whoever knows `token`."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], caller: Caller, node: str, url: str, token: str) -> None:
        super().__init__(address, _Handler)
        self._caller = caller
        self._node = Identity(Role.NODE, node)
        self._url = url
        self._expected = f"Bearer {token}".encode()

    def knows(self, authorization: str) -> bool:
        """Whether the header is that of somebody who knows the token."""
        return hmac.compare_digest(authorization.encode("latin-1", "replace"), self._expected)

    def ask(self, method: str, path: str, body: Any) -> Reply:
        """The agent's answer; Unreachable."""
        return self._caller.request(method, self._url + path, to=self._node, body=body, timeout_s=_PATIENCE_S)


class _Handler(BaseHTTPRequestHandler):
    server: Front
    server_version, sys_version = "qkd", ""
    timeout = _PATIENCE_S  # of a client that sends nothing

    def do_GET(self) -> None:
        self._pass_on(None)

    def do_DELETE(self) -> None:
        self._pass_on(None)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            self._answer(413, {"message": f"expected a body of at most {_MAX_BODY_BYTES} bytes, and its length"})
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            self._answer(400, {"message": "expected JSON"})
            return
        self._pass_on(as_modelled(body) if self.path.rstrip("/") == _LINKS else body)

    def _pass_on(self, body: Any) -> None:
        if not self.server.knows(self.headers.get("Authorization", "")):
            self._answer(401, {"message": "expected Authorization: Bearer TOKEN"})
            return
        try:
            reply = self.server.ask(self.command, self.path, body)
        except Unreachable as error:
            self._answer(502, {"message": f"the agent cannot be reached: {error.reason}"})
            return
        self._answer(reply.status, unprefixed(reply.body))

    def _answer(self, status: int, document: Any) -> None:
        data = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nobody needs to read who asked for what."""


def main(arguments: list[str]) -> int:
    """Serve until interrupted; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.teraflow", description="A front of a node's agent for the QKD driver of TeraFlowSDN."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run with --expose")
    parser.add_argument("node", metavar="NODE", help="name of the node")
    parser.add_argument("at", metavar="[HOST:]PORT", help=f"where to listen; HOST is {_LOOPBACK} if it is left out")
    given = parser.parse_args(arguments)
    run, node, (host, _, port) = given.run, given.node, given.at.rpartition(":")
    if not port.isdigit():
        parser.error(f"[HOST:]PORT: expected a port, got {given.at!r}")
    file = run / "expose.json"
    try:
        facts = json.loads(file.read_text())
        operator = Credentials(Path(facts["operator"]["cert"]), Path(facts["operator"]["key"]), Path(facts["ca"]))
        agents = dict(facts["agents"])
    except (ValueError, LookupError, TypeError):
        print(f"teraflow: {file} is none that a run has written", file=sys.stderr)
        return 2
    except OSError as error:
        return _refused(error)
    if node not in agents:
        print(f"teraflow: expected one of the nodes {', '.join(agents)}", file=sys.stderr)
        return 2
    try:
        token_file = operator.ca.with_name(f"teraflow-{node}.token")
        token = _new_token(token_file)
        front = Front((host or _LOOPBACK, int(port)), Caller(operator), node, agents[node], token)
    except (OSError, OverflowError) as error:
        return _refused(error)
    where = f"{host or _LOOPBACK}:{front.server_port}"
    print(f"front of {node} at http://{where}; its token is in {token_file}", flush=True)
    try:
        front.serve_forever()
    except KeyboardInterrupt:
        return 0
    return 0


def _refused(error: Exception) -> int:
    print(f"teraflow: {error}; is a run exposed there (run.py --expose), and are you root?", file=sys.stderr)
    return 2


def _new_token(path: Path) -> str:
    """A token in a file that its owner alone can read."""
    path.unlink(missing_ok=True)
    token = secrets.token_urlsafe(32)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{token}\n")
    return token


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
