"""Get key with key IDs (dec_keys): GS QKD 014, clauses 5.4 and 6.4."""

from __future__ import annotations

import uuid

import pytest

from tests.support.gs014_client import NOT_FOUND, key_ids


def test_slave_gets_the_same_ids_and_bytes(alice, slave):
    """At once when the master has them: clients do not try again."""
    for size in (64, 256, 8192):
        given = alice.get(slave.id, number=4, size=size)

        assert slave.fetch(alice.id, *given.ids).keys == given.keys


def test_get_form_gives_one_key(alice, slave):
    """`key_ID`, in this spelling."""
    given = alice.get(slave.id)

    assert slave.fetch_by_query(alice.id, f"key_ID={given.ids[0]}").keys == given.keys


def test_container_has_the_standards_members_and_no_others(alice, slave):
    """As that of the master."""
    body = slave.fetch(alice.id, *alice.get(slave.id, number=2).ids).body

    assert set(body) == {"keys"}
    assert [set(entry) for entry in body["keys"]] == [{"key_ID", "key"}] * 2


def test_keys_of_several_requests_may_be_fetched_together_and_in_any_order(alice, slave):
    """A key has an ID; which request made it is nobody's concern."""
    given = {key: value for _ in range(3) for key, value in alice.get(slave.id, number=2).keys.items()}

    assert slave.fetch(alice.id, *sorted(given)).keys == given


def test_keys_of_one_request_may_be_fetched_one_by_one(alice, slave):
    """The standard ties no key to its neighbours."""
    given = alice.get(slave.id, number=3).keys

    assert {k: v for i in given for k, v in slave.fetch(alice.id, i).keys.items()} == given


def test_as_many_as_a_master_may_ask_for_may_be_fetched_at_once(alice, slave):
    """max_key_per_request counts for both."""
    given = alice.get(slave.id, number=64)

    assert slave.fetch(alice.id, *given.ids).keys == given.keys


def test_key_id_in_capitals_is_the_same_uuid(alice, slave):
    """RFC 4122: output in lower case, input in any."""
    given = alice.get(slave.id)

    assert slave.fetch(alice.id, given.ids[0].upper()).keys == given.keys


def test_key_is_given_once(alice, slave):
    """Post-condition of clause 5.4: what was handed out is not there any more."""
    given = alice.get(slave.id)
    assert slave.fetch(alice.id, *given.ids).status == 200

    again = [slave.fetch(alice.id, *given.ids), slave.fetch_by_query(alice.id, f"key_ID={given.ids[0]}")]

    assert [(a.status, a.message) for a in again] == [(400, NOT_FOUND)] * 2


def test_unknown_key_id_has_the_standards_message(alice, slave):
    """Clause 6.4, word for word."""
    answer = slave.fetch(alice.id, str(uuid.uuid4()))

    assert (answer.status, answer.message) == (400, NOT_FOUND)


def test_unknown_id_among_good_ones_spoils_the_request_and_no_key(alice, slave):
    """All or none, and nothing is used up."""
    given = alice.get(slave.id, number=2)

    assert slave.fetch(alice.id, given.ids[0], str(uuid.uuid4()), given.ids[1]).message == NOT_FOUND
    assert slave.fetch(alice.id, *given.ids).keys == given.keys


def test_fetched_id_among_good_ones_spoils_the_request_and_no_key(alice, slave):
    """A key that is gone is as unknown as one that never was."""
    given = alice.get(slave.id, number=2)
    assert slave.fetch(alice.id, given.ids[0]).status == 200

    assert slave.fetch(alice.id, *given.ids).message == NOT_FOUND
    assert slave.fetch(alice.id, given.ids[1]).status == 200


def test_key_of_another_sae_is_401_and_stays(alice, bob, mallory):
    """Clause 5.4: the caller was not among the SAE IDs given to Get key."""
    given = alice.get(bob.id)

    wrong = mallory.fetch(alice.id, *given.ids)

    assert wrong.status == 401
    assert not any(value in str(wrong.body) for value in (given.body["keys"][0]["key"], bob.id))
    assert bob.fetch(alice.id, *given.ids).keys == given.keys


def test_relayed_key_of_another_sae_is_401_at_both_ends_and_stays(kmes, alice, carol):
    """The same where keys wait at the slave's node, and where they were made."""
    given = alice.get(carol.id)

    for other in ("carl", "adam"):
        assert kmes.saes[other].fetch(alice.id, *given.ids).status == 401
    assert carol.fetch(alice.id, *given.ids).keys == given.keys


def test_relayed_key_is_not_found_on_a_kme_in_between(alice, bob, carol):
    """That KME relays bytes and never hears which key they make."""
    given = alice.get(carol.id)

    answer = bob.fetch(alice.id, *given.ids)

    assert (answer.status, answer.message) == (400, NOT_FOUND)
    assert carol.fetch(alice.id, *given.ids).keys == given.keys


