"""RESTCONF over the data model of GS QKD 015: paths, reading, edits and their refusals (RFC 8040, RFC 7951)."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etsi import gs015
from ietf import restconf_server
from ietf.preconditions import ANY, Preconditions
from ietf.restconf import DATA, parse_target, status_of
from ietf.restconf_edit import Edit, allowed, edit
from ietf.restconf_read import CONFIG, NONCONFIG, TAGGED, TRIM, Query, query, read
from ietf.yang import STRING, Container, Leaf, List, Refusal
from tests.support.validation import validate

MODEL = {gs015.NODE: gs015.QKD_NODE}
N = "etsi-qkd-sdn-node:qkd_node"
LINK, APP, NODE, OTHER = (str(uuid.UUID(int=i)) for i in range(1, 5))
TREE: dict[str, Any] = {
    N: {
        "qkdn_id": NODE, "qkdn_status": gs015.OPERATING, "qkdn_location_id": "here",
        "qkd_interfaces": {"qkd_interface": [
            {"qkdi_id": 7, "qkdi_model": "x/y", "qkdi_status": gs015.ENABLED,
             "qkdi_capabilities": {"max_absorption": "24.0"}}]},
        "qkd_applications": {"qkd_app": []},
        "qkd_links": {"qkd_link": [
            {"qkdl_id": LINK, "qkdl_status": gs015.ACTIVE, "qkdl_enable": True, "qkdl_type": gs015.PHYS,
             "qkdl_local": {"qkdn_id": NODE, "qkdi_id": 7}, "qkdl_applications": [APP],
             "qkdl_performance": {"skr": 4000, "eskr": 4000, "phys_perf": [
                 {"perf_type": gs015.QBER, "value": "2.0"}]}}]},
    }
}  # fmt: skip


def get(path: str, **options: Any) -> Any:
    """The body of a GET."""
    return read(MODEL, TREE, parse_target(MODEL, path), Query(**options))


def ask(path: str, **arguments: str) -> Any:
    """The only member of the body of a GET with these query parameters."""
    asked = query([(name.replace("_", "-"), value) for name, value in arguments.items()])
    (value,) = read(MODEL, TREE, parse_target(MODEL, path), asked).values()
    return value


def change(method: str, path: str, body: Any = None) -> Edit:
    """An edit of TREE's configuration."""
    tree = read(MODEL, TREE, parse_target(MODEL, ""), Query(CONFIG))[DATA]
    return edit(MODEL, tree, method, parse_target(MODEL, path), body)


def refused(method: str, path: str, body: Any = None) -> Refusal:
    """The refusal of an edit."""
    with pytest.raises(Refusal) as caught:
        change(method, path, body)
    return caught.value


def link(tree: Any, key: str = LINK) -> Any:
    """That link in a tree; None if it is not there."""
    return next((e for e in tree[N]["qkd_links"]["qkd_link"] if e["qkdl_id"] == key), None)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (N, N, None),
        (f"{N}/", N, None),
        (f"{N}/qkdn_id", "etsi-qkd-sdn-node:qkdn_id", NODE),
        (f"{N}/qkd_interfaces/qkd_interface=7/qkdi_model", "etsi-qkd-sdn-node:qkdi_model", "x/y"),
        (f"{N}/qkd_links/qkd_link={LINK.upper()}/qkdl_enable", "etsi-qkd-sdn-node:qkdl_enable", True),
        (f"{N}/etsi-qkd-sdn-node:qkd_links/qkd_link={LINK}/qkdl_performance/skr", "etsi-qkd-sdn-node:skr", 4000),
        (f"{N}/qkd_links/qkd_link={LINK}/qkdl_performance/phys_perf=etsi-qkd-node-types%3AQBER",
         "etsi-qkd-sdn-node:phys_perf", [{"perf_type": gs015.QBER, "value": "2.0"}]),
        (f"{N}/qkd_links/qkd_link={LINK}/qkdl_applications={APP}", "etsi-qkd-sdn-node:qkdl_applications", [APP]),
        (f"{N}/qkd_applications/qkd_app", "etsi-qkd-sdn-node:qkd_app", []),
    ],
)  # fmt: skip
def test_resource_is_found_by_its_path(path, name, value):
    """3.5.3: one qualified name on top; a module's name further down and a slash at the end do no harm."""
    document = get(path)

    assert list(document) == [name]
    assert value is None or document[name] == value


