"""A relay that lies on one of several paths: four real nodes, and all that b and c say passes a test's hands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mtls.identity import Role
from node.tree.model import link_id
from tests.service.test_hostile_relay import ALICE, DAVE, HOME, HOSTILE, Between, Network, flipped, running, said_well
from tests.support.foreign import open_session
from tests.support.waiting import until

# From a to d by way of b, by way of c, and over their own QC.
LINKS = [("a-b/1", "a", "b"), ("b-d/1", "b", "d"), ("a-c/1", "a", "c"), ("c-d/1", "c", "d"), ("a-d/1", "a", "d")]
PATHS = {"paths-2": ["abd", "acd"], "paths-3": ["abd", "acd", "ad"], "paths-2of3": ["abd", "acd", "ad"]}


class Several(Network):
    """A session from a to d over as many paths as its mode takes."""

    def build(self) -> None:
        """Start everything; no session is open."""
        self.between = {pair: Between(self, *pair) for pair in ("ab", "ac", "bd", "cd")}
        self.start_postgres()
        self.start_nodes(LINKS, HOME)
        self.start_qcs(LINKS, low=2000, high=2000, slot_s=0.25)
        self.controller_calls = self.caller(Role.CONTROLLER, "ctl")
        self.saes = {sae: self.caller(Role.SAE, sae) for sae in HOME}
        self.session = {}

    def go_over(self, mode: str) -> None:
        """Have the session go over the paths of that mode, in it."""
        def call(method: str, node: str, at: str, body: Any) -> int:
            return self.configure(method, node, at, body).status

        for node in "ad" if self.session else "":
            at = f"/restconf/data/etsi-qkd-sdn-node:qkd_node/qkd_applications/qkd_app={self.session['ksid']}"
            assert self.configure("DELETE", node, at, None).ok
        self.session = open_session(call, (ALICE, DAVE), *map(list, PATHS[mode]))
        for node in "abcd":
            at = "/restconf/data/qkd-testbed:node/parameters/mode"
            assert self.configure("PUT", node, at, {"qkd-testbed:mode": mode}).ok
        until(lambda: self.enc_keys().ok)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """The running network."""
    yield from running(Several(tmp_path_factory.mktemp("several")))


@pytest.fixture
def several(built: Several) -> Iterator[Several]:
    """The same, honest afterwards."""
    yield built
    built.be_honest()


def silent(path: str, body: Any) -> Any:
    """A relay's message that the last node cannot take."""
    return body | {"ksid": link_id("another")} if "/relay/" in path else body


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("mode", ["paths-2", "paths-3"])
def test_path_on_which_a_relay_flips_a_bit_is_named_and_nobody_has_the_key(several, mode, hostile):
    """Also where it says that all went well."""
    several.go_over(mode)
    before = several.waiting()
    several.lie(hostile, flipped)
    several.answer(hostile, said_well)

    failed = several.failure()

    assert (failed.status, failed.detail("cause")) == (503, "relay_altered")
    assert failed.detail("path") == f"a - {hostile} - d"
    assert several.waiting() == before
    assert several.events("a", "lost")[-1]["cause"] == "relay_altered"
    several.be_honest()
    until(lambda: several.enc_keys().ok)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("mode", ["paths-2", "paths-3"])
def test_relay_on_one_of_several_paths_that_passes_nothing_on_is_found_out(several, mode, hostile):
    """The last node says whose difference is missing."""
    several.go_over(mode)
    several.lie(hostile, silent)
    several.answer(hostile, said_well)

    failed = several.failure()

    assert (failed.status, failed.detail("cause"), failed.detail("node")) == (503, "relay_broken", hostile)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(("lie", "cause"), [(flipped, "relay_altered"), (silent, "relay_broken")])
def test_key_outlives_one_path_of_three_that_is_hostile_and_the_path_is_named(several, hostile, lie, cause):
    """Both sides have the same keys of the other two parts; the first node's journal tells of the lost one."""
    several.go_over("paths-2of3")
    several.lie(hostile, lie)
    several.answer(hostile, said_well)
    before = len(several.events("a", "part_lost"))

    def told() -> bool:
        given = several.enc_keys()
        assert given.ok or given.detail("cause") == "short_of_material", given
        if given.ok:
            assert several.dec_keys(*(key["key_ID"] for key in given.body["keys"])).body == given.body
        lost = several.events("a", "part_lost")[before:]
        assert {tuple(event["path"]) for event in lost} <= {("a", hostile, "d")}
        return cause in {event["cause"] for event in lost}

    until(told)
