"""Foreign clients of a network under faults: two SAEs a pair of datacenters, which ask for keys and compare them.

They share no code with the testbed's own applications: Python's own HTTP client, a connection a request, documents of
GS QKD 014 as the standard prints them.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from mtls.identity import Identity, Role
from scenario.topology_description import Sae, Topology
from testbed.machine.namespaces import enter_network, network_of
from testbed.network.emulation import Emulation
from testbed.planning.plan import KME_PORT, SaePlan

_NAME = "stranger"
# A KME answers within 4 s and the round trips of a path; a client that gives up sooner learns nothing.
_TIMEOUT_S = 5.0
_PAUSE_S = 2.0
_AGAIN_S = 0.2
_BITS = 256


def with_strangers(topology: Topology) -> Topology:
    """The same network with a foreign SAE at each datacenter, which the testbed does not run."""
    added = (Sae(f"{_NAME}-{node.name}", node.name, str(uuid.uuid4()), external=True) for node in topology.nodes)
    return replace(topology, saes=(*topology.saes, *added))


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came of a key that a pair wanted: `failure` is empty if both sides hold the same one."""

    failure: str = ""
    broken: str = ""  # what must never happen, in words: two keys, or an answer that only a bug can give


class _Stranger:
    """A foreign SAE at its datacenter's host."""

    def __init__(self, emulation: Emulation, sae: SaePlan) -> None:
        self.id, self.node = sae.id, sae.node
        self._address = emulation.plan.hosts[sae.node].ip
        self._name = Identity(Role.NODE, sae.node).dns
        self._tls = emulation.credentials(sae.identity).client_context()
        self._network = network_of(emulation.network.pid(sae.node))

    def close(self) -> None:
        """Let go of the host."""
        os.close(self._network)

    def call(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and document that the own KME answers a POST with. OSError, HTTPException, ValueError: no answer.

        Takes this thread into the host's network.
        """
        enter_network(self._network)
        connection = http.client.HTTPConnection(self._address, KME_PORT, timeout=_TIMEOUT_S)
        try:
            connection.connect()
            connection.sock = self._tls.wrap_socket(connection.sock, server_hostname=self._name)
            content = {"Content-Type": "application/json"}
            connection.request("POST", f"/api/v1/keys/{path}", json.dumps(body), content)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class StrangerPair:
    """Two foreign SAEs of different datacenters."""

    master: _Stranger
    slave: _Stranger

    @property
    def name(self) -> str:
        """The datacenters."""
        return f"{self.master.node}-{self.slave.node}"

    def exchange(self) -> Exchange:
        """Have a key at both sides, by the ID alone, and compare the two."""
        step = "enc_keys"
        try:
            status, given = self.master.call(f"{self.slave.id}/enc_keys", {"size": _BITS})
            if status != 200:
                return _refusal(step, status, given)
            (key,) = given["keys"]
            step = "dec_keys"
            wanted = {"key_IDs": [{"key_ID": key["key_ID"]}]}
            status, fetched = self.slave.call(f"{self.master.id}/dec_keys", wanted)
            if status != 200:
                return _refusal(step, status, fetched)
            if fetched["keys"] != given["keys"]:
                return Exchange("differ", f"key {key['key_ID']} of {self.name}: the two sides got different keys")
        except (OSError, http.client.HTTPException) as error:
            return Exchange(f"{step}: {_no_answer(error)}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            failure = f"{step}: an answer that the standard does not know"
            return Exchange(failure, f"{failure} ({error!r})")
        return Exchange()


def _refusal(step: str, status: int, document: Any) -> Exchange:
    """A refusal with its cause; 5xx other than 503 and 504 are nothing that a fault explains."""
    details = {name: value for entry in document.get("details") or [] for name, value in entry.items()}
    failure = f"{step}: {status} {details.get('cause', document.get('message'))}"
    return Exchange(failure, failure if status >= 500 and status not in (503, 504) else "")


def _no_answer(error: BaseException) -> str:
    if isinstance(error, TimeoutError | socket.timeout):
        return f"no answer within {_TIMEOUT_S:g} s"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    return getattr(error, "strerror", None) or "connection lost"


class Strangers:
    """All pairs of datacenters on this machine; each gets a key every other second from `start` until `close`.

    `on_failure` hears of each exchange that failed, with the name of the pair.
    """

    def __init__(self, emulation: Emulation, on_failure: Callable[[str, Exchange], None]) -> None:
        here = emulation.network.plan.hosts
        chosen = [s for s in emulation.plan.saes if s.external and s.name.startswith(f"{_NAME}-") and s.node in here]
        self._all = [_Stranger(emulation, sae) for sae in chosen]
        self.pairs = [StrangerPair(a, b) for a, b in itertools.permutations(self._all, 2)]
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self.counted: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(p,), name=f"pair-{p.name}") for p in self.pairs]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End; returns when no request is under way."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        for stranger in self._all:
            stranger.close()

    def served(self, since: float, deadline: float) -> dict[str, float | str]:
        """By pair: how many seconds after `since` it had a key that it asked for then, or why none by `deadline`."""
        with ThreadPoolExecutor(len(self.pairs)) as pool:
            found = pool.map(lambda pair: self._until_served(pair, since, deadline), self.pairs)
            return dict(zip((p.name for p in self.pairs), found, strict=True))

    def _until_served(self, pair: StrangerPair, since: float, deadline: float) -> float | str:
        while True:
            failure = self._exchange(pair)
            now = time.monotonic()
            if not failure:
                return now - since
            if now >= deadline:
                return failure
            time.sleep(_AGAIN_S)

    def _ask(self, pair: StrangerPair) -> None:
        while not self._stop.wait(_PAUSE_S):
            self._exchange(pair)

    def _exchange(self, pair: StrangerPair) -> str:
        done = pair.exchange()
        with self._lock:
            self.counted[done.failure or "identical"] += 1
        if done.failure:
            self._on_failure(pair.name, done)
        return done.failure
