"""Calls in the words of the paper and of the standards. PURE."""

from __future__ import annotations

import re

RELAY, WITH_SESSION = "relay", "configure the path and the session"
# Method and path, and what such a request is called.
_WORDS = [
    (method, re.compile(path), words)
    for method, path, words in (
        ("POST", r"/sae/v1/sessions", "open a key session"),
        ("POST", r"/sae/v1/connections", "ask_connection"),
        ("DELETE", r"/sae/v1/connections", "the end of the session"),
        ("POST", r"/sae/v1/keys", "ask-key: fetch this key"),
        ("POST", r"/sae/v1/messages", "a message under the key"),
        ("POST", r"/qkd/v1/key_sessions", "open_key_session"),
        ("DELETE", r"/qkd/v1/key_sessions", "withdraw the registration"),
        ("DELETE", r"/qkd/v1/key_sessions/[^/]+", "close the key session"),
        (".*", r"/api/v1/keys/.+/enc_keys", "Get key"),
        (".*", r"/api/v1/keys/.+/dec_keys", "Get key with key IDs"),
        ("GET", r"/api/v1/keys/.+/status", "Get status"),
        ("POST", r"/qkd/v1/applications", "register the slave's side"),
        ("GET", r"/qkd/v1/virtual_links/[^/]+/neighbours", "ask for neighbours on the virtual link"),
        ("POST", r"/qkd/v1/relay/[^/]+", RELAY),
        ("POST", r"/qkd/v1/relay/[^/]+/keys", "the new key under the shared key"),
        ("POST", r"/qkd/v1/relay/[^/]+/check", "the check value of the key"),
        ("PATCH", r"/restconf/data/[^/]+:qkd_node", "configure the path"),
        ("DELETE", r"/restconf/data/.+qkd_(app|link)=.+", "remove the session"),
        ("POST", r"/restconf/operations/.+:application_answer", "application_answer"),
    )
]
STATEMENTS = {
    "allocate": "allocate ranges", "deliver": "fetch the key's position", "collect": "fetch positions not asked for",
}  # fmt: skip


def of_call(method: str, path: str) -> str:
    """What a request is called; method and path if it has no name here."""
    for known, pattern, words in _WORDS:
        if re.fullmatch(known, method) and pattern.fullmatch(path):
            return words
    return f"{method} {path}"
