"""One of two nodes that share a QC, and the key session that a controller opens there."""

from __future__ import annotations

from pathlib import Path

from documents.secret import Secret
from etsi import gs015
from ietf.restconf import parse_target
from node.config import Neighbour, NodeConfig
from node.tree.datastore import Datastore
from node.tree.model import MODEL, link_id, node_id
from tests.support.foreign import virtual_links

QC = "q"
MASTER, SLAVE = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
KSID = "99999999-0000-4000-8000-000000000000"
_APPS, _LINKS = (f"etsi-qkd-sdn-node:qkd_node/{name}" for name in ("qkd_applications", "qkd_links"))


def config(directory: Path, name: str, peer: str) -> NodeConfig:
    """Of the node of that name: the master's is a, the slave's b."""
    return NodeConfig(
        name=name, host="", kme_port=0, agent_port=0, directory=directory, credentials=None, shared_db_url="",
        shared_db_schema="", nodes={peer: f"https://{peer}"}, saes={MASTER: "a", SLAVE: "b"},
        qcs=(Neighbour(QC, peer, 1, Secret(b"")),),
    )  # fmt: skip


def configure(datastore: Datastore, peer: str, ksid: str = KSID) -> None:
    """As the controller does when it opens the session."""
    app = {
        "app_id": ksid, "app_type": gs015.CLIENT, "server_app_id": MASTER, "client_app_id": [SLAVE],
        "backing_qkdl_id": [link_id(QC)], "remote_qkdn_id": node_id(peer),
    }  # fmt: skip
    datastore.edit("POST", parse_target(MODEL, _APPS), {"etsi-qkd-sdn-node:qkd_app": [app]})


def feed(datastore: Datastore, ksid: str, link: str) -> None:
    """As the controller does when it leads the session over one more virtual link, with the other end next to it."""
    entry = virtual_links(("a", "b"), link)["a"]
    datastore.edit("POST", parse_target(MODEL, _LINKS), {"etsi-qkd-sdn-node:qkd_link": [entry]})
    app = {"app_id": ksid, "backing_qkdl_id": [link]}
    datastore.edit("PATCH", parse_target(MODEL, f"{_APPS}/qkd_app={ksid}"), {"etsi-qkd-sdn-node:qkd_app": [app]})


def remove(datastore: Datastore, ksid: str = KSID) -> None:
    """As the controller does when it has heard of its end."""
    datastore.edit("DELETE", parse_target(MODEL, f"{_APPS}/qkd_app={ksid}"), None)
