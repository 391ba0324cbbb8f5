"""An SAE that knows GS QKD 014 and nothing of this project: Python's own HTTP and TLS, strict about certificates."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mtls.credentials import Credentials

NOT_FOUND = "one or more keys specified are not found on KME"
Body = bytes | str | dict[str, Any] | list[Any] | None


@dataclass(frozen=True)
class Answer:
    """Status, headers and decoded body; an error of any kind must have been the standard's Error document."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def message(self) -> str:
        """The error's text."""
        return self.body["message"]

    @property
    def ids(self) -> list[str]:
        """The key IDs of a key container."""
        return [entry["key_ID"] for entry in self.body["keys"]]

    @property
    def keys(self) -> dict[str, bytes]:
        """Key ID -> key, of a key container."""
        return {entry["key_ID"]: base64.b64decode(entry["key"], validate=True) for entry in self.body["keys"]}


def key_ids(*ids: str) -> dict[str, Any]:
    """The body of dec_keys."""
    return {"key_IDs": [{"key_ID": i} for i in ids]}


class Sae:
    """The SAE `sae_id`, which asks the KME at `url` (its own site's) with its certificate."""

    def __init__(self, sae_id: str, url: str, credentials: Credentials) -> None:
        self.id = sae_id
        self.address = url.removeprefix("https://")
        self.credentials = credentials
        self.context = ssl.create_default_context(cafile=str(credentials.ca))
        self.context.verify_flags |= ssl.VERIFY_X509_STRICT
        self.context.load_cert_chain(credentials.certificate, credentials.key)

    def dial(self) -> http.client.HTTPSConnection:
        """A connection of its own, which may be kept."""
        return http.client.HTTPSConnection(self.address, context=self.context, timeout=30)

    def call(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        *,
        over: http.client.HTTPSConnection | None = None,
    ) -> Answer:
        """One request: `over` a connection that is kept, or over one of its own. A document is sent as JSON."""
        if isinstance(body, dict | list):
            body = json.dumps(body)
        connection = over or self.dial()
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            raw = response.read()
        finally:
            if over is None:
                connection.close()
        assert response.headers.get_content_type() == "application/json"
        answer = Answer(response.status, dict(response.headers), json.loads(raw) if raw else None)
        if response.status != 200 and method != "HEAD":
            assert_error_document(answer.body)
        return answer

    def status(self, slave: str) -> dict[str, Any]:
        """What can be had for `slave`; it must be there."""
        answer = self.call("GET", f"/api/v1/keys/{slave}/status")
        assert answer.status == 200, answer
        return answer.body

    def stored(self, slave: str) -> int:
        """How many keys of the default size can be had for `slave`."""
        return self.status(slave)["stored_key_count"]

    def drain(self, slave: str, leave: int) -> None:
        """Take keys until `leave` of the default size are left for `slave`, or fewer."""
        while (over := self.stored(slave) - leave) > 0:
            large = {"number": min(64, over // 64), "size": 8192}  # which count for some 32 each
            answer = self.post(slave, large if over > 400 else {"number": min(64, over)})
            assert answer.status == 200, answer

    def get(self, slave: str, **query: object) -> Answer:
        """Get key, GET form."""
        return self.call("GET", f"/api/v1/keys/{slave}/enc_keys" + (f"?{urlencode(query)}" if query else ""))

    def post(self, slave: str, body: Body, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
        """Get key, POST form."""
        return self.call("POST", f"/api/v1/keys/{slave}/enc_keys", body, headers, **options)

    def fetch(self, master: str, *ids: str, **options: Any) -> Answer:
        """Get key with key IDs, POST form."""
        return self.fetch_raw(master, key_ids(*ids), **options)

    def fetch_raw(self, master: str, body: Body, **options: Any) -> Answer:
        """Get key with key IDs, POST form, with any body."""
        return self.call("POST", f"/api/v1/keys/{master}/dec_keys", body, **options)

    def fetch_by_query(self, master: str, query: str) -> Answer:
        """Get key with key IDs, GET form."""
        return self.call("GET", f"/api/v1/keys/{master}/dec_keys?{query}")


def assert_error_document(body: Any) -> None:
    """Clause 6.5: a message, and details that are an array of objects, and nothing else."""
    assert isinstance(body, dict), body
    assert set(body) <= {"message", "details"}
    assert isinstance(body["message"], str)
    assert body["message"]
    details = body.get("details", [])
    assert isinstance(details, list)
    assert all(isinstance(entry, dict) for entry in details)
