"""What a controller that knows only GS QKD 015 tells nodes: virtual links and applications, by plain RESTCONF."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from etsi import gs015
from node.tree.model import link_id, node_id

N = "/restconf/data/etsi-qkd-sdn-node:qkd_node"
# Method, node, path at its agent, body: the status of the answer.
Call = Callable[[str, str, str, Any], int]


def virtual_links(path: Sequence[str], key: str, *, from_last: bool = False) -> dict[str, dict[str, Any]]:
    """A virtual link on all nodes of `path`, by their names: previous and next hop, no more.

    It leads from the first of them to the last, or the other way.
    """
    path = path[::-1] if from_last else path
    ids = [node_id(name) for name in path]
    found = {}
    for at, name in enumerate(path):
        link: dict[str, Any] = {
            "qkdl_id": key, "qkdl_type": gs015.VIRT, "qkdl_local": {"qkdn_id": ids[at]},
            "qkdl_remote": {"qkdn_id": ids[0] if at == len(ids) - 1 else ids[-1]},
        }  # fmt: skip
        if at > 0:
            link["virt_prev_hop"] = ids[at - 1]
        if at < len(ids) - 1:
            link["virt_next_hop"] = [ids[at + 1]]
        found[name] = link
    return found


def application(ksid: str, pair: tuple[str, str], local: str, remote: str, *backing: str) -> dict[str, Any]:
    """The application of a pair (server, client) at the node `local`, fed by those links."""
    return {
        "app_id": ksid, "app_type": gs015.CLIENT, "server_app_id": pair[0], "client_app_id": [pair[1]],
        "backing_qkdl_id": list(backing), "local_qkdn_id": node_id(local), "remote_qkdn_id": node_id(remote),
    }  # fmt: skip


def open_session(call: Call, pair: tuple[str, str], path: Sequence[str], *more: Sequence[str]) -> dict[str, Any]:
    """Configure a key session between the first and the last node of `path`, link by link and end by end.

    Over `more` paths as well, if there are any.
    """
    ksid, keys = str(uuid.uuid4()), []
    for one in (path, *more):
        qcs = qcs_of(one)
        keys.append(link_id(qcs[0]) if len(qcs) == 1 else str(uuid.uuid4()))
        for name, link in virtual_links(one, keys[-1]).items() if len(qcs) > 1 else ():
            assert call("POST", name, f"{N}/qkd_links", {"etsi-qkd-sdn-node:qkd_link": [link]}) == 201
    for local, remote in ((path[-1], path[0]), (path[0], path[-1])):
        body = {"etsi-qkd-sdn-node:qkd_app": [application(ksid, pair, local, remote, *keys)]}
        assert call("POST", local, f"{N}/qkd_applications", body) == 201
    return {"ksid": ksid, "link": keys[0], "path": list(path), "qcs": qcs_of(path)}


def qcs_of(path: Sequence[str]) -> list[str]:
    """The QCs along a path."""
    return [f"{'-'.join(sorted(hop))}/1" for hop in itertools.pairwise(path)]