@pytest.mark.parametrize(
    "path",
    ["qkd_node", f"{N}/nothing", f"{N}/qkd_links/qkd_link={OTHER}", f"{N}/qkdn_version", f"{N}/qkdn_id/x",
     f"{N}/qkd_links/qkd_link={LINK}/qkdl_applications={OTHER}", f"{N}/qkd_links/qkd_link={LINK}/virt_prev_hop"],
)  # fmt: skip
def test_what_is_not_there_is_404(path):
    """No such instance, or no such name in the model."""
    with pytest.raises(Refusal) as caught:
        get(path)

    assert (status_of(caught.value), caught.value.tag) == (404, "invalid-value")


@pytest.mark.parametrize(
    "path",
    [f"{N}/qkd_links/qkd_link=7", f"{N}/qkd_interfaces/qkd_interface=x", f"{N}/qkd_interfaces/qkd_interface=07",
     f"{N}/qkd_links=7", f"{N}/qkd_links/qkd_link/qkdl_enable", f"{N}/%ff", f"{N}/%zz", "/".join(["x"] * 99)],
)  # fmt: skip
def test_path_that_can_name_nothing_is_400(path):
    """A key of the wrong type, none where one is needed, one where none can be, no UTF-8."""
    with pytest.raises(Refusal) as caught:
        get(path)

    assert status_of(caught.value) == 400


def test_content_config_leaves_out_what_is_state():
    """4.8.1; the link's status is configuration in the published module, odd as that is."""
    found = get(f"{N}/qkd_links/qkd_link={LINK}", content=CONFIG)["etsi-qkd-sdn-node:qkd_link"][0]

    assert found["qkdl_status"] == gs015.ACTIVE
    assert found["qkdl_performance"] == {}


def test_content_nonconfig_leaves_out_what_is_configuration():
    """With what is needed to see where the state belongs: keys."""
    found = get(N, content=NONCONFIG)[N]

    assert found == {
        "qkdn_status": gs015.OPERATING,
        "qkd_interfaces": {"qkd_interface": [{"qkdi_id": 7, "qkdi_status": gs015.ENABLED}]},
        "qkd_links": {
            "qkd_link": [
                {"qkdl_id": LINK, "qkdl_performance": TREE[N]["qkd_links"]["qkd_link"][0]["qkdl_performance"]}
            ]
        },
    }


@pytest.mark.parametrize(
    ("depth", "found"),
    [(1, {}), (2, {"qkd_link": [{"qkdl_id": LINK}]})],
)
def test_depth_ends_the_tree(depth, found):
    """4.8.2: 1 is the resource itself. An entry keeps its key, without which it would be none."""
    assert get(f"{N}/qkd_links", depth=depth)["etsi-qkd-sdn-node:qkd_links"] == found
    assert get(f"{N}/qkd_links", depth=4) == get(f"{N}/qkd_links", depth=65535) or depth


@pytest.mark.parametrize(
    "arguments",
    [[("content", "some")], [("depth", "0")], [("depth", "65536")], [("depth", "x")], [("insert", "first")],
     [("depth", "1"), ("depth", "2")], [("with-defaults", "all")], [("with-defaults", "")],
     *([("fields", text)] for text in ("", ";", "a;", "a(", "a)", "a()", "a(b", "a(b))", "a//b", "/a", "a(b)c",
                                       "a(" * 40 + "b" + ")" * 40, "a/" * 40 + "b"))],
)  # fmt: skip
def test_other_query_parameters_are_400(arguments):
    """4.8: unknown, repeated, out of range."""
    with pytest.raises(Refusal) as caught:
        query(arguments)

    assert status_of(caught.value) == 400


LINK_PATH = f"{N}/qkd_links/qkd_link={LINK}"


