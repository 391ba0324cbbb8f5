"""Get status: GS QKD 014, clauses 5.2 and 6.1."""

from __future__ import annotations

import pytest

MEMBERS = {
    "source_KME_ID": str, "target_KME_ID": str, "master_SAE_ID": str, "slave_SAE_ID": str, "key_size": int,
    "stored_key_count": int, "max_key_count": int, "max_key_per_request": int, "max_key_size": int,
    "min_key_size": int, "max_SAE_ID_count": int,
}  # fmt: skip


def test_status_has_the_standards_members_and_no_others(alice, slave):
    """All eleven, each of its type; what we have to say beyond them has no place here."""
    status = alice.status(slave.id)

    assert {name: type(value) for name, value in status.items()} == MEMBERS


def test_status_names_both_kmes_and_both_saes(alice, carol):
    """The KME that answers, the one that serves the slave, the caller, and the SAE of the URL."""
    status = alice.status(carol.id)

    assert [status[m] for m in ("source_KME_ID", "target_KME_ID")] == ["a", "c"]
    assert [status[m] for m in ("master_SAE_ID", "slave_SAE_ID")] == [alice.id, carol.id]


def test_any_sae_may_be_master_at_its_own_kme(bob, alice):
    """Master is a role for a key, not a kind of SAE."""
    status = bob.status(alice.id)

    assert [status[m] for m in ("source_KME_ID", "master_SAE_ID")] == ["b", bob.id]


def test_limits_are_in_bits_and_in_order(alice, slave):
    """1 to 64 keys of 64 to 8192 bits, unless the topology says otherwise; the default lies between."""
    status = alice.status(slave.id)

    assert (status["min_key_size"], status["max_key_size"], status["max_key_per_request"]) == (64, 8192, 64)
    assert status["min_key_size"] <= status["key_size"] <= status["max_key_size"]
    assert 0 <= status["stored_key_count"] <= status["max_key_count"]


def test_multicast_is_said_not_to_be_supported(alice, slave):
    """max_SAE_ID_count 0, and enc_keys keeps to it."""
    assert alice.status(slave.id)["max_SAE_ID_count"] == 0


@pytest.fixture(params=["basic", "qkp", "otp"])
def mode(request, kmes):
    """Every mode in turn, and the first one again at the end."""
    kmes.set(mode=request.param)
    yield request.param
    kmes.set(mode="basic")


def test_stored_key_count_drops_by_what_was_taken(mode, still, alice, slave):
    """Keys of the default size. In QKP several keys of one request may share what each is counted with alone."""
    before = alice.stored(slave.id)

    for number in (1, 1, 1, 7):
        assert alice.get(slave.id, number=number).status == 200
        drop = before - alice.stored(slave.id)
        assert drop == number or (mode == "qkp" and number > 1 and 0 <= drop < number)
        before -= drop


def test_stored_key_count_can_all_be_had_and_no_key_more(mode, still, alice, slave):
    """What it counts is what this pair could really get now."""
    alice.drain(slave.id, leave=20)
    last = alice.stored(slave.id)

    for _ in range(last):
        assert alice.get(slave.id).status == 200

    assert last > 0
    assert alice.stored(slave.id) == 0
    assert alice.get(slave.id).status == 503


def test_stored_key_count_is_that_of_the_whole_path(still, alice, bob, carol):
    """Keys from b to c use up the second link; those from a to c have less, those from a to b do not."""
    before, other = alice.stored(carol.id), alice.stored(bob.id)
    bob.drain(carol.id, leave=19)

    assert alice.stored(carol.id) <= 19 < before
    assert alice.stored(bob.id) == other


def test_fetching_keys_leaves_the_count_alone(still, alice, slave):
    """The slave fetches keys that were taken when the master got them."""
    given = alice.get(slave.id, number=3)
    before = alice.stored(slave.id)

    assert slave.fetch(alice.id, *given.ids).status == 200
    assert alice.stored(slave.id) == before


@pytest.mark.parametrize(
    "body",
    [{"number": 65}, {"size": 8200}, {"size": 100}, {"extension_mandatory": [{"abc_x": 1}]},
     {"additional_slave_SAE_IDs": ["x"]}, b"{", {"number": 64, "size": 8192}],
    ids=lambda body: str(body)[:40],
)  # fmt: skip
def test_refused_request_leaves_the_count_as_it_was(still, alice, slave, body):
    """Bad requests, and one for more than there is."""
    alice.drain(slave.id, leave=2000)
    before = alice.stored(slave.id)

    assert alice.post(slave.id, body).status in (400, 503)

    assert alice.stored(slave.id) == before


@pytest.mark.parametrize(
    "slave_id",
    [
        "nobody", "00000000-0000-4000-8000-00000000dead", "a%2Fb", "%2Fa%2F", "a%0Ab", "%00", "%C3%A9", "%ff", "a%20b",
        "status",
    ],
)  # fmt: skip
def test_unknown_slave_is_400(alice, slave_id):
    """404 is not in the standard's tables."""
    answer = alice.call("GET", f"/api/v1/keys/{slave_id}/status")

    assert answer.status == 400
    assert "slave_SAE_ID" in answer.message


def test_slave_that_is_the_caller_is_400(alice):
    """Nobody shares keys with himself."""
    assert alice.call("GET", f"/api/v1/keys/{alice.id}/status").status == 400


def test_slave_of_the_callers_own_site_is_400(alice, adam):
    """No QKD lies between SAEs of one KME."""
    assert alice.call("GET", f"/api/v1/keys/{adam.id}/status").status == 400


def test_sae_id_may_be_percent_encoded(alice, bob):
    """Clause 5.1: IDs in the path are URL-encoded; here with more zeal than is needed."""
    encoded = "".join(f"%{ord(c):02X}" for c in bob.id)

    assert alice.status(encoded)["slave_SAE_ID"] == bob.id


def test_sae_id_is_case_sensitive(alice, bob):
    """Its format is out of the standard's scope, so it is compared letter by letter."""
    assert alice.call("GET", f"/api/v1/keys/{bob.id.upper()}/status").status == 400
