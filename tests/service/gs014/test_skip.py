"""SKIP (draft-cisco-skip-02) beside GS QKD 014: the same keys, for the same pair, and once."""

from __future__ import annotations

import base64
import uuid

import pytest

from tests.support.gs014_client import NOT_FOUND


def key(sae, remote: str, query: str = ""):
    """A new key for `sae` to share with `remote`."""
    return sae.call("GET", f"/key?remoteSystemID={remote}{query}")


def same(sae, remote: str, key_id: str):
    """The key of that ID, which `remote` has got."""
    return sae.call("GET", f"/key/{key_id}?remoteSystemID={remote}")


def test_provider_says_what_it_can_do_and_with_whom(alice, adam, bob, carol):
    """Each SAE is a system of its own; SAEs of its site are none that it could share keys with."""
    said = alice.call("GET", "/capabilities").body

    assert (said["key"], said["entropy"], said["algorithm"], said["localSystemID"]) == (True, True, "QKD", alice.id)
    assert {bob.id, carol.id} <= set(said["remoteSystemID"])
    assert not {alice.id, adam.id} & set(said["remoteSystemID"])


@pytest.mark.parametrize("query", ["", "&size=128", "&size=8192"])
def test_both_ends_get_the_same_key(alice, slave, query):
    """256 bits, or as many as were asked for; over one hop and over a relay."""
    given = key(alice, slave.id, query)

    assert given.status == 200, given
    assert set(given.body) == {"keyId", "key"}
    assert len(bytes.fromhex(given.body["key"])) * 8 == int(query.rpartition("=")[2] or 256)
    assert same(slave, alice.id, given.body["keyId"]).body == given.body


def test_key_leaves_once_whichever_protocol_it_leaves_by(alice, bob):
    """Asked for by SKIP and fetched by GS QKD 014, and the other way round."""
    first = key(alice, bob.id).body
    fetched = bob.fetch(alice.id, str(uuid.UUID(first["keyId"])))
    assert [k.hex() for k in fetched.keys.values()] == [first["key"]]
    again = same(bob, alice.id, first["keyId"])
    assert (again.status, again.message) == (400, NOT_FOUND)

    second = alice.get(bob.id)
    fetched = same(bob, alice.id, uuid.UUID(second.ids[0]).hex)
    assert base64.b64decode(second.body["keys"][0]["key"]).hex() == fetched.body["key"]
    assert bob.fetch(alice.id, *second.ids).message == NOT_FOUND


def test_key_of_another_sae_is_refused_and_stays(alice, bob, mallory):
    """It belongs to a pair of SAEs, not to a pair of providers."""
    given = key(alice, bob.id).body

    assert same(mallory, alice.id, given["keyId"]).status == 401
    assert same(alice, bob.id, given["keyId"]).status == 401
    assert same(bob, alice.id, given["keyId"]).body == given


@pytest.mark.parametrize("path", ["/capabilities", "/key?remoteSystemID=x", "/key/x?remoteSystemID=x", "/entropy"])
def test_sae_that_the_kme_does_not_know_is_401(stranger, path):
    """As everywhere."""
    assert stranger.call("GET", path).status == 401


@pytest.mark.parametrize(
    ("path", "field"),
    [("/key", "remoteSystemID"), ("/key?remoteSystemID=nobody", "remoteSystemID"),
     ("/key?remoteSystemID=BOB&size=100", "size"), ("/key?remoteSystemID=BOB&size=56", "size"),
     ("/key?remoteSystemID=BOB&size=8200", "size"), ("/key?remoteSystemID=BOB&x=1", "query"),
     ("/key/x?remoteSystemID=BOB", "keyId"), ("/key/" + "0" * 32, "remoteSystemID"),
     ("/key/" + "0" * 32 + "?remoteSystemID=nobody", "remoteSystemID"), ("/entropy?minentropy=0", "minentropy")],
)  # fmt: skip
def test_request_that_is_wrong_is_400_and_names_the_field(alice, bob, path, field):
    """By the name that SKIP gives it."""
    answer = alice.call("GET", path.replace("BOB", bob.id))

    assert answer.status == 400
    assert {"field": field} in answer.body["details"]


def test_entropy_is_random_and_nobodys_key(alice):
    """As many bits as asked for, in hexadecimal; never twice the same."""
    said = [alice.call("GET", "/entropy?minentropy=512").body for _ in range(2)]

    assert [len(bytes.fromhex(s["randomStr"])) for s in said] == [64, 64]
    assert said[0]["randomStr"] != said[1]["randomStr"]
    assert said[0]["minentropy"] == 512


def test_other_methods_are_405(alice, bob):
    """SKIP reads only."""
    for path in ("/capabilities", f"/key?remoteSystemID={bob.id}", "/entropy"):
        answer = alice.call("POST", path)
        assert (answer.status, "GET" in answer.headers["Allow"]) == (405, True)
