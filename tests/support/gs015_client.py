"""A controller that knows GS QKD 015 and RFC 8040 and nothing of ours: plain HTTP, plain server-sent events."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import urlsplit

import urllib3

from mtls.credentials import Credentials
from mtls.identity import Identity
from tests.support.waiting import until

N = "/restconf/data/etsi-qkd-sdn-node:qkd_node"
YANG_JSON = "application/yang-data+json"


class Answer:
    """Status, headers and JSON of an answer."""

    def __init__(self, found: urllib3.BaseHTTPResponse) -> None:
        self.status = found.status
        self.headers = found.headers
        self.text = found.data.decode()

    @property
    def body(self) -> Any:
        """The JSON document; None if there is none."""
        return json.loads(self.text) if self.text else None

    @property
    def tag(self) -> str:
        """The error tag, of a body as RFC 8040, clause 7.1, has it."""
        assert self.headers["Content-Type"] == YANG_JSON
        (error,) = self.body["ietf-restconf:errors"]["error"]
        assert error["error-type"] in ("transport", "rpc", "protocol", "application")
        assert error["error-message"]
        return str(error["error-tag"])


class Restconf:
    """Calls the agent at `url`, which is `to`, as the owner of `credentials`."""

    def __init__(self, credentials: Credentials, url: str, to: Identity) -> None:
        self.url = url
        self._pool = urllib3.PoolManager(
            ssl_context=credentials.client_context(), server_hostname=to.dns, retries=False, timeout=10
        )

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request; a body that is no string is sent as JSON."""
        data = body if isinstance(body, str | None) else json.dumps(body)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            fields.setdefault("Content-Type", YANG_JSON)
        return Answer(self._pool.request(method, self.url + path, body=data, headers=fields))

    def get(self, path: str = N, **headers: str) -> Any:
        """The document there."""
        answer = self.call("GET", path, **headers)
        assert answer.status == 200, answer.text
        return answer.body

    def link(self, key: str) -> dict[str, Any]:
        """That link."""
        (found,) = self.get(f"{N}/qkd_links/qkd_link={key}")["etsi-qkd-sdn-node:qkd_link"]
        return found

    def follow(self, stream: str = "NETCONF") -> Events:
        """What comes from a stream that the agent lists, from now on."""
        path = "/restconf/data/ietf-restconf-monitoring:restconf-state/streams"
        streams = self.get(path)["ietf-restconf-monitoring:streams"]["stream"]
        (found,) = (s for s in streams if s["name"] == stream)
        (access,) = (a for a in found["access"] if a["encoding"] == "json")
        answer = self._pool.request(
            "GET", self.url + urlsplit(access["location"]).path, headers={"Accept": "text/event-stream"},
            preload_content=False, timeout=urllib3.Timeout(connect=5, read=20),
        )  # fmt: skip
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        return Events(answer)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()


class Events:
    """The events of a stream, read in a thread."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self.all: list[dict[str, Any]] = []
        self._answer = answer
        threading.Thread(target=self._read, daemon=True).start()

    def named(self, name: str) -> list[dict[str, Any]]:
        """The contents of all notifications of that name so far."""
        found = [event["ietf-restconf:notification"] for event in list(self.all)]
        return [n[f"etsi-qkd-sdn-node:{name}"] for n in found if f"etsi-qkd-sdn-node:{name}" in n]

    def wait_for(self, name: str, what: Any = lambda _: True, timeout_s: float = 15.0) -> dict[str, Any]:
        """The first notification of that name for which `what` holds."""
        found = until(
            lambda: [content for content in self.named(name) if what(content)], timeout_s,
            else_tell=lambda: f"no {name} in {self.all}",
        )  # fmt: skip
        return dict(found[0])

    def close(self) -> None:
        """Listen no more."""
        self._answer.shutdown()

    def _read(self) -> None:
        text = b""
        try:
            for piece in self._answer.stream(1, decode_content=False):
                text += piece
                while b"\n\n" in text:
                    block, _, text = text.partition(b"\n\n")
                    data = [line[5:].strip() for line in block.splitlines() if line.startswith(b"data:")]
                    if data:
                        self.all.append(json.loads(b"\n".join(data)))
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError):
            return
