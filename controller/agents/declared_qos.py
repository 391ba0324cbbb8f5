"""What a node declares of an application: the pair, and the quality of service, in the standard's words. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from documents.errors import Malformed
from etsi.gs004 import QoS, qos
from etsi.sae_id import from_uri, sae_id

Declared = Mapping[str, Any]  # members of qkd_app: app_qos and app_priority, as far as they were named
_MEMBERS = ("app_qos", "app_priority")


@dataclass(frozen=True, slots=True)
class Wants:
    """What an application wants: a key of a size every so often, and what its node declared in the standard's words."""

    qos: QoS
    declared: Declared


def pair(content: Mapping[str, Any]) -> tuple[str, str]:
    """Server (master) and client (slave) of a notification; Malformed."""
    clients = content.get("client_app_id", [])
    if len(clients) != 1:
        raise Malformed("client_app_id", "one application")
    if "server_app_id" not in content:
        raise Malformed("server_app_id", "an application")
    found = sae_id(from_uri(content["server_app_id"]), "server_app_id"), sae_id(from_uri(clients[0]), "client_app_id")
    if found[0] == found[1]:
        raise Malformed("client_app_id", "another application than server_app_id")
    return found


def declared(application: Mapping[str, Any]) -> Declared:
    """What a notification declares."""
    return {member: application[member] for member in _MEMBERS if member in application}


def updated(before: Declared, now: Declared) -> Declared:
    """What counts when `now` was declared after, or above, `before`: members that are not named stay."""
    app_qos = {**before.get("app_qos", {}), **now.get("app_qos", {})}
    return {**before, **now} | ({"app_qos": app_qos} if app_qos else {})


def declared_bps(what: Declared) -> int:
    """The bandwidth declared, in bit/s: the least that is wanted, else the most; 0 if none is."""
    app_qos = what.get("app_qos", {})
    return int(app_qos.get("min_bandwidth", app_qos.get("max_bandwidth", 0)))


def of_bandwidth(bps: int) -> QoS:
    """A bandwidth alone counts as a key of that size each second."""
    return QoS(key_size_bits=min(1 << 20, -(-bps // 8) * 8), interval_s=1.0) if bps else QoS()


def wanted(application: Mapping[str, Any]) -> Wants:
    """What a notification asks for: a key of a size every so often, which our nodes say, or a bandwidth; Malformed."""
    what = declared(application)
    if "qkd-testbed:key_size" in application:
        interval_s = float(application.get("qkd-testbed:interval", "5.0"))
        wants = qos({"key_size_bits": application["qkd-testbed:key_size"], "interval_s": interval_s})
        return Wants(wants, what)
    return Wants(of_bandwidth(declared_bps(what)), what)
