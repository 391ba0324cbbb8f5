"""The controller's word to the agents: a key session configured or removed on all nodes of its path, in parallel."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mtls.call import Caller, Unreachable
from mtls.identity import Identity, Role

# Longer than any round trip of an emulated network, shorter than an application waits for its session.
_TIMEOUT_S = 8.0


class AgentFailed(Exception):
    """An agent did not take over a session."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"the agent of node {node} did not take over the session: {reason}")
        self.node = node


class Agents:
    """Calls the agents. Thread-safe."""

    def __init__(self, caller: Caller, *, threads: int = 32) -> None:
        self._caller = caller
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="agents")

    def configure(self, urls: Mapping[str, str], ksid: str, document: Mapping[str, Any]) -> None:
        """Tell all nodes (name -> agent URL) of a session; AgentFailed, and then none of them keeps it."""
        calls = {node: self._pool.submit(self._call, "PUT", node, url, ksid, document) for node, url in urls.items()}
        failed = {node: reason for node, call in calls.items() if (reason := call.result())}
        if failed:
            self.remove(urls, ksid)
            node = min(failed)
            raise AgentFailed(node, failed[node])

    def remove(self, urls: Mapping[str, str], ksid: str) -> None:
        """Tell all nodes that a session is over, as far as they can be reached."""
        calls = [self._pool.submit(self._call, "DELETE", node, url, ksid, None) for node, url in urls.items()]
        for call in calls:
            call.result()

    def tell(self, node: str, url: str, ksid: str, document: Mapping[str, Any]) -> None:
        """Tell one node of a session; AgentFailed."""
        reason = self._call("PUT", node, url, ksid, document)
        if reason:
            raise AgentFailed(node, reason)

    def remind(self, node: str, url: str, ksid: str, document: Mapping[str, Any]) -> None:
        """Tell one node, which started anew, of a session; does not wait."""
        self._pool.submit(self._call, "PUT", node, url, ksid, document)

    def recall(self, node: str, url: str, ksid: str) -> None:
        """Have one node forget a session that it may have heard of; does not wait."""
        self._pool.submit(self._call, "DELETE", node, url, ksid, None)

    def close(self) -> None:
        """Drop what is not under way yet."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, method: str, node: str, url: str, ksid: str, document: Mapping[str, Any] | None) -> str:
        """Why the agent did not do it; empty if it did."""
        try:
            reply = self._caller.request(
                method, f"{url}/qkd/v1/key_sessions/{ksid}", to=Identity(Role.NODE, node), body=document,
                timeout_s=_TIMEOUT_S,
            )  # fmt: skip
        except Unreachable as error:
            return error.reason
        return "" if reply.ok else reply.message
