"""A QKD device's KME (GS QKD 014), as the node at that end of the QC calls it. Keys become Secrets at once.

The device is another network's, which knows nothing of ours: its KME shows a certificate for the host of its URL, and
it is told neither of our deadlines nor of our traces.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import urllib3

from documents.checks import Malformed
from documents.secret import Secret
from etsi.gs014 import read_key_container
from mtls import deadline, json_text
from mtls.call import Reply, why
from mtls.liveness import OPTIONS
from node.config import DeviceKme
from node.limits import DEVICE_ANSWER_S

_HTTPS_PORT = 443
_LATER = (408, 425, 429)  # of 400 and above: ask again
_MOST_BYTES = 2 << 20  # of an answer: the most keys that may be asked for take less


class DeviceFailure(Exception):
    """The device gave no keys; the text says why, on one line."""

    state = ""  # that of the device, in a word
    meaning = ""  # the same for people


class Silent(DeviceFailure):
    """It does not answer, or is not who it should be."""

    state, meaning = "silent", "its device does not answer"


class Refused(DeviceFailure):
    """It answers, and gives none. `for_good`: it is no use to ask for the same again."""

    state, meaning = "refuses", "its device gives no keys"

    def __init__(self, text: str, *, for_good: bool) -> None:
        super().__init__(text)
        self.for_good = for_good


class BadAnswer(DeviceFailure):
    """It says that it gives keys, and gives something else."""

    state, meaning = "bad_answer", "its device answers with something else than the keys that were asked for"


class Device(Protocol):
    """One end of a device. All of it may raise DeviceFailure."""

    def check(self) -> None:
        """Find out whether it answers."""

    def get_keys(self) -> dict[str, Secret]:
        """New keys by ID."""

    def get_keys_with_ids(self, key_ids: Sequence[str]) -> dict[str, Secret]:
        """The keys that its twin gave under these IDs, in their order."""

    def close(self) -> None:
        """It is asked no more."""


class DeviceClient:
    """Calls the KME of one end of a device, as an SAE there. For one thread."""

    def __init__(self, kme: DeviceKme) -> None:
        self._kme = kme
        parts = urlsplit(kme.url)
        host, port = parts.hostname or "", parts.port or _HTTPS_PORT
        context = kme.credentials.client_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # devices' CAs leave out what RFC 5280 wants
        context.sslsocket_class = deadline.TimedSocket
        self._prefix = f"{parts.path.rstrip('/')}/api/v1/keys/{quote(kme.peer_sae, safe='')}"
        self._headers = {"Host": parts.netloc, "Accept": "application/json", "Content-Type": "application/json"}
        at, port = kme.via or (host, port)
        self._pool = urllib3.HTTPSConnectionPool(
            at, port, maxsize=1, retries=False, ssl_context=context, server_hostname=host, headers=self._headers,
            socket_options=[*urllib3.connection.HTTPConnection.default_socket_options, *OPTIONS],
        )  # fmt: skip

    def check(self) -> None:
        """Find out whether the device answers (clause 5.1, "Get status"); DeviceFailure."""
        self._ask("GET", "status", None)

    def get_keys(self) -> dict[str, Secret]:
        """New keys (clause 5.3, "Get key"), as many and as long as they were to be, by ID; DeviceFailure."""
        body = {"number": self._kme.number, "size": self._kme.size_bits}
        found = self._keys(self._ask("POST", "enc_keys", body))
        if len(found) != self._kme.number:
            _wipe(found)
            raise BadAnswer(f"{len(found)} keys came where {self._kme.number} were asked for")
        return found

    def get_keys_with_ids(self, key_ids: Sequence[str]) -> dict[str, Secret]:
        """The keys that its twin gave under these IDs (clause 5.4), in their order; DeviceFailure."""
        found = self._keys(self._ask("POST", "dec_keys", {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}))
        if set(found) != set(key_ids):
            _wipe(found)
            raise BadAnswer("keys of other IDs came than were asked for")
        return {key_id: found[key_id] for key_id in key_ids}

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def _ask(self, method: str, what: str, body: Any) -> Any:
        begun = time.monotonic()
        try:
            with deadline.until(begun + DEVICE_ANSWER_S):
                answer = self._pool.request(
                    method, f"{self._prefix}/{what}", body=None if body is None else json.dumps(body).encode(),
                    timeout=urllib3.Timeout(total=DEVICE_ANSWER_S), redirect=False, preload_content=False,
                )  # fmt: skip
                raw = answer.read(_MOST_BYTES + 1)
            if len(raw) > _MOST_BYTES:
                answer.close()
                raise BadAnswer("the answer is too long")
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Silent(why(error, time.monotonic() - begun)) from None
        try:
            document = json_text.loads(raw) if raw else None
        except (ValueError, RecursionError):
            document = None
        if answer.status != 200:
            said = Reply(answer.status, document).message
            raise Refused(said, for_good=400 <= answer.status < 500 and answer.status not in _LATER)
        return document

    def _keys(self, document: Any) -> dict[str, Secret]:
        try:
            found = read_key_container(document)
        except Malformed as error:
            raise BadAnswer(f"no key container: {error}") from None
        if len(document["keys"]) != len(found):
            _wipe(found)
            raise BadAnswer("a key ID came twice")
        if any(8 * len(key) != self._kme.size_bits for key in found.values()):
            _wipe(found)
            raise BadAnswer(f"keys came that have not {self._kme.size_bits} bits")
        return found


def _wipe(keys: Mapping[str, Secret]) -> None:
    for key in keys.values():
        key.wipe()