@pytest.mark.parametrize(
    ("path", "fields", "found"),
    [
        (N, "qkdn_id", {"qkdn_id": NODE}),
        (N, "qkdn_id;qkdn_location_id", {"qkdn_id": NODE, "qkdn_location_id": "here"}),
        (N, "etsi-qkd-sdn-node:qkdn_id", {"qkdn_id": NODE}),
        (N, "qkd_links/qkd_link(qkdl_enable;qkdl_performance/skr)",
         {"qkd_links": {"qkd_link": [{"qkdl_id": LINK, "qkdl_enable": True, "qkdl_performance": {"skr": 4000}}]}}),
        (N, "qkd_links(qkd_link/qkdl_local(qkdi_id));qkdn_id",
         {"qkdn_id": NODE, "qkd_links": {"qkd_link": [{"qkdl_id": LINK, "qkdl_local": {"qkdi_id": 7}}]}}),
        (LINK_PATH, "qkdl_performance(skr);qkdl_performance/eskr",
         [{"qkdl_id": LINK, "qkdl_performance": {"skr": 4000, "eskr": 4000}}]),
        (LINK_PATH, "qkdl_local;qkdl_local/qkdi_id",
         [{"qkdl_id": LINK, "qkdl_local": {"qkdn_id": NODE, "qkdi_id": 7}}]),
        ("", f"{N}/qkdn_id", {N: {"qkdn_id": NODE}}),
    ],
)  # fmt: skip
def test_fields_select_what_is_shown(path, fields, found):
    """4.8.3: paths, brackets, several of them; an entry keeps its key, and the whole wins over a part of it."""
    assert ask(path, fields=fields) == found


@pytest.mark.parametrize("fields", ["colour", "qkd_links/colour", "qkdn_id/x", "other:qkdn_id"])
def test_fields_that_the_model_does_not_have_are_400(fields):
    """Like any other parameter that is wrong."""
    with pytest.raises(Refusal) as caught:
        ask(N, fields=fields)

    assert status_of(caught.value) == 400


def test_fields_go_together_with_content_and_depth():
    """Each takes away what it does not select."""
    assert ask(N, fields="qkd_links;qkdn_location_id", depth="2") == {"qkd_links": {}, "qkdn_location_id": "here"}
    assert ask(LINK_PATH, fields="qkdl_enable;qkdl_performance/skr", content="nonconfig") == [
        {"qkdl_id": LINK, "qkdl_performance": {"skr": 4000}}
    ]


def test_defaults_are_reported_left_out_or_marked():
    """4.8.9: what nobody has set counts as the model says; a value that is the default need not be shown."""
    there = ask(N, with_defaults="report-all")
    tagged = ask(f"{N}/qkd_links/qkd_link={LINK}", with_defaults=TAGGED)[0]

    assert there["qkdn_capabilities"] == dict.fromkeys(
        ("link_stats_support", "application_stats_support", "key_relay_mode_enable"), True
    )
    assert "qkdn_capabilities" not in ask(N, with_defaults="explicit")
    assert ask(f"{N}/qkdn_capabilities/link_stats_support", with_defaults="report-all") is True
    assert "qkdl_enable" not in ask(f"{N}/qkd_links/qkd_link={LINK}", with_defaults=TRIM)[0]
    assert tagged["@qkdl_enable"] == {"ietf-netconf-with-defaults:default": True}
    assert set(there) >= set(TREE[N])
    assert ask(N, with_defaults="report-all", content="nonconfig") == ask(N, content="nonconfig")


def test_leaf_that_is_not_there_and_has_no_default_is_404_with_defaults_too():
    """Nothing is made up."""
    with pytest.raises(Refusal) as caught:
        ask(f"{N}/qkdn_version", with_defaults="report-all")

    assert status_of(caught.value) == 404


def test_post_creates_a_child_and_says_where():
    """4.4.1."""
    made = change("POST", f"{N}/qkd_links", {"etsi-qkd-sdn-node:qkd_link": [{"qkdl_id": OTHER.upper()}]})

    assert made.created == f"{N}/qkd_links/qkd_link={OTHER}"
    assert link(made.tree, OTHER) == {"qkdl_id": OTHER}
    assert link(made.tree) is not None


@pytest.mark.parametrize("outer", ["qkd_links", "etsi-qkd-sdn-node:qkd_links"])
@pytest.mark.parametrize("inner", ["qkd_link", "etsi-qkd-sdn-node:qkd_link"])
def test_post_that_repeats_its_parent_is_understood(outer, inner):
    """A widely used controller does so."""
    made = change("POST", f"{N}/qkd_links", {outer: {inner: [{"qkdl_id": OTHER}]}})

    assert link(made.tree, OTHER) is not None


