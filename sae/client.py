"""An application's side of its KME: GS QKD 014 for keys, key sessions beside it. Keys become Secrets at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from documents.checks import Malformed, mapping, sequence, text, uuid_text
from documents.paths import parsed
from documents.secret import Secret
from etsi.gs004 import QoS
from etsi.gs014 import read_key_container
from mtls.call import Caller, Reply, Unreachable
from mtls.identity import Identity, Role

# A KME waits for its database, its controller or for relays that are away; it must give up before we do, to say why.
_TIMEOUT_S, _ROUND_TRIPS = 10.0, 12
# Nobody waits for the end of a session: what stays behind, the other side finds closed.
_CLOSE_TIMEOUT_S = 3.0
# What another party's error text or fact may fill of our journal and of our own answers.
_LONGEST_TEXT, _MOST_FACTS, _LONGEST_PATH = 500, 16, 65
_PARTIES = {"kme": "the KME", "slave": "the slave SAE", "gateway": "the other gateway"}
# Names that journal lines and error bodies use themselves.
_RESERVED = frozenset(("self", "name", "time", "mono", "who", "event", "status", "message"))


class Failed(Exception):
    """What was asked for did not come: `status` as HTTP has it, `cause` in a word, `facts` for programs."""

    def __init__(self, status: int, cause: str, message: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.cause = cause
        self.facts = dict(facts or {})


@dataclass(frozen=True, slots=True)
class Opened:
    """An open key session: its KSID and the nodes on its path, the master's first; empty if its node knows none yet.

    `paths`: each path, where keys go over several at once; `path` has the nodes of all then.
    """

    ksid: str
    path: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...] = ()


def timeout_s(round_trip_s: float) -> float:
    """What a KME may take in a network whose longest round trip is that. PURE."""
    return _TIMEOUT_S + _ROUND_TRIPS * round_trip_s


class KmeClient:
    """Calls the KME `name` at `url` as the owner of `caller`'s credentials."""

    def __init__(self, caller: Caller, url: str, name: str) -> None:
        self._caller = caller
        self._url = url
        self._kme = Identity(Role.NODE, name)

    def open_key_session(self, peer: str, side: str, qos: QoS, duration_s: float | None = None) -> Opened | None:
        """The paper's open_key_session, as `side` "master" or "slave". None while the other side is awaited; Failed.

        `duration_s`: how long the session is to last, as far as that is known.
        """
        body: dict[str, Any] = {"peer": peer, "side": side, "qos": qos.to_json()}
        if duration_s is not None:
            body["duration_s"] = duration_s
        reply = self._ask("POST", "/qkd/v1/key_sessions", body)
        if reply.status == 202:
            return None
        try:
            answer = mapping(reply.body, "body")
            path = sequence(answer.get("path", []), "path", longest=_LONGEST_PATH)
            nodes = tuple(text(node, "path") for node in path)
            return Opened(uuid_text(answer.get("ksid"), "ksid"), nodes, tuple(parsed(answer, _LONGEST_PATH)))
        except Malformed as error:
            raise Failed(502, "bad_answer", f"the KME's answer is malformed: {error}") from None

    def withdraw(self, master: str) -> None:
        """Take back the registration as `master`'s slave; or Failed."""
        self._ask("DELETE", f"/qkd/v1/key_sessions?master_sae={quote(master, safe='')}", within_s=_CLOSE_TIMEOUT_S)

    def close_key_session(self, ksid: str) -> None:
        """End a session; or Failed."""
        self._ask("DELETE", f"/qkd/v1/key_sessions/{ksid}", within_s=_CLOSE_TIMEOUT_S)

    def get_key(self, slave: str, size_bits: int) -> tuple[str, Secret]:
        """GS QKD 014 "Get key" (clause 5.3) for one key: its ID and the key; or Failed."""
        body = {"number": 1, "size": size_bits}
        found = _keys(self._ask("POST", f"/api/v1/keys/{quote(slave, safe='')}/enc_keys", body))
        if [8 * len(key) for key in found.values()] != [size_bits]:
            _wipe(found)
            raise Failed(502, "bad_answer", "the KME answered with other keys than asked for")
        return next(iter(found.items()))

    def get_keys_with_ids(self, master: str, key_ids: Sequence[str]) -> dict[str, Secret]:
        """GS QKD 014 "Get key with key IDs" (clause 5.4): all of them, by their IDs, or Failed."""
        body = {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}
        found = _keys(self._ask("POST", f"/api/v1/keys/{quote(master, safe='')}/dec_keys", body))
        if set(found) != set(key_ids):
            _wipe(found)
            raise Failed(502, "bad_answer", "the KME answered with other key IDs than asked for")
        return found

    def _ask(self, method: str, path: str, body: Any = None, *, within_s: float | None = None) -> Reply:
        within_s = within_s or timeout_s(self._caller.round_trip_s)
        return ask(self._caller, method, self._url + path, to=self._kme, of="kme", body=body, within_s=within_s)


def ask(
    caller: Caller, method: str, url: str, *, to: Identity, of: str, body: Any = None, within_s: float
) -> Reply:  # fmt: skip
    """The answer of party `to`, which is `of` that kind: kme, slave or gateway. Failed if it has none, or refuses."""
    try:
        reply = caller.request(method, url, to=to, body=body, timeout_s=within_s)
    except Unreachable as error:
        raise Failed(503, f"{of}_unreachable", f"{_PARTIES[of]} cannot be reached: {error.reason}") from None
    if not reply.ok:
        raise failure(reply, of=of)
    return reply


def failure(reply: Reply, *, of: str = "kme") -> Failed:
    """The Failed that an error answer `of` our KME, a slave or another gateway stands for, with the facts in its body.

    Its cause is the body's detail `cause`; without one, that it is a bug or that the party refused. The body is another
    party's: what goes on from here to the journal and to our own callers is plain, short, and overwrites nothing of
    ours.
    """
    given = {k: v for k, v in list(reply.details.items())[:_MOST_FACTS] if _is_plain(v)}
    cause, message, is_bug = given.pop("cause", None), reply.message, reply.status == 500
    if not isinstance(cause, str) or not cause:
        cause = "internal_error" if is_bug else f"{of}_refused"
    if not reply.has_message:
        said = "met a bug, and says no more" if is_bug else f"answered with {message}, and gives no reason"
        message = f"{_PARTIES[of]} {said}"
    status = reply.status if 400 <= reply.status < 600 else 502
    return Failed(status, cause, message, {k: v for k, v in given.items() if k not in _RESERVED})


def _is_plain(value: Any) -> bool:
    """Whether a journal takes it. Python's JSON reader lets NaN and lone surrogates pass, which JSON has not."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT and value.isprintable()
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _keys(reply: Reply) -> dict[str, Secret]:
    try:
        return read_key_container(reply.body)
    except Malformed as error:
        raise Failed(502, "bad_answer", f"the KME's key container is malformed: {error}") from None


def _wipe(keys: Mapping[str, Secret]) -> None:
    for key in keys.values():
        key.wipe()
