"""The controller's word to the agents, in RESTCONF (RFC 8040): read a node, configure it, many nodes in parallel."""

from __future__ import annotations

import collections
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit

from controller import limits
from controller.agents.configuration import application_path, with_application
from controller.agents.peer_shares import Turns
from controller.network.nodes import Agent
from etsi import gs015, gs015_testbed
from etsi.sae_id import to_uri
from ietf.yang import Refusal
from mtls import deadline
from mtls.call import Caller, Listener, Reply, Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from mtls.liveness import SILENCE_S
from telemetry import trace
from telemetry.journal import Journal

_DATA = "/restconf/data"
_STREAMS = f"{_DATA}/ietf-restconf-monitoring:restconf-state/streams"
_OPERATIONS = "/restconf/operations"
_STANDARD = "NETCONF"
_CHANGED_MEANWHILE = 412


class AgentFailed(Exception):
    """An agent did not do what was asked of it."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"the agent of node {node} did not take over the session: {reason}")
        self.node = node
        self.reason = reason


class TermOf(Protocol):
    """The term in which one of several controllers leads: each call says it."""

    @property
    def term(self) -> int:
        """That term."""

    def spoken_of(self, term: int) -> None:
        """A node goes by another controller, of that term, and has not done what it was told."""


class Agents:
    """Calls the agents. Thread-safe. The calls are told to `journal`; it and `round_trip_s`: see `mtls.call.Caller`.

    `term_of`: where there are several controllers.
    """

    def __init__(
        self,
        credentials: Credentials,
        journal: Journal,
        *,
        round_trip_s: float = 0.0,
        term_of: TermOf | None = None,
    ) -> None:
        self._credentials = credentials
        self._term_of = term_of
        self._caller = Caller(
            credentials, connections=limits.CALLS_TO_ONE, record=functools.partial(journal.event, "call"),
            round_trip_s=round_trip_s,
        )  # fmt: skip
        self._pool = ThreadPoolExecutor(limits.CALLS, thread_name_prefix="agents")
        # Apart from the calls, for which the steps wait.
        self._steps = Turns(
            "steps", journal, threads=limits.STEPS, for_one=limits.STEPS_FOR_ONE, waiting=limits.WAITING_FOR_ONE
        )
        self._returned = threading.Condition()
        self._under_way: dict[str, dict[object, float]] = {}  # agent -> its calls -> when they began
        self._waiting: collections.Counter[str] = collections.Counter()  # agent -> calls that have no turn yet
        self._takes_s: dict[str, float] = {}  # agent -> how long its calls have taken lately
        self._edited: dict[str, threading.Lock] = {}

    def listen(self, agent: Agent) -> tuple[Listener, bool]:
        """Listen to the agent's notifications; whether it offers the stream with our additions. Unreachable."""
        reply = self._get(agent, _STREAMS)
        streams = {}
        try:
            for stream in reply["ietf-restconf-monitoring:streams"]["stream"]:
                for access in stream["access"]:
                    if access["encoding"] == "json":
                        streams[stream["name"]] = urlsplit(access["location"]).path
        except (KeyError, TypeError, ValueError):
            raise Unreachable(agent.url, "the answer names no event streams") from None
        name = next((n for n in (gs015_testbed.STREAM, _STANDARD, *streams) if n in streams), None)
        if name is None:
            raise Unreachable(agent.url, "it offers no event stream in JSON")
        # The path of the location only: the agent may not know the address by which it is reached.
        extended = name == gs015_testbed.STREAM
        try:
            listener = Listener(
                self._credentials, agent.url + streams[name], Identity(Role.NODE, agent.name),
                timeout_s=limits.CALL_S, headers=self._in_term(),
                # Of one that knows only the standard nobody knows whether it says that it has nothing to say.
                silence_s=SILENCE_S if extended else None,
            )  # fmt: skip
        except Unreachable as error:
            self._heed(error.body)
            raise
        return listener, extended

    def node(self, agent: Agent) -> dict[str, Any]:
        """The whole node, configuration and state; Unreachable, Refusal."""
        return gs015.read_node(self._get(agent, f"{_DATA}/{gs015.NODE}"))

    def additions(self, agent: Agent) -> dict[str, Any]:
        """What our module says of the node; Unreachable, Refusal."""
        return gs015_testbed.read_extra(self._get(agent, f"{_DATA}/{gs015_testbed.NODE}"))

    def set_additions(self, agent: Agent, document: Mapping[str, Any]) -> None:
        """Merge into the data of our module; AgentFailed."""
        self._edit(agent, "PATCH", gs015_testbed.NODE, lambda _: {gs015_testbed.NODE: document})

    def enable(self, agent: Agent, link_id: str, *, enabled: bool) -> None:
        """Have a link's QC generate, or stop; AgentFailed."""
        document = {f"{gs015.MODULE}:qkd_link": [{"qkdl_id": link_id, "qkdl_enable": enabled}]}
        self._edit(agent, "PATCH", f"{gs015.NODE}/qkd_links/qkd_link={link_id}", lambda _: document)

    def configure(self, documents: Mapping[Agent, Mapping[str, Any]]) -> None:
        """Merge into the configuration of each node, of all at once; AgentFailed if one did not take it over."""
        path = f"{_DATA}/{gs015.NODE}"
        calls = {
            agent: self._pool.submit(trace.carried(self._call), agent, "PATCH", path, {gs015.NODE: document})
            for agent, document in documents.items()
        }
        failed = {agent.name: reason for agent, call in calls.items() if (reason := call.result())}
        if failed:
            node = min(failed)
            raise AgentFailed(node, failed[node])

    def put_application(self, agent: Agent, application: Mapping[str, Any]) -> None:
        """Have an application be configured so, whatever fed it before; AgentFailed.

        What `application` does not name stays as it is, as others have it at that moment. A PATCH would do that, but
        add to what feeds it.
        """

        def wanted(there: Any) -> Any:
            found = {} if there is None else gs015.read_app(there)
            return {f"{gs015.MODULE}:qkd_app": [with_application(found, application)]}

        self._edit(agent, "PUT", f"{gs015.NODE}/{application_path(application['app_id'])}", wanted)

    def remove(self, resources: Mapping[Agent, Sequence[str]]) -> set[str]:
        """Delete resources below qkd_node, at all nodes at once; the names of nodes that did not say that it is done.

        What is not there counts as deleted.
        """
        calls = {
            agent: self._pool.submit(trace.carried(self._delete), agent, paths) for agent, paths in resources.items()
        }
        return {agent.name for agent, call in calls.items() if not call.result()}

    def tell(self, agent: Agent, document: Mapping[str, Any]) -> int | None:
        """Say how an application fares; the version of the word that counts there now, None if that is not known."""
        path = f"{_OPERATIONS}/{gs015_testbed.APPLICATION_ANSWER}"
        try:
            reply = self._request(agent, "POST", path, {f"{gs015_testbed.MODULE}:input": document})
            return gs015_testbed.read_version(reply.body) if reply.ok else None
        except (Unreachable, Refusal):
            return None

    def later(self, node: str, step: Any, *arguments: Any, **named: Any) -> bool:
        """Have `step` done by one of the threads, for that node; False if too much waits for it already."""
        return self._steps.take(node, step, *arguments, **named)

    def close(self) -> None:
        """Drop what is not under way yet."""
        self._steps.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def application(self, agent: Agent, app_id: str) -> dict[str, Any]:
        """How an application is configured; empty if it is not. AgentFailed."""
        try:
            there = self._configured(agent, f"{gs015.NODE}/{application_path(app_id)}")
            return {} if there is None else gs015.read_app(there.body)
        except (Unreachable, Refusal) as error:
            raise AgentFailed(agent.name, str(error)) from None

    def _configured(self, agent: Agent, place: str) -> Reply | None:
        """What is configured there, if anything is; AgentFailed, Unreachable."""
        reply = self._request(agent, "GET", f"{_DATA}/{place}?content=config")
        if not reply.ok and reply.status != 404:
            raise AgentFailed(agent.name, _reason(reply))
        return reply if reply.ok else None

    def _edit(self, agent: Agent, method: str, place: str, change: Callable[[Any], Any]) -> None:
        """Do what `change` makes of the document that is there (None: nothing), as long as that is so; AgentFailed.

        When others change it meanwhile, `change` sees that. An edit that was given up may be obeyed later, by a node
        that was asleep: the first one that is done has all others refused, so that none replaces a newer one.
        """
        with self._editing(agent):
            for _ in range(limits.TRIES_OF_AN_EDIT):
                try:
                    there = self._configured(agent, place)
                    body = change(None if there is None else there.body)
                    reply = self._request(agent, method, f"{_DATA}/{place}", body, conditions=_as_it_is(there))
                except (Unreachable, Refusal) as error:
                    raise AgentFailed(agent.name, str(error)) from None
                if reply.ok:
                    return
                if reply.status != _CHANGED_MEANWHILE:
                    raise AgentFailed(agent.name, _reason(reply))
        raise AgentFailed(agent.name, "its configuration changes again and again")

    def _get(self, agent: Agent, path: str) -> Any:
        reply = self._request(agent, "GET", path)
        if not reply.ok:
            raise Unreachable(agent.url, _reason(reply))
        return reply.body

    def _call(self, agent: Agent, method: str, path: str, document: Any) -> str:
        """Why the agent did not do it; empty if it did."""
        try:
            reply = self._request(agent, method, path, document)
        except Unreachable as error:
            return error.reason
        return "" if reply.ok or (method == "DELETE" and reply.status == 404) else _reason(reply)

    def _request(
        self,
        agent: Agent,
        method: str,
        path: str,
        document: Any = None,
        *,
        conditions: Mapping[str, str] = MappingProxyType({}),
    ) -> Reply:
        with self._turn(agent):
            reply = self._caller.request(
                method, agent.url + path, to=Identity(Role.NODE, agent.name), body=document, timeout_s=limits.CALL_S,
                conditions={**conditions, **self._in_term()},
            )  # fmt: skip
        if not reply.ok:
            self._heed(reply.body)
        return reply

    def _heed(self, error: Any) -> None:
        """A node has refused something: it may go by another controller."""
        later = gs015_testbed.later_term(error)
        if later is not None and self._term_of is not None:
            self._term_of.spoken_of(later)

    def _in_term(self) -> dict[str, str]:
        return {} if self._term_of is None else {gs015_testbed.TERM_HEADER: str(self._term_of.term)}

    def on_the_way_s(self, agent: Agent) -> float:
        """Seconds that the round trips of a call to that agent take."""
        return self._caller.on_the_way_s(Identity(Role.NODE, agent.name))

    @contextmanager
    def _editing(self, agent: Agent) -> Iterator[None]:
        """For the block the only reader of what it writes: an entity-tag is of the whole node. AgentFailed."""
        with self._returned:
            lock = self._edited.setdefault(agent.name, threading.Lock())
        if not lock.acquire(timeout=max(0.0, deadline.left(limits.CALL_S))):
            raise AgentFailed(agent.name, "it keeps other changes waiting")
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _turn(self, agent: Agent) -> Iterator[None]:
        """For the block one of the calls that this agent may keep waiting; Unreachable if it keeps all of them so.

        So it is if as many wait as it will not have answered in SLOW_S: they hold threads that others need.
        """
        call, name = object(), agent.name
        with self._returned:
            calls = self._under_way.setdefault(name, {})
            slow_s = limits.SLOW_S + self.on_the_way_s(agent)
            self._waiting[name] += 1
            try:
                while len(calls) >= limits.CALLS_TO_ONE:
                    left_s = deadline.left(min(calls.values()) + slow_s - time.monotonic())
                    takes_s = self._waiting[name] * self._takes_s.get(name, 0.0) / limits.CALLS_TO_ONE
                    if left_s <= 0 or takes_s > slow_s:
                        raise Unreachable(agent.url, f"it keeps {len(calls)} calls waiting")
                    self._returned.wait(left_s)
            finally:
                self._waiting[name] -= 1
            calls[call] = time.monotonic()
        try:
            yield
        finally:
            with self._returned:
                took_s = time.monotonic() - calls.pop(call)
                self._takes_s[name] = (self._takes_s.get(name, 0.0) + took_s) / 2
                self._returned.notify_all()

    def _delete(self, agent: Agent, paths: Sequence[str]) -> bool:
        return not [path for path in paths if self._call(agent, "DELETE", f"{_DATA}/{gs015.NODE}/{path}", None)]