def test_members_that_are_null_are_left_out():
    """A widely used controller writes null for a hop that there is not; a key is never left out."""
    entry = {"qkdl_id": OTHER, "qkdl_type": gs015.VIRT, "virt_prev_hop": None, "virt_next_hop": [NODE]}
    made = change("POST", f"{N}/qkd_links", {"etsi-qkd-sdn-node:qkd_link": [entry]})

    assert link(made.tree, OTHER) == {name: value for name, value in entry.items() if value is not None}
    refusal = refused("POST", f"{N}/qkd_links", {"etsi-qkd-sdn-node:qkd_link": [entry | {"qkdl_id": None}]})
    assert status_of(refusal) == 400


def test_put_replaces_the_whole_resource():
    """4.5: what is not in the body is gone, and what was not there is made."""
    path = f"{N}/qkd_links/qkd_link"
    replaced = change("PUT", f"{path}={LINK}", {"etsi-qkd-sdn-node:qkd_link": [{"qkdl_id": LINK}]})
    made = change("PUT", f"{path}={OTHER}", {"etsi-qkd-sdn-node:qkd_link": [{"qkdl_id": OTHER}]})

    assert (replaced.created, link(replaced.tree)) == ("", {"qkdl_id": LINK})
    assert (made.created, link(made.tree, OTHER)) == (f"{path}={OTHER}", {"qkdl_id": OTHER})


def test_patch_merges():
    """4.6.1: what is not in the body stays; entries are told apart by their keys."""
    entries = [{"qkdl_id": LINK, "qkdl_enable": False, "qkdl_applications": [OTHER]}, {"qkdl_id": OTHER}]
    body = {"etsi-qkd-sdn-node:qkd_links": {"qkd_link": entries}}
    merged = change("PATCH", f"{N}/qkd_links", body).tree

    assert link(merged)["qkdl_enable"] is False
    assert link(merged)["qkdl_applications"] == [APP, OTHER]
    assert link(merged)["qkdl_type"] == gs015.PHYS
    assert link(merged, OTHER) is not None


def test_patch_of_the_datastore_merges_several_modules():
    """Its resource is ietf-restconf:data."""
    merged = change("PATCH", "", {DATA: {N: {"qkdn_location_id": "there"}}}).tree

    assert merged[N]["qkdn_location_id"] == "there"
    assert refused("PATCH", "", {DATA: {"x:y": {}}}).tag == "unknown-element"
    assert refused("PATCH", "", {N: {}}).tag == "unknown-element"


@pytest.mark.parametrize(
    "path", [f"{N}/qkd_links/qkd_link={LINK}", f"{N}/qkd_links", f"{N}/qkdn_location_id",
             f"{N}/qkd_links/qkd_link={LINK}/qkdl_applications={APP}"],
)  # fmt: skip
def test_delete_takes_the_resource_away(path):
    """4.7, and the second time it is not there."""
    tree = change("DELETE", path).tree

    if path != f"{N}/qkd_links":
        with pytest.raises(Refusal):
            read(MODEL, tree, parse_target(MODEL, path))
    else:
        assert read(MODEL, tree, parse_target(MODEL, path)) == {"etsi-qkd-sdn-node:qkd_links": {}}


