"""The controller's word to the agents, in RESTCONF (RFC 8040): read a node, configure it, many nodes in parallel."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from controller.configuration import application_path, with_application
from etsi import gs015, gs015_testbed
from etsi.sae_id import to_uri
from etsi.yang import Refusal
from mtls import trace
from mtls.call import Caller, Reply, Unreachable
from mtls.credentials import Credentials
from mtls.events import Listener
from mtls.identity import Identity, Role

# Longer than any round trip of an emulated network, shorter than an application waits for its session.
_TIMEOUT_S = 8.0
_DATA = "/restconf/data"
_STREAMS = f"{_DATA}/ietf-restconf-monitoring:restconf-state/streams"
_OPERATIONS = "/restconf/operations"
_STANDARD = "NETCONF"


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent: the node's name in its certificate, and the URL to call."""

    name: str
    url: str

    @property
    def identity(self) -> Identity:
        """Who must answer."""
        return Identity(Role.NODE, self.name)


class AgentFailed(Exception):
    """An agent did not do what was asked of it."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"the agent of node {node} did not take over the session: {reason}")
        self.node = node
        self.reason = reason


class Agents:
    """Calls the agents. Thread-safe. `record` and `round_trip_s`: see `mtls.call.Caller`."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        threads: int = 32,
        record: Callable[..., None] | None = None,
        round_trip_s: float = 0.0,
    ) -> None:
        self._credentials = credentials
        self._caller = Caller(credentials, connections=threads, record=record, round_trip_s=round_trip_s)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="agents")
        # Apart from the calls, for which the steps wait.
        self._steps = ThreadPoolExecutor(threads, thread_name_prefix="steps")

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
        listener = Listener(self._credentials, agent.url + streams[name], agent.identity, timeout_s=_TIMEOUT_S)
        return listener, name == gs015_testbed.STREAM

    def node(self, agent: Agent) -> dict[str, Any]:
        """The whole node, configuration and state; Unreachable, Refusal."""
        return gs015.read_node(self._get(agent, f"{_DATA}/{gs015.NODE}"))

    def additions(self, agent: Agent) -> dict[str, Any]:
        """What our module says of the node; Unreachable, Refusal."""
        return gs015_testbed.read_extra(self._get(agent, f"{_DATA}/{gs015_testbed.NODE}"))

    def set_additions(self, agent: Agent, document: Mapping[str, Any]) -> None:
        """Merge into the data of our module; AgentFailed."""
        self._done(agent, "PATCH", f"{_DATA}/{gs015_testbed.NODE}", {gs015_testbed.NODE: document})

    def enable(self, agent: Agent, link_id: str, *, enabled: bool) -> None:
        """Have a link's QC generate, or stop; AgentFailed."""
        document = {f"{gs015.MODULE}:qkd_link": [{"qkdl_id": link_id, "qkdl_enable": enabled}]}
        self._done(agent, "PATCH", f"{_DATA}/{gs015.NODE}/qkd_links/qkd_link={link_id}", document)

    def configure(self, documents: Mapping[Agent, Mapping[str, Any]]) -> None:
        """Merge into the configuration of each node, of all at once; AgentFailed if one did not take it over."""
        calls = {
            agent: self._pool.submit(trace.carried(self._try), agent, "PATCH", gs015.NODE, {gs015.NODE: document})
            for agent, document in documents.items()
        }
        failed = {agent.name: reason for agent, call in calls.items() if (reason := call.result())}
        if failed:
            node = min(failed)
            raise AgentFailed(node, failed[node])

    def put_application(self, agent: Agent, application: Mapping[str, Any]) -> None:
        """Have an application be configured so, whatever fed it before; AgentFailed.

        What `application` does not name stays as it is. A PATCH would do that, but add to what feeds it.
        """
        place = f"{_DATA}/{gs015.NODE}/{application_path(application['app_id'])}"
        whole = with_application(self.application(agent, application["app_id"]), application)
        self._done(agent, "PUT", place, {f"{gs015.MODULE}:qkd_app": [whole]})

    def remove(self, resources: Mapping[Agent, Sequence[str]]) -> set[str]:
        """Delete resources below qkd_node, at all nodes at once; the names of nodes that did not say that it is done.

        What is not there counts as deleted.
        """
        calls = {
            agent: self._pool.submit(trace.carried(self._delete), agent, paths) for agent, paths in resources.items()
        }
        return {agent.name for agent, call in calls.items() if not call.result()}

    def answer(self, agent: Agent, document: Mapping[str, Any]) -> None:
        """Say how a registration fares, as far as the agent can be reached; does not wait."""
        self._pool.submit(trace.carried(self.tell), agent, document)

    def tell(self, agent: Agent, document: Mapping[str, Any]) -> bool:
        """Say how an application fares; whether the agent knows now."""
        path = f"{_OPERATIONS}/{gs015_testbed.APPLICATION_ANSWER}"
        return not self._call(agent, "POST", path, {f"{gs015_testbed.MODULE}:input": document})

    def later(self, step: Any, *arguments: Any, **named: Any) -> Future[Any]:
        """Have `step` done by one of the threads."""
        return self._steps.submit(trace.carried(step), *arguments, **named)

    def close(self) -> None:
        """Drop what is not under way yet."""
        for pool in (self._steps, self._pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def application(self, agent: Agent, app_id: str) -> dict[str, Any]:
        """How an application is configured; empty if it is not. AgentFailed."""
        url = f"{agent.url}{_DATA}/{gs015.NODE}/{application_path(app_id)}?content=config"
        try:
            reply = self._caller.request("GET", url, to=agent.identity, timeout_s=_TIMEOUT_S)
            if reply.status == 404:
                return {}
            if not reply.ok:
                raise AgentFailed(agent.name, _reason(reply))
            return gs015.read_app(reply.body)
        except (Unreachable, Refusal) as error:
            raise AgentFailed(agent.name, str(error)) from None

    def _get(self, agent: Agent, path: str) -> Any:
        reply = self._caller.request("GET", agent.url + path, to=agent.identity, timeout_s=_TIMEOUT_S)
        if not reply.ok:
            raise Unreachable(agent.url, _reason(reply))
        return reply.body

    def _call(self, agent: Agent, method: str, path: str, document: Any) -> str:
        """Why the agent did not do it; empty if it did."""
        try:
            reply = self._caller.request(
                method, agent.url + path, to=agent.identity, body=document, timeout_s=_TIMEOUT_S
            )
        except Unreachable as error:
            return error.reason
        return "" if reply.ok or (method == "DELETE" and reply.status == 404) else _reason(reply)

    def _try(self, agent: Agent, method: str, resource: str, document: Any) -> str:
        return self._call(agent, method, f"{_DATA}/{resource}", document)

    def _done(self, agent: Agent, method: str, path: str, document: Any) -> None:
        reason = self._call(agent, method, path, document)
        if reason:
            raise AgentFailed(agent.name, reason)

    def _delete(self, agent: Agent, paths: Sequence[str]) -> bool:
        failed = [path for path in paths if self._try(agent, "DELETE", f"{gs015.NODE}/{path}", None)]
        return not failed


def _reason(reply: Reply) -> str:
    """What an error answer of RFC 8040 says."""
    try:
        error = reply.body["ietf-restconf:errors"]["error"][0]
        return str(error.get("error-message") or error["error-tag"])
    except (KeyError, TypeError, IndexError, AttributeError):
        return reply.message


def _pair(server: str, client: str) -> dict[str, Any]:
    return {"server_app_id": to_uri(server), "client_app_id": [to_uri(client)]}


def refusal(
    server: str, client: str, *, implicit: bool, status: int, message: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The input of application_answer that says why there is no association. PURE."""
    return {
        **_pair(server, client), "implicit": implicit, "state": "refused", "status": status, "message": message,
        "fact": [{"name": k, "value": json.dumps(v)} for k, v in facts.items()],
    }  # fmt: skip


def waiting(server: str, client: str, *, implicit: bool) -> dict[str, Any]:
    """The input of application_answer that says that the other side is awaited. PURE."""
    return {**_pair(server, client), "implicit": implicit, "state": "waiting"}


def interrupted(server: str, client: str, *, implicit: bool, message: str, down: Sequence[str]) -> dict[str, Any]:
    """The input of application_answer that says why an open association has no path; without a message, that it has.

    PURE.
    """
    document = {**_pair(server, client), "implicit": implicit}
    if not message:
        return document | {"state": "resumed"}
    fact = {"name": "down", "value": json.dumps(list(down))}
    return document | {"state": "interrupted", "status": 503, "message": message, "fact": [fact]}
