"""Who is who, for a person who wants to call or to be one of them: certificates, keys and URLs as text. PURE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from testbed.planning.plan import AGENT_PORT, CONTROLLER_PORT, KME_PORT, OPERATOR, Plan, SaePlan

_Rows = list[tuple[str, str]]


def describe(
    plan: Plan, name: str, credentials: Callable[[Identity], Credentials], exposed: Mapping[str, Any] | None
) -> str:
    """What to know of whoever is called `name`: an SAE (by its ID, too), a node, or the operator.

    `exposed` is what expose.json says, if the run is exposed. If an SAE and a node share the name, both are described;
    empty if nobody is called so.
    """
    blocks: list[_Rows] = []
    sae = plan.sae(name)
    if sae is not None:
        blocks.append([*_sae(sae), *_files(credentials(sae.identity)), *_kme(plan, sae.node, exposed)])
    if name in plan.nodes:
        agent = _urls("agent", plan.url(name, AGENT_PORT), exposed["agents"][name] if exposed else None)
        files = _files(credentials(Identity(Role.NODE, name)))
        blocks.append([("node", name), *files, *_kme(plan, name, exposed), *agent])
    if name == OPERATOR.name:
        controller = _urls("controller", plan.url("ctl", CONTROLLER_PORT), exposed["controller"] if exposed else None)
        blocks.append([*_files(credentials(OPERATOR)), *controller])
    return "\n".join("".join(f"{what:<12} {value}\n" for what, value in block) for block in blocks)


def _sae(sae: SaePlan) -> _Rows:
    where = " (runs outside the testbed)" if sae.external else ""
    return [("SAE", sae.name + where), ("SAE ID", sae.id), ("node", sae.node)]


def _files(credentials: Credentials) -> _Rows:
    found = (("certificate", credentials.certificate), ("key", credentials.key), ("CA", credentials.ca))
    return [(what, str(path)) for what, path in found]


def _kme(plan: Plan, node: str, exposed: Mapping[str, Any] | None) -> _Rows:
    return _urls("KME", plan.url(node, KME_PORT), exposed["kmes"][node] if exposed else None)


def _urls(what: str, inside: str, outside: str | None) -> _Rows:
    rows = [(what, f"{inside} (in the emulated network)")]
    return [*rows, (what, f"{outside} (on this machine)")] if outside else rows
