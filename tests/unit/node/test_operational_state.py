"""The state that a node shows beside its configuration."""

from __future__ import annotations

from pathlib import Path

from documents.secret import Secret
from etsi import gs015
from mtls.credentials import Credentials
from node.config import Neighbour, NodeConfig, Parameters
from node.tree.model import initial, link_id, node_id, normalised
from node.tree.operational_state import QcState, State, link_states

ID = "10000000-0000-4000-8000-000000000001"


def test_virtual_link_shows_the_rate_of_the_qc_that_it_is_led_over():
    """Of several QCs of a fibre: not of the first one, unless nobody has said which."""
    nowhere = Path()
    config = NodeConfig(
        name="a", host="127.0.0.1", kme_port=0, agent_port=0, directory=nowhere,
        credentials=Credentials(nowhere, nowhere, nowhere), shared_db_url="", shared_db_schema="", nodes={}, saes={},
        qcs=(Neighbour("ab-1", "b", 1, Secret(b"")), Neighbour("ab-2", "b", 2, Secret(b""))),
    )  # fmt: skip
    state = State({name: QcState(rate_bps=rate, alive=True) for name, rate in (("ab-1", 8.0), ("ab-2", 800.0))}, {})
    fresh = initial(config, Parameters())
    link = {"qkdl_id": ID, "qkdl_type": gs015.VIRT, "virt_next_hop": [node_id("b")]}
    app = {"app_id": ID, "app_type": gs015.INTERNAL, "backing_qkdl_id": [link_id("ab-2")]}

    rates = []
    for apps in ([], [app]):
        node = fresh[gs015.NODE]
        links = {"qkd_link": [*node["qkd_links"]["qkd_link"], link]}
        tree = {**fresh, gs015.NODE: {**node, "qkd_links": links, "qkd_applications": {"qkd_app": apps}}}
        found = link_states(normalised(tree, config, fresh), config, state)[ID]
        rates.append(found["qkdl_performance"]["skr"])

    assert rates == [8, 800]