Q = "etsi-qkd-sdn-node:qkd_link"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "tag"),
    [
        ("POST", f"{N}/qkd_links", {Q: [{"qkdl_id": LINK}]}, 409, "data-exists"),
        ("POST", f"{N}/qkd_links", {Q: [{"qkdl_enable": True}]}, 400, "missing-element"),
        ("POST", f"{N}/qkd_links", {Q: []}, 400, "invalid-value"),
        ("POST", f"{N}/qkd_links", {Q: {"qkdl_id": OTHER}}, 400, "invalid-value"),
        ("POST", f"{N}/qkd_links", {"qkd_link": [{"qkdl_id": OTHER}]}, 400, "unknown-element"),
        ("POST", f"{N}/qkd_links", {Q: [{"qkdl_id": OTHER}, {"qkdl_id": OTHER}]}, 400, "invalid-value"),
        ("POST", f"{N}/qkd_links", {"x": 1, "y": 2}, 400, "malformed-message"),
        ("POST", f"{N}/qkdn_id", {"x": 1}, 405, "operation-not-supported"),
        ("POST", "", {N: {}}, 405, "operation-not-supported"),
        ("POST", N, {"etsi-qkd-sdn-node:qkdn_status": gs015.OPERATING}, 400, "invalid-value"),
        ("PUT", f"{N}/qkd_links/qkd_link={OTHER}", {Q: [{"qkdl_id": LINK}]}, 400, "invalid-value"),
        ("PUT", f"{N}/qkd_links/qkd_link", {Q: [{"qkdl_id": LINK}]}, 405, "operation-not-supported"),
        ("PUT", f"{N}/qkdn_status", {"etsi-qkd-sdn-node:qkdn_status": gs015.OPERATING}, 405, "operation-not-supported"),
        ("PUT", f"{N}/qkd_links/qkd_link={OTHER}/qkdl_enable", {"etsi-qkd-sdn-node:qkdl_enable": True}, 404,
         "invalid-value"),
        ("PUT", f"{N}/qkd_links/qkd_link={LINK}/qkdl_id", {"etsi-qkd-sdn-node:qkdl_id": OTHER}, 400, "invalid-value"),
        ("PUT", N, {N: {"qkdn_location_id": "x"}}, 400, "missing-element"),
        ("PUT", "", {DATA: {}}, 405, "operation-not-supported"),
        ("PATCH", f"{N}/qkd_links/qkd_link={OTHER}", {Q: [{"qkdl_id": OTHER}]}, 404, "invalid-value"),
        ("PATCH", N, {N: {"colour": 1}}, 400, "unknown-element"),
        ("PATCH", N, {N: {"etsi-qkd-sdn-node:qkdn_version": "1"}}, 400, "unknown-element"),
        ("PATCH", N, {N: {"qkdn_status": gs015.OPERATING}}, 400, "invalid-value"),
        ("PATCH", N, {N: {"qkdn_location_id": 7}}, 400, "invalid-value"),
        ("PATCH", N, {N: []}, 400, "invalid-value"),
        ("PATCH", N, {N: {"qkdn_capabilities": {"link_stats_support": "true"}}}, 400, "invalid-value"),
        ("PATCH", f"{N}/qkd_links/qkd_link={LINK}", {Q: [{"qkdl_id": LINK, "qkdl_type": "PHYS"}]}, 400,
         "invalid-value"),
        ("PATCH", f"{N}/qkd_links/qkd_link={LINK}",
         {Q: [{"qkdl_id": LINK, "qkdl_type": "etsi-qkd-node-types:CLIENT"}]}, 400, "invalid-value"),
        ("PATCH", f"{N}/qkd_links/qkd_link={LINK}", {Q: [{"qkdl_id": LINK, "phys_channel_att": 2.5}]}, 400,
         "invalid-value"),
        ("PATCH", f"{N}/qkd_links/qkd_link={LINK}", {Q: [{"qkdl_id": LINK, "phys_channel_att": "2.1234"}]}, 400,
         "invalid-value"),
        ("PATCH", f"{N}/qkd_links/qkd_link={LINK}", {Q: [{"qkdl_id": LINK, "phys_wavelength": "1550.12"}]}, 400,
         "invalid-value"),
        ("PATCH", f"{N}/qkd_links/qkd_link={LINK}", {Q: [{"qkdl_id": LINK, "virt_bandwidth": 7}]}, 400,
         "unknown-element"),
        ("PATCH", f"{N}/qkd_links/qkd_link={LINK}", {Q: [{"qkdl_id": LINK, "virt_bandwidth": -1}]}, 400,
         "invalid-value"),
        ("POST", f"{N}/qkd_applications",
         {"etsi-qkd-sdn-node:qkd_app": [{"app_id": APP, "expiration_time": "2026-11-24T00:00:00"}]}, 400,
         "invalid-value"),
        ("POST", f"{N}/qkd_applications",
         {"etsi-qkd-sdn-node:qkd_app": [{"app_id": APP, "expiration_time": "2026-11-24T00:00:00+99:00"}]}, 400,
         "invalid-value"),
        ("DELETE", f"{N}/qkd_links/qkd_link={OTHER}", None, 404, "invalid-value"),
        ("DELETE", f"{N}/qkd_links/qkd_link", None, 405, "operation-not-supported"),
        ("DELETE", f"{N}/qkd_links/qkd_link={LINK}/qkdl_id", None, 405, "operation-not-supported"),
        ("DELETE", f"{N}/qkdn_id", None, 405, "operation-not-supported"),
        ("DELETE", N, None, 405, "operation-not-supported"),
    ],
)  # fmt: skip
def test_edit_that_is_not_allowed_is_refused_by_name(method, path, body, status, tag):
    """Status and tag of clause 7, for each way to be wrong."""
    refusal = refused(method, path, body)

    assert (status_of(refusal), refusal.tag) == (status, tag)
    assert refusal.message


