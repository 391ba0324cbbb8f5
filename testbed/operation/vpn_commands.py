"""`qkd vpn`: tunnels between datacenters, as one types them and reads of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from decisions.tunnels import HOLD, IPSEC, TLS, WIREGUARD
from testbed.errors import UserError
from testbed.operation.tables import table

USES = {
    "vpn": "the tunnels between datacenters: which key protects each, and how old it is",
    "vpn A B [--wireguard|--ipsec|--tls] [--every S] [--hold]": (
        "a tunnel between two datacenters, under a new key every S seconds"
    ),
    "vpn A B story": "how the key came that it is under now: over which path, and who could have learned it",
    "vpn A B off": "end it",
}
OPTIONS = {f"--{kind}": {"kind": kind} for kind in (WIREGUARD, IPSEC, TLS)} | {"--hold": {"policy": HOLD}}
_EVERY, _OFF, _STORY = "--every", "off", "story"
_EXPECTED = "".join(f"\n  qkd {use}" for use in USES)


def obey(do: Callable[..., Any], *words: str) -> str:
    """What to print; UserError."""
    if not words:
        return _tunnels(do)
    if len(words) == 1:
        raise UserError(f"qkd vpn: expected{_EXPECTED}")
    a, b, *rest = words
    if rest == [_OFF]:
        do("close_tunnel", a=a, b=b)
        return f"no tunnel joins {a} and {b} any more\n"
    if rest == [_STORY]:
        return _story(do, a, b)
    found = do("open_tunnel", a=a, b=b, **_wanted(rest))
    if found["kind"] == TLS:
        return (
            f"TLS 1.3 under a new key every {found['every_s']:g} s: whoever connects at {a} to {found['to']}, port 80,"
            f" comes to {b}\n"
        )
    return (
        f"{found['kind']} tunnel, under a new key every {found['every_s']:g} s: what {a} sends to {found['to']} goes"
        f" through it, as does what {b} sends to {found['from']}\n"
    )


def _story(do: Callable[..., Any], a: str, b: str) -> str:
    found = next((t for t in do("tunnels") if {t["node"], t["peer"]} == {a, b}), None)
    if found is None:
        raise UserError(f"there is no tunnel between {a} and {b}: 'qkd vpn' lists those there are")
    ends = f"tunnel from {found['node']} to {found['peer']}"
    if not found.get("key_id"):
        raise UserError(f"{ends}: {found['state']}, {found.get('problem') or 'it has no key'}")
    told = do("story", ident=found["key_id"])["text"]
    return f"{found['kind']} {ends}: {found['state']}, {_age(found)} under this key\n\n{told}"


def _age(end: Mapping[str, Any]) -> str:
    return f"{time.time() - end['since']:.1f} s"


def _wanted(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if word in OPTIONS:
            found |= OPTIONS[word]
        elif word == _EVERY:
            try:
                found["every_s"] = float(next(rest, ""))
            except ValueError:
                raise UserError(f"qkd vpn: {_EVERY}: expected a number of seconds") from None
        else:
            raise UserError(f"qkd vpn: expected{_EXPECTED}")
    return found


def _tunnels(do: Callable[..., Any]) -> str:
    rows = [
        (f"{t['node']} to {t['peer']}", t.get("kind", "-"), t["state"], t.get("key_id") or "-",
         _age(t) if t.get("since") else "-", t.get("keys", "-"), t.get("received_bytes", "-"),
         t.get("sent_bytes", "-"), t.get("data_path", "-"), t.get("problem") or "-")
        for t in do("tunnels")
    ]  # fmt: skip
    header = ("end", "kind", "state", "key", "age", "keys", "received B", "sent B", "by", "problem")
    return table(header, rows) if rows else f"no tunnels: a tunnel comes of{_EXPECTED}\n"
