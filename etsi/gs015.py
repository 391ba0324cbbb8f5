"""ETSI GS QKD 015 V2.1.1: the data model of an SD-QKD node (Annex A) and its notifications, as schemas. Pure data.

Units: rates in bit/s, `ttl` in s, `jitter` in ms, attenuation in dB. JSON is that of RFC 7951.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ietf.yang import (
    BOOLEAN,
    DATE_AND_TIME,
    DECIMAL3,
    STRING,
    UINT32,
    URI,
    UUID,
    Container,
    Leaf,
    LeafList,
    List,
    Node,
    Refusal,
    check,
    identity,
    pattern,
)  # fmt: skip

MODULE = "etsi-qkd-sdn-node"
NAMESPACE = "urn:etsi:qkd:yang:etsi-qkd-node"
TYPES = "etsi-qkd-node-types"
TYPES_NAMESPACE = "urn:etsi:qkd:yang:etsi-qkd-node-types"
REVISION = "2022-01-30"
NODE = f"{MODULE}:qkd_node"


def named(name: str) -> str:
    """An identity of the standard as it stands in JSON."""
    return f"{TYPES}:{name}"


def bare(value: str) -> str:
    """An identity's name without its module."""
    return value.rpartition(":")[2]


PHYS, VIRT = named("PHYS"), named("VIRT")
CLIENT, INTERNAL = named("CLIENT"), named("INTERNAL")
ACTIVE, PASSIVE, PENDING, OFF = (named(n) for n in ("ACTIVE", "PASSIVE", "PENDING", "OFF"))
ENABLED, DISABLED, FAILED = (named(n) for n in ("ENABLED", "DISABLED", "FAILED"))
TRANSMITTER, RECEIVER = named("TRANSMITTER"), named("RECEIVER")
ON, OPERATING, QBER, DV_QKD = named("ON"), named("OPERATING"), named("QBER"), named("DV-QKD")
MAJOR, MINOR = named("MAJOR"), named("MINOR")

_TECHNOLOGY = identity(TYPES, ("CV-QKD", "DV-QKD", "DV-QKD-COW", "DV-QKD-2Ws"))
_QKDN_STATUS = identity(TYPES, ("NEW", "OPERATING", "DOWN", "FAILURE", "OUT"))
_LINK_TYPE = identity(TYPES, ("VIRT", "PHYS"))
_ROLE = identity(TYPES, ("TRANSMITTER", "RECEIVER", "TRANSCEIVER"))
_APP_TYPE = identity(TYPES, ("CLIENT", "INTERNAL"))
_PERF_TYPE = identity(TYPES, ("QBER", "SNR"))
_LINK_STATUS = identity(TYPES, ("ACTIVE", "PASSIVE", "PENDING", "OFF"))
_IFACE_STATUS = identity(TYPES, ("ENABLED", "DISABLED", "FAILED"))
_APP_STATUS = identity(TYPES, ("ON", "DISCONNECTED", "OUT-OF-TIME", "ZOMBIE"))
_SEVERITY = identity(TYPES, ("MAJOR", "MINOR"))
_CHANNEL = "[1-9][0-9]{0,3}"
_WAVELENGTH = pattern(_CHANNEL, "a number from 1 to 9999 as a string")
_WAVELENGTHS = pattern(rf"{_CHANNEL}(-{_CHANNEL})?(,{_CHANNEL}(-{_CHANNEL})?)*", "numbers or ranges, like 1,12-20")

_IS_VIRT, _IS_PHYS = ("qkdl_type", VIRT), ("qkdl_type", PHYS)