def targets(path: str = "", children: Any = MODEL) -> list[str]:
    """A path to everything in the model, to lists and to an entry of each."""
    found = [path]
    for name, node in children.items():
        below = f"{path}/{name}".removeprefix("/")
        if isinstance(node, List):
            found += [below, *targets(f"{below}={KEYS.get(node.key, LINK)}", node.children)]
        else:
            found += targets(below, getattr(node, "children", {}))
    return found


KEYS = {"qkdi_id": "7", "end_time": "2026-11-24T00:00:00Z", "perf_type": "etsi-qkd-node-types%3AQBER"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_is_allowed_is_what_is_never_refused_as_not_allowed(method):
    """OPTIONS and Allow tell the truth (4.1): for everything in the model, whatever the body is."""
    for path in targets():
        may = method in allowed(parse_target(MODEL, path))
        for body in (None, {}, {"x": 1}, {DATA: {}}):
            status = 204
            try:
                change(method, path, body)
            except Refusal as refusal:
                status = status_of(refusal)
            assert (status != 405) is may, path


def test_list_with_a_key_of_several_leaves_has_them_all_in_its_path():
    """3.5.3: with commas between them, as the YANG library's modules have it."""
    leaf = Leaf(STRING, config=False)
    model = {"m:top": Container({"module": List("name revision", {"name": leaf, "revision": leaf}, config=False)})}
    tree = {"m:top": {"module": [{"name": "a,b", "revision": r} for r in ("1", "2")]}}
    target = parse_target(model, "m:top/module=a%2Cb,2")

    assert read(model, tree, target) == {"m:module": [{"name": "a,b", "revision": "2"}]}
    assert (target.url, target.path) == ("m:top/module=a%2Cb,2", "/m:top/module[name='a,b'][revision='2']")
    with pytest.raises(Refusal):
        parse_target(model, "m:top/module=a")


@pytest.mark.parametrize(
    ("required", "refused"),
    [
        (Preconditions(), False),
        (Preconditions(match={"v-1"}), False),
        (Preconditions(match={"x", "v-1-a3f"}), False),
        (Preconditions(match={"v-2", "v-11", "v"}), True),
        (Preconditions(match=set()), True),
        (Preconditions(match={ANY}), False),
        (Preconditions(none_match={ANY}), True),
        (Preconditions(none_match={"v-2", "v-11", "v"}), False),
        (Preconditions(none_match={"x", "v-1"}), True),
        (Preconditions(unmodified_since=100), False),
        (Preconditions(unmodified_since=99), True),
        (Preconditions(match={"v-1"}, unmodified_since=99), False),
    ],
)
def test_what_is_asked_for_is_done_only_if_what_it_requires_holds(required, refused):
    """RFC 9110, 13.1: If-Match wins over If-Unmodified-Since, which knows whole seconds."""
    assert refuses(required, exists=True) is refused


@pytest.mark.parametrize(
    ("required", "refused"),
    [
        (Preconditions(match={ANY}), True),
        (Preconditions(match={"v-1"}), False),
        (Preconditions(none_match={ANY}), False),
        (Preconditions(none_match={"v-1"}), False),
    ],
)
def test_star_stands_for_a_resource_that_is_there(required, refused):
    """If-Match: * is how a client changes and never makes; a tag is the configuration's, which is always there."""
    assert refuses(required, exists=False) is refused


def refuses(required: Preconditions, *, exists: bool) -> bool:
    """Whether version v-1, of second 100, does not do; then it is a 412."""
    try:
        required.check("v-1", 100.7, exists=exists)
    except Refusal as refusal:
        return status_of(refusal) == 412
    return False


def test_yang_library_has_another_id_where_it_has_another_module():
    """RFC 8525 (3): clients that know an ID do not read the library again. The host asked for is no part of it."""
    module = restconf_server.Module("m", "2026-11-24", "urn:m")
    changes = ([module], [], [dataclasses.replace(module, revision="2026-11-25")], [module, module])
    states = [restconf_server.state(modules, [], root="https://a/restconf") for modules in changes]

    assert len({state[restconf_server.LIBRARY]["content-id"] for state in states}) == len(changes)
    same = restconf_server.state([module], [], root="https://b/restconf")
    for name, member in ((restconf_server.LIBRARY, "content-id"), (restconf_server.MODULES_STATE, "module-set-id")):
        assert same[name][member] == states[0][name][member]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1970-01-01T00:01:00Z", 60.0), ("1970-01-01T02:00:00.25+02:00", 0.25),
     ("1970-01-01T00:00:00.123456789Z", 0.123456)],
)  # fmt: skip
def test_date_and_time_is_read_with_zone_and_fraction(text, seconds):
    """As RFC 3339 has it."""
    assert gs015.seconds(gs015.DATE_AND_TIME.read(text)) == pytest.approx(seconds)