def _as_it_is(there: Reply | None) -> dict[str, str]:
    """The condition that what is there is still so: as far as the node says by an entity-tag how it is."""
    if there is None:
        return {"If-None-Match": "*"}
    return {} if there.etag is None else {"If-Match": there.etag}


def _reason(reply: Reply) -> str:
    """What an error answer of RFC 8040 says, as far as it may be long."""
    try:
        error = reply.body["ietf-restconf:errors"]["error"][0]
        said = str(error.get("error-message") or error["error-tag"])
    except (KeyError, TypeError, IndexError, AttributeError):
        said = reply.message
    return "".join(c if c.isprintable() else " " for c in said[: limits.MAX_TEXT])


def _pair(server: str, client: str) -> dict[str, Any]:
    return {"server_app_id": to_uri(server), "client_app_id": [to_uri(client)]}


def refusal(
    server: str, client: str, *, implicit: bool, requests: Sequence[str], status: int, message: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The input of application_answer that says to those requests why there is no association. PURE."""
    return {
        **_pair(server, client), "implicit": implicit, "request": list(requests), "state": "refused", "status": status,
        "message": message,
        "fact": [{"name": k, "value": json.dumps(v)} for k, v in facts.items()],
    }  # fmt: skip


def waiting(server: str, client: str, *, implicit: bool, requests: Sequence[str]) -> dict[str, Any]:
    """The input of application_answer that says to those requests that the other side is awaited. PURE."""
    return {**_pair(server, client), "implicit": implicit, "request": list(requests), "state": "waiting"}


def ended(ksid: str) -> dict[str, Any]:
    """The input of application_answer that says that the controller knows of an application's end. PURE."""
    return {"app_id": ksid, "state": "ended"}


def withdrawn(server: str, client: str, *, request: str) -> dict[str, Any]:
    """The input of application_answer that says that the controller knows of that withdrawal. PURE."""
    return {**_pair(server, client), "request": [request], "state": "withdrawn"}


def interrupted(ksid: str, message: str, down: Sequence[str]) -> dict[str, Any]:
    """The input of application_answer that says why an open association has no path; without a message, that it has.

    PURE.
    """
    document: dict[str, Any] = {"app_id": ksid}
    if not message:
        return document | {"state": "resumed"}
    fact = {"name": "down", "value": json.dumps(list(down))}
    return document | {"state": "interrupted", "status": 503, "message": message, "fact": [fact]}