_DETAILS: Mapping[str, Node] = {
    "app_type": Leaf(_APP_TYPE),
    "server_app_id": Leaf(URI),
    "client_app_id": LeafList(URI),
    "app_priority": Leaf(UINT32, default=0),
}
_QOS = Container(
    {
        "max_bandwidth": Leaf(UINT32),
        "min_bandwidth": Leaf(UINT32),
        "jitter": Leaf(UINT32),
        "ttl": Leaf(UINT32),
        "clients_shared_path_enable": Leaf(BOOLEAN, default=False),
        "clients_shared_keys_required": Leaf(BOOLEAN, default=False),
    }
)
_STATISTICS = List(
    "end_time",
    {
        "end_time": Leaf(DATE_AND_TIME, config=False),
        "start_time": Leaf(DATE_AND_TIME, config=False),
        "consumed_bits": Leaf(UINT32, config=False),
    },
    config=False,
)
APP = List(
    "app_id",
    {
        "app_id": Leaf(UUID),
        "app_status": Leaf(_APP_STATUS, config=False),
        **_DETAILS,
        "creation_time": Leaf(DATE_AND_TIME, config=False),
        "expiration_time": Leaf(DATE_AND_TIME),
        "app_statistics": Container({"statistics": _STATISTICS}),
        "app_qos": _QOS,
        "backing_qkdl_id": LeafList(UUID),
        "local_qkdn_id": Leaf(UUID),
        "remote_qkdn_id": Leaf(UUID),
    },
)
_INTERFACE: Mapping[str, Node] = {
    "qkdi_id": Leaf(UINT32),
    "qkdi_model": Leaf(STRING),
    "qkdi_type": Leaf(_TECHNOLOGY),
    "qkdi_att_point": Container({"device": Leaf(STRING), "port": Leaf(UINT32)}),
    "qkdi_capabilities": Container(
        {"role_support": Leaf(_ROLE), "wavelength_range": Leaf(_WAVELENGTHS), "max_absorption": Leaf(DECIMAL3)}
    ),
}
INTERFACE = List("qkdi_id", {**_INTERFACE, "qkdi_status": Leaf(_IFACE_STATUS, config=False)})
_COMMON_PERFORMANCE: Mapping[str, Node] = {
    "expected_consumption": Leaf(UINT32, config=False),
    "skr": Leaf(UINT32, config=False),
    "eskr": Leaf(UINT32, config=False),
}
_PHYS_PERF = List(
    "perf_type",
    {"perf_type": Leaf(_PERF_TYPE, config=False), "value": Leaf(DECIMAL3, config=False)},
    config=False,
)
_END = Container({"qkdn_id": Leaf(UUID), "qkdi_id": Leaf(UINT32)})
LINK = List(
    "qkdl_id",
    {
        "qkdl_id": Leaf(UUID),
        "qkdl_status": Leaf(_LINK_STATUS),
        "qkdl_enable": Leaf(BOOLEAN, default=True),
        "qkdl_local": _END,
        "qkdl_remote": _END,
        "qkdl_type": Leaf(_LINK_TYPE),
        "qkdl_applications": LeafList(UUID),
        "virt_prev_hop": Leaf(UUID, when=_IS_VIRT),
        "virt_next_hop": LeafList(UUID, when=_IS_VIRT),
        "virt_bandwidth": Leaf(UINT32, when=_IS_VIRT),
        "phys_channel_att": Leaf(DECIMAL3, when=_IS_PHYS),
        "phys_wavelength": Leaf(_WAVELENGTH, when=_IS_PHYS),
        "phys_qkd_role": Leaf(_ROLE, when=_IS_PHYS),
        "qkdl_performance": Container({**_COMMON_PERFORMANCE, "phys_perf": _PHYS_PERF}),
    },
)
QKD_NODE = Container(
    {
        "qkdn_id": Leaf(UUID),
        "qkdn_status": Leaf(_QKDN_STATUS, config=False),
        "qkdn_version": Leaf(STRING),
        "qkdn_location_id": Leaf(STRING, default=""),
        "qkdn_capabilities": Container(
            {
                "link_stats_support": Leaf(BOOLEAN, default=True),
                "application_stats_support": Leaf(BOOLEAN, default=True),
                "key_relay_mode_enable": Leaf(BOOLEAN, default=True),
            }
        ),
        "qkd_applications": Container({"qkd_app": APP}),
        "qkd_interfaces": Container({"qkd_interface": INTERFACE}),
        "qkd_links": Container({"qkd_link": LINK}),
    },
    mandatory=frozenset({"qkdn_id"}),
)