def test_refusal_names_the_member():
    """As an instance identifier (RFC 7951, 6.11)."""
    refusal = refused("PATCH", f"{N}/qkd_links", {"etsi-qkd-sdn-node:qkd_links": {"qkd_link": [
        {"qkdl_id": LINK, "qkdl_local": {"qkdi_id": "7"}}]}})  # fmt: skip

    assert refusal.path == f"/{N}/qkd_links/qkd_link[qkdl_id='{LINK}']/qkdl_local/qkdi_id"


UUIDS = st.sampled_from([LINK, APP, NODE, OTHER, LINK.upper()])
JUNK = st.sampled_from([None, "", 7, -1, True, "x", [], {}, "2.5", gs015.PHYS, gs015.VIRT, 1 << 32, "1550", "\\ud800"])


def member(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A right value, or any."""
    return value | JUNK


LINKS = st.fixed_dictionaries(
    {"qkdl_id": member(UUIDS)},
    optional={
        "qkdl_type": member(st.sampled_from([gs015.PHYS, gs015.VIRT])), "qkdl_enable": member(st.booleans()),
        "virt_prev_hop": member(UUIDS), "virt_next_hop": member(st.lists(UUIDS, max_size=2)),
        "virt_bandwidth": member(st.integers(0, 9)), "phys_channel_att": member(st.just("2.50")),
        "phys_wavelength": member(st.just("1550")), "qkdl_applications": member(st.lists(UUIDS, max_size=2)),
        "qkdl_local": member(st.fixed_dictionaries({}, optional={"qkdn_id": UUIDS, "qkdi_id": st.integers(0, 3)})),
        "colour": JUNK,
    },
)  # fmt: skip
EDITS = st.tuples(
    st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]),
    st.sampled_from([f"{N}/qkd_links", f"{N}/qkd_links/qkd_link={LINK}", f"{N}/qkd_links/qkd_link={OTHER}", N]),
    LINKS,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EDITS, max_size=4))
def test_whatever_edits_are_accepted_the_tree_stays_valid(edits):
    """Each edit is refused, or leaves what a validator of ETSI's modules accepts."""
    tree = read(MODEL, TREE, parse_target(MODEL, ""), Query(CONFIG))[DATA]
    for method, path, entry in edits:
        whole = {"qkd_link": [entry]}
        bodies = {N: {N: {"qkdn_id": NODE, "qkd_links": whole}}}
        if method != "POST":
            bodies[f"{N}/qkd_links"] = {"etsi-qkd-sdn-node:qkd_links": whole}
        with contextlib.suppress(Refusal):
            tree = edit(MODEL, tree, method, parse_target(MODEL, path), bodies.get(path, {Q: [entry]})).tree
    validate(tree)
