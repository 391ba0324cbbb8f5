"""What an edit changes of a node's configuration: an edit of one entry costs that entry, whatever else there is."""

from __future__ import annotations

import copy
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from documents.secret import Secret
from etsi import gs015
from ietf.restconf import Tree
from mtls.credentials import Credentials
from node.config import Neighbour, NodeConfig, Parameters
from node.tree.model import apps, change, initial, links, node_id, normalised

NOWHERE = Path()
CONFIG = NodeConfig(
    name="a", host="127.0.0.1", kme_port=0, agent_port=0, directory=NOWHERE,
    credentials=Credentials(NOWHERE, NOWHERE, NOWHERE), shared_db_url="", shared_db_schema="", nodes={}, saes={},
    qcs=(Neighbour("ab", "b", 1, Secret(b"")), Neighbour("ac", "c", 1, Secret(b""))),
)  # fmt: skip
FRESH = initial(CONFIG, Parameters())
IDS = [f"{n:08d}-0000-4000-8000-000000000000" for n in range(5)]
PHYSICAL = [link["qkdl_id"] for link in links(FRESH)]


def virtual(name: str, hop: str) -> dict[str, object]:
    """A virtual link that leads to that node."""
    return {"qkdl_id": name, "qkdl_type": gs015.VIRT, "virt_next_hop": [node_id(hop)]}


def internal(name: str, backing: str) -> dict[str, object]:
    """Its application, as a controller may make it; of another type nothing would be asked of it here."""
    return {"app_id": name, "app_type": gs015.INTERNAL, "backing_qkdl_id": [backing]}


STEPS = st.one_of(
    st.tuples(st.just("link"), st.sampled_from(IDS), st.sampled_from("bc")),
    st.tuples(st.just("app"), st.sampled_from(IDS), st.sampled_from([*PHYSICAL, *IDS])),
    st.tuples(st.sampled_from(["no link", "no app"]), st.sampled_from(IDS), st.just("")),
)


def edited(tree: Tree, what: str, name: str, value: str) -> Tree:
    """The tree after a client's edit, which touches no other entry."""
    of_apps = "app" in what
    entries, key = (apps(tree), "app_id") if of_apps else (links(tree), "qkdl_id")
    entries = [entry for entry in entries if entry[key] != name]
    if not what.startswith("no "):
        entries.append(internal(name, value) if of_apps else virtual(name, value))
    lists = {"qkd_applications": {"qkd_app": entries}} if of_apps else {"qkd_links": {"qkd_link": entries}}
    return {**tree, gs015.NODE: {**tree[gs015.NODE], **lists}}


@settings(deadline=None)
@given(st.lists(STEPS, max_size=10))
def test_configuration_after_edits_is_that_of_all_entries_looked_at_anew(steps):
    """Entries that an edit does not touch are taken as they are; copies of them, looked at anew, become the same."""
    tree: Tree = FRESH
    for step in steps:
        wanted = edited(tree, *step)
        found = normalised(wanted, CONFIG, tree)
        assert found == normalised(copy.deepcopy(wanted), CONFIG, copy.deepcopy(tree))
        backing = [(app["app_id"], link) for app in apps(found) for link in app.get("backing_qkdl_id", [])]
        for link in links(found):
            assert sorted(link["qkdl_applications"]) == sorted(a for a, feeds in backing if feeds == link["qkdl_id"])
            if link["qkdl_type"] == gs015.VIRT:
                assert link["qkdl_id"] in {app["app_id"] for app in apps(found)}
        tree = found


def test_change_names_entries_that_are_new_other_or_gone_and_no_others():
    """By ID, with what was and what is."""
    before = normalised(edited(FRESH, "link", IDS[0], "b"), CONFIG, FRESH)
    after = normalised(edited(before, "link", IDS[1], "c"), CONFIG, before)

    found = change(before, after)

    assert found.links[IDS[1]][0] is None
    assert found.links[IDS[1]][1]["virt_next_hop"] == [node_id("c")]
    assert IDS[0] not in found.links
    assert set(found.apps) == {IDS[1]}
    back = change(after, before)
    assert back.apps == {IDS[1]: (found.apps[IDS[1]][1], None)}