_ID, _QKDI_ID, _QKDL_ID = Leaf(UUID), Leaf(UINT32), Leaf(UUID)
_GENERIC = {"message": Leaf(STRING), "severity": Leaf(_SEVERITY)}
_ALARM = Container(
    {
        "link": Container({"qkdl_id": _QKDL_ID, "qkdl_status": Leaf(_LINK_STATUS), **_GENERIC}),
        "interface": Container({"qkdi_id": _QKDI_ID, "qkdi_status": Leaf(_IFACE_STATUS), **_GENERIC}),
        "application": Container({"app_id": _ID, "app_status": Leaf(_APP_STATUS), **_GENERIC}),
    }
)


def _of(name: str, children: Mapping[str, Node]) -> Container:
    return Container({name: Container(children)})


# The content of each notification, by its name.
NOTIFICATIONS: Mapping[str, Container] = {
    "sdqkdn_application_new": _of("qkd_application", {**_DETAILS, "local_qkdn_id": _ID, "app_qos": _QOS}),
    "sdqkdn_application_qos_update": _of(
        "qkd_application", {"app_id": _ID, "app_qos": _QOS, "app_priority": Leaf(UINT32)}
    ),
    "sdqkdn_application_disconnected": _of("qkd_application", {"app_id": _ID}),
    "sdqkdn_interface_new": _of("qkd_interface", _INTERFACE),
    "sdqkdn_interface_down": _of("qkd_interface", {"qkdi_id": _QKDI_ID, "reason": Leaf(STRING)}),
    "sdqkdn_interface_out": _of("qkd_interface", {"qkdi_id": _QKDI_ID}),
    "sdqkdn_link_down": _of("qkd_link", {"qkdl_id": _QKDL_ID, "reason": Leaf(STRING)}),
    "sdqkdn_link_perf_update": _of(
        "qkd_link",
        {"qkdl_id": _QKDL_ID, "performance": Container({**_COMMON_PERFORMANCE, "phys_perf": _PHYS_PERF})},
    ),
    "sdqkdn_link_overloaded": _of("qkd_link", {"qkdl_id": _QKDL_ID, "performance": Container(_COMMON_PERFORMANCE)}),
    "alarm": _ALARM,
    "event": _ALARM,
}


def read_node(document: Any) -> dict[str, Any]:
    """The node in the answer to a GET of it, checked; Refusal. What other modules add is left out."""
    value = document.get(NODE) if isinstance(document, Mapping) else None
    return dict(check(QKD_NODE, value, f"/{NODE}", state=True, lenient=True))


def read_app(document: Any) -> dict[str, Any]:
    """The configuration in the answer to a GET of one application, checked; Refusal."""
    value = document.get(f"{MODULE}:qkd_app") if isinstance(document, Mapping) else None
    found = check(APP, value, f"/{NODE}/qkd_applications/qkd_app", state=True, lenient=True)
    if len(found) != 1:
        raise Refusal("invalid-value", "expected one application", path=f"/{NODE}/qkd_applications/qkd_app")
    entry = {member: value for member, value in found[0].items() if APP.children[member].config}
    return {member: value for member, value in entry.items() if member != "app_statistics"}


def read_notification(name: str, content: Any) -> dict[str, Any]:
    """A notification's content, checked; Refusal. Members of other modules are left out. KeyError: unknown name."""
    return dict(check(NOTIFICATIONS[name], content, f"/{MODULE}:{name}", state=True, lenient=True))


def date_and_time(seconds: float) -> str:
    """A wall clock's seconds as the model writes them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: str) -> float:
    """A wall clock's seconds from what the model writes, which has been checked."""
    return datetime.fromisoformat(text).timestamp()


def decimal3(value: float) -> str:
    """A number as the model's decimal64 with three fraction digits."""
    return f"{value:.3f}"


def clamped(value: float) -> int:
    """A number as the model's uint32."""
    return max(0, min((1 << 32) - 1, round(value)))
