"""An SAE that asks a KME by Python's own HTTP and TLS. It mends nothing: an odd answer comes through as it is."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from conformance.checks import Failed

_LONGEST_ANSWER, _LONGEST_TEXT = 64 << 20, 160
Body = bytes | str | dict[str, Any] | list[Any] | None
METHODS = ("status", "enc_keys", "dec_keys")


class NoAnswer(Failed):
    """The KME gave none: the connection could not be made, broke, or carried no HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, header fields and body, as they came. `raw` may hold keys, and is not shown."""

    status: int
    headers: Message
    raw: bytes = field(repr=False)

    @property
    def document(self) -> dict[str, Any]:
        """The body as a JSON object in UTF-8; Failed if it is none."""
        try:
            found = json.loads(self.raw.decode())
        except (ValueError, RecursionError):
            raise Failed(f"the body of the answer (status {self.status}) is not JSON in UTF-8") from None
        if not isinstance(found, dict):
            raise Failed(f"the body of the answer (status {self.status}) is not a JSON object")
        return found

    @property
    def said(self) -> str:
        """Status, and the message of an error body if there is one, in one short line."""
        message: object = None
        with contextlib.suppress(Failed):
            message = self.document.get("message")
        if self.status == 200 or not isinstance(message, str):
            return f"status {self.status}"
        return f"status {self.status}: {''.join(c if c.isprintable() else ' ' for c in message[:_LONGEST_TEXT])}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of a PEM certificate and of its private key."""

    certificate: Path
    key: Path


class Sae:
    """The SAE `sae_id` at the KME at `url`, an https URL; shows `certificate`, trusts `ca`.

    `any_name`: take a KME's certificate for whatever name or address it is made out.
    `refusals` collects what the three methods answered other than 200, with the method.
    """

    def __init__(
        self, sae_id: str, url: str, certificate: Certificate, ca: Path, *, any_name: bool, timeout_s: float
    ) -> None:
        parts = urlsplit(url)
        self.id = sae_id
        self.url = url
        self.certificate = certificate
        self.host = parts.hostname or ""
        self.port = parts.port or 443
        self._prefix = parts.path.rstrip("/")
        self._ca = ca
        self._any_name = any_name
        self._timeout_s = timeout_s
        self._context = self.context(certificate)
        self.refusals: list[tuple[str, Answer]] = []

    def at(self, other: Sae) -> Sae:
        """The same SAE, asking the KME of another one."""
        found = Sae(self.id, other.url, self.certificate, self._ca, any_name=self._any_name, timeout_s=self._timeout_s)
        found.refusals = self.refusals
        return found

    def context(self, certificate: Certificate | None, *, any_name: bool | None = None) -> ssl.SSLContext:
        """As this SAE connects, with that certificate, or none."""
        found = ssl.create_default_context(cafile=str(self._ca))
        found.check_hostname = not (self._any_name if any_name is None else any_name)
        if certificate is not None:
            found.load_cert_chain(certificate.certificate, certificate.key, password="")
        return found

    @contextlib.contextmanager
    def connected(self, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        """A connection made so; OSError, of which ssl.SSLError is a kind."""
        with (
            socket.create_connection((self.host, self.port), timeout=self._timeout_s) as raw,
            context.wrap_socket(raw, server_hostname=self.host) as connection,
        ):
            yield connection

    def dial(self) -> http.client.HTTPSConnection:
        """A connection that is kept over several calls, and to be closed."""
        return http.client.HTTPSConnection(self.host, self.port, context=self._context, timeout=self._timeout_s)

    def call(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None, *,
        over: http.client.HTTPConnection | None = None, chunked: bool = False,
    ) -> Answer:  # fmt: skip
        """One request; NoAnswer. A document is sent as JSON.

        `path` begins after the URL. `over`: a connection that is kept. `chunked`: send the body so (RFC 9112, 7.1).
        """
        fields = dict(headers or {})
        if isinstance(body, dict | list):
            body = json.dumps(body)
        if body is not None:
            fields.setdefault("Content-Type", "application/json")
        data = body.encode() if isinstance(body, str) else body
        connection = over or self.dial()
        try:
            connection.request(
                method, self._prefix + path, iter([data or b""]) if chunked else data, fields, encode_chunked=chunked
            )
            response = connection.getresponse()
            raw = response.read(_LONGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"no answer: {reason(error)}") from None
        finally:
            if over is None:
                connection.close()
        answer = Answer(response.status, response.headers, raw)
        name = path.partition("?")[0].rpartition("/")[2]
        asked_rightly = method == "GET" or (method == "POST" and name != "status")
        if answer.status != 200 and name in METHODS and asked_rightly:
            self.refusals.append((name, answer))
        return answer

    def request_text(self, slave: str) -> bytes:
        """Get status as it goes over the wire, for who has a connection of his own."""
        return f"GET {self._prefix}{_keys(slave)}/status HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()

    def status(self, slave: str) -> Answer:
        """Get status (clause 5.2)."""
        return self.call("GET", f"{_keys(slave)}/status")

    def get(self, slave: str, query: Mapping[str, object] | str = "") -> Answer:
        """Get key by GET (clause 5.3)."""
        text = query if isinstance(query, str) else urlencode(query)
        return self.call("GET", f"{_keys(slave)}/enc_keys{'?' if text else ''}{text}")

    def post(self, slave: str, body: Body, **options: Any) -> Answer:
        """Get key by POST (clause 5.3)."""
        return self.call("POST", f"{_keys(slave)}/enc_keys", body, **options)

    def fetch(self, master: str, body: Body, **options: Any) -> Answer:
        """Get key with key IDs by POST (clause 5.4)."""
        return self.call("POST", f"{_keys(master)}/dec_keys", body, **options)

    def fetch_by_query(self, master: str, query: str) -> Answer:
        """Get key with key IDs by GET (clause 5.4)."""
        return self.call("GET", f"{_keys(master)}/dec_keys{'?' if query else ''}{query}")


def key_ids(*ids: str) -> dict[str, Any]:
    """The body of Get key with key IDs (clause 6.4)."""
    return {"key_IDs": [{"key_ID": i} for i in ids]}


def reason(error: Exception) -> str:
    """Why there was no answer, without the name of an exception."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the KME's certificate does not hold: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "it took too long"
    return str(getattr(error, "strerror", None) or error) or "the connection was closed"


def only_tls_1_1(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same, which offers nothing newer: only to see it refused."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def _keys(sae_id: str) -> str:
    return f"/api/v1/keys/{quote(sae_id, safe='')}"