def test_foreign_id_beats_an_unknown_one(alice, bob, mallory):
    """401 if any known ID is foreign, whatever else is wrong; own keys in that request stay."""
    foreign, own = alice.get(bob.id), alice.get(mallory.id)

    answer = mallory.fetch(alice.id, str(uuid.uuid4()), *own.ids, *foreign.ids)

    assert answer.status == 401
    assert mallory.fetch(alice.id, *own.ids).keys == own.keys
    assert bob.fetch(alice.id, *foreign.ids).keys == foreign.keys


def test_master_may_not_fetch_its_own_keys(alice, slave):
    """It is not among the SAE IDs that it gave."""
    given = alice.get(slave.id)

    refused = alice.fetch(slave.id, *given.ids)

    assert refused.status == 401
    assert slave.fetch(alice.id, *given.ids).keys == given.keys


def test_other_master_in_the_url_is_not_found(alice, adam, slave):
    """The ID in the URL must be that of the SAE that really got the key; the key stays."""
    given = alice.get(slave.id)

    answer = slave.fetch(adam.id, *given.ids)

    assert (answer.status, answer.message) == (400, NOT_FOUND)
    assert slave.fetch(alice.id, *given.ids).keys == given.keys


def test_unknown_master_in_the_url_is_400(alice, bob):
    """404 is not in the standard's tables."""
    given = alice.get(bob.id)

    assert bob.fetch("nobody", *given.ids).status == 400
    assert bob.fetch(str(uuid.uuid4()), *given.ids).status == 400


def test_pair_may_use_both_directions_at_once(alice, bob):
    """Each is master of its own keys and slave of the other's."""
    mine, theirs = alice.get(bob.id), bob.get(alice.id)

    assert alice.fetch(bob.id, *theirs.ids).keys == theirs.keys
    assert bob.fetch(alice.id, *mine.ids).keys == mine.keys
    assert not set(mine.keys.values()) & set(theirs.keys.values())


@pytest.mark.parametrize(
    "body",
    [b"", None, {}, {"key_IDs": []}, {"key_IDs": None}, {"key_IDs": {}}, {"key_IDs": "ID"}, {"key_IDs": ["ID"]},
     {"key_IDs": [{}]}, {"key_IDs": [{"key_ID": None}]}, {"key_IDs": [{"key_ID": 1}]}, {"key_IDs": [{"key_ID": "x"}]},
     {"key_IDs": [{"key_id": "ID"}]}, {"key_ids": [{"key_ID": "ID"}]}, {"key_IDs": [[{"key_ID": "ID"}]]},
     {"key_IDs": [{"key_ID": "{ID}"}]}, {"key_IDs": [{"key_ID": " ID"}]}, b"{", b"[]"],
    ids=str,
)  # fmt: skip
def test_body_of_another_shape_is_400(alice, bob, body):
    """Strings in place of objects, other spellings, no UUIDs, nothing at all: and the key stays."""
    given = alice.get(bob.id)
    written = str(body).replace("'", '"').replace("None", "null").replace('ID}"', given.ids[0] + '}"')
    filled = written.replace('"ID"', f'"{given.ids[0]}"').replace('" ID"', f'" {given.ids[0]}"')

    assert bob.fetch_raw(alice.id, filled if isinstance(body, dict) else body).status == 400
    assert bob.fetch(alice.id, *given.ids).keys == given.keys


def test_same_id_twice_is_not_given_twice(alice, bob):
    """Neither in one spelling nor in two; the key stays."""
    given = alice.get(bob.id)

    assert bob.fetch(alice.id, given.ids[0], given.ids[0]).status == 400
    assert bob.fetch(alice.id, given.ids[0], given.ids[0].upper()).status == 400
    assert bob.fetch(alice.id, *given.ids).keys == given.keys


def test_more_ids_than_may_be_asked_for_are_400(alice, bob):
    """max_key_per_request, and it bounds what one request can cost."""
    assert bob.fetch(alice.id, *(str(uuid.uuid4()) for _ in range(65))).status == 400


def test_extensions_are_ignored(alice, bob):
    """Both are reserved for future use."""
    given = alice.get(bob.id)
    body = {"key_IDs": [{"key_ID": given.ids[0], "key_ID_extension": {"abc_x": 1}}], "key_IDs_extension": {"y": []}}

    assert bob.fetch_raw(alice.id, body).keys == given.keys


@pytest.mark.parametrize(
    "query",
    ["", "key_ID=", "key_id=ID", "key_IDs=ID", "key_ID=ID&key_ID=ID", "key_ID=ID&key_ID_extension=x", "key_ID=x"],
)
def test_get_that_carries_more_or_less_than_one_key_id_is_400(alice, bob, query):
    """All else shall use POST."""
    given = alice.get(bob.id)

    assert bob.fetch_by_query(alice.id, query.replace("ID=ID", f"ID={given.ids[0]}")).status == 400
    assert bob.fetch(alice.id, *given.ids).keys == given.keys


def test_order_of_the_body_is_of_no_account_to_ownership(alice, bob, mallory):
    """A foreign ID is found wherever it stands."""
    foreign, own = alice.get(bob.id), alice.get(mallory.id)

    for ids in (foreign.ids + own.ids, own.ids + foreign.ids):
        assert mallory.fetch_raw(alice.id, key_ids(*ids)).status == 401
