"""Get key (enc_keys): GS QKD 014, clauses 5.3, 6.2 and 6.3."""

from __future__ import annotations

import base64
import uuid

import pytest

from tests.support.waiting import until


def test_empty_get_gives_one_key_of_the_default_size(alice, slave):
    """Clause 6.2: number 1, size as key_size of the status."""
    answer = alice.get(slave.id)

    assert answer.status == 200
    assert [len(key) * 8 for key in answer.keys.values()] == [alice.status(slave.id)["key_size"]]


@pytest.mark.parametrize("body", [b"", None, {}, {"number": 1}, {"size": 256}], ids=str)
def test_every_member_of_a_post_is_optional(alice, slave, body):
    """An empty body is an empty request."""
    answer = alice.post(slave.id, body)

    assert [len(key) for key in answer.keys.values()] == [32]


@pytest.mark.parametrize(("number", "size"), [(3, 64), (2, 72), (1, 128), (64, 256), (5, 1000), (2, 4096), (3, 8192)])
def test_get_and_post_give_as_many_keys_as_asked_for_each_of_the_size(alice, slave, number, size):
    """Sizes in bits, from the smallest to the largest, and many keys at once."""
    until(lambda: alice.stored(slave.id) >= 2 * number * size // 256 + 2)
    for answer in (alice.get(slave.id, number=number, size=size),
                   alice.post(slave.id, {"number": number, "size": size})):  # fmt: skip
        assert answer.status == 200, answer
        assert [len(key) for key in answer.keys.values()] == [size // 8] * number
        assert len(set(answer.keys.values())) == number


def test_container_has_the_standards_members_and_no_others(alice, slave):
    """Lower-case `keys`, and in each `key_ID` and `key`."""
    answer = alice.get(slave.id, number=2)

    assert set(answer.body) == {"keys"}
    assert [set(entry) for entry in answer.body["keys"]] == [{"key_ID", "key"}] * 2


def test_key_ids_are_uuids_in_lower_case(alice, slave):
    """Version 4, and no two alike."""
    found = [i for _ in range(3) for i in alice.get(slave.id, number=8).ids]

    assert all(str(uuid.UUID(i)) == i and uuid.UUID(i).version == 4 for i in found)
    assert len(set(found)) == 24


def test_keys_are_in_the_standard_base64_alphabet_with_padding(alice, slave):
    """RFC 4648, clause 4: + and /, padded, no line breaks; not base64url. 256 random bits leave one =."""
    texts = [entry["key"] for entry in alice.get(slave.id, number=64).body["keys"]]

    assert all(base64.b64encode(base64.b64decode(text, validate=True)).decode() == text for text in texts)
    assert all(len(text) == 44 and text.endswith("=") for text in texts)
    assert set("".join(texts)) & set("+/")


def test_optional_members_that_are_null_count_as_left_out(alice, slave):
    """As a published client in Rust writes what its user did not give."""
    members = ("number", "size", "additional_slave_SAE_IDs", "extension_mandatory", "extension_optional")
    answer = alice.post(slave.id, dict.fromkeys(members))

    assert answer.status == 200
    assert [len(key) for key in answer.keys.values()] == [32]


@pytest.mark.parametrize("member", ["number", "size"])
@pytest.mark.parametrize(
    "value",
    ["true", "false", "1.0", "1.5", '"1"', "0", "-1", "[]", "{}", "1e2", "9" * 5000],
    ids=lambda v: v[:9],
)
def test_what_is_no_integer_in_range_is_400(alice, bob, member, value):
    """JSON true, 1.5 and "3" are no integers; nothing is clipped, and the field is named."""
    answer = alice.post(bob.id, f'{{"{member}": {value}}}')

    assert answer.status == 400
    if not value.startswith("9"):  # Python's reader of JSON does not make so long an integer
        assert member in answer.message


@pytest.mark.parametrize("member", ["number", "size"])
@pytest.mark.parametrize(
    "value", ["", "1_0", "+8", "-8", "8.0", "1e2", " 8", "0x8", "true", "٨", "9" * 5000], ids=lambda v: v[:9]
)
def test_query_text_that_is_no_integer_is_400(alice, bob, member, value):
    """Decimal digits, and nothing that a lenient reader might take for some."""
    answer = alice.get(bob.id, **{member: value})

    assert answer.status == 400
    assert member in answer.message


@pytest.mark.parametrize("query", [{"number": 65}, {"size": 8200}, {"size": 56}, {"number": 0}, {"size": 0}], ids=str)
def test_more_or_less_than_the_limits_is_400_and_never_clipped(alice, slave, query):
    """In both forms."""
    assert alice.get(slave.id, **query).status == 400
    assert alice.post(slave.id, query).status == 400


@pytest.mark.parametrize("size", [65, 100, 257, 8191])
def test_size_that_is_no_multiple_of_8_has_the_standards_message(alice, bob, size):
    """Clause 6.2, word for word."""
    for answer in (alice.get(bob.id, size=size), alice.post(bob.id, {"size": size})):
        assert (answer.status, answer.message) == (400, "size shall be a multiple of 8")


@pytest.mark.parametrize(
    "extensions",
    [[{"abc_route_type": "direct"}], [{}, {"abc_x": 1}], [{"abc_x": None, "abc_y": [1, {"z": 2}]}]],
    ids=["one", "in the second object", "two in one"],
)
def test_mandatory_extension_has_the_standards_message(alice, bob, extensions):
    """None is supported; all names in all objects count, whatever their values."""
    answer = alice.post(bob.id, {"extension_mandatory": extensions})

    assert (answer.status, answer.message) == (400, "not all extension_mandatory parameters are supported")


@pytest.mark.parametrize(
    "body",
    [{"extension_mandatory": []}, {"extension_mandatory": [{}]}, {"extension_optional": []},
     {"extension_optional": [{"abc_x": 1}, {"abc_y": {"z": [None]}}]}, {"additional_slave_SAE_IDs": []},
     {"abc_unknown": 1, "Number": "x"}],
    ids=str,
)  # fmt: skip
def test_what_may_be_ignored_is_ignored(alice, bob, body):
    """Optional extensions, empty arrays, and members that the standard does not define."""
    assert alice.post(bob.id, body).status == 200


@pytest.mark.parametrize("name", ["extension_mandatory", "extension_optional", "additional_slave_SAE_IDs"])
@pytest.mark.parametrize("value", [{}, {"abc_x": 1}, "abc", 1, True, [[1]]], ids=str)
def test_array_of_another_shape_is_400(alice, bob, name, value):
    """An object in place of an array of objects is a common slip; it is not guessed at."""
    answer = alice.post(bob.id, {name: value})

    assert answer.status == 400
    assert name in answer.message


@pytest.mark.parametrize("others", ["unknown", "carol", "alice", "bob"])
def test_further_slaves_are_refused_whoever_they_are(kmes, alice, bob, others):
    """max_SAE_ID_count is 0, and none of it works by half."""
    answer = alice.post(bob.id, {"additional_slave_SAE_IDs": [kmes.ids.get(others, others)]})

    assert answer.status == 400
    assert "additional_slave_SAE_IDs" in answer.message


@pytest.mark.parametrize(
    "query",
    ["extension_mandatory=%5B%5D", "extension_optional=x", "additional_slave_SAE_IDs=x", "number=1&number=1",
     "size=256&size=256", "Number=1", "x=1", "number"],
)  # fmt: skip
def test_get_that_carries_more_than_number_and_size_is_400(alice, bob, query):
    """All else shall use POST."""
    assert alice.call("GET", f"/api/v1/keys/{bob.id}/enc_keys?{query}").status == 400


@pytest.mark.parametrize(
    "body",
    [b"{", b"null", b"[]", b"1", b'"x"', b"number=1", b"\xff\xfe", '{"number": 1}'.encode("utf-16"),
     b'{"number": NaN}', b'{"number": Infinity}', b'{"x": "\\ud800"}', b'{"x":' * 4000 + b"1" + b"}" * 4000,
     b'{"number": 1} {}', b"[" * 100_000],
    ids=lambda body: repr(body)[:20],
)  # fmt: skip
def test_body_that_is_no_json_object_is_400(alice, bob, body):
    """RFC 8259 in UTF-8."""
    assert alice.post(bob.id, body).status == 400


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "text/plain"],
)
def test_content_type_of_a_request_is_not_asked_for(alice, bob, content_type):
    """What is read is the body; clients disagree about what to call it."""
    assert alice.post(bob.id, {"number": 2}, {"Content-Type": content_type}).ids


def test_byte_order_mark_before_a_body_is_ignored(alice, bob):
    """Of one, as libraries on Windows send it."""
    assert len(alice.post(bob.id, '{"number": 2}'.encode("utf-8-sig")).ids) == 2
    assert alice.post(bob.id, b"\xef\xbb\xbf" * 2 + b"{}").status == 400


def test_get_may_have_a_content_type(alice, bob):
    """Some clients send one with every request."""
    headers = {"Content-Type": "application/json", "Accept": "*/*"}

    assert alice.call("GET", f"/api/v1/keys/{bob.id}/enc_keys", None, headers).status == 200


def test_body_may_come_in_chunks(alice, bob):
    """Without a length that is known from the start."""
    with_chunks = alice.dial()
    with_chunks.request("POST", f"/api/v1/keys/{bob.id}/enc_keys", iter([b'{"num', b'ber": 3}']), encode_chunked=True,
                        headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    response = with_chunks.getresponse()

    assert response.status == 200
    assert response.read().count(b"key_ID") == 3
    with_chunks.close()


def test_more_than_is_stored_is_503_and_takes_nothing(still, alice, slave):
    """All or nothing: what is there can still be had afterwards."""
    alice.drain(slave.id, leave=2000)
    before = alice.stored(slave.id)

    short = alice.post(slave.id, {"number": 64, "size": 8192})

    assert short.status == 503
    assert alice.stored(slave.id) == before
    assert alice.get(slave.id, number=min(64, before)).status == 200


@pytest.mark.parametrize("slave_id", ["nobody", "00000000-0000-4000-8000-00000000dead"])
def test_unknown_slave_is_400(alice, slave_id):
    """In both forms."""
    assert alice.get(slave_id).status == 400
    assert alice.post(slave_id, {}).status == 400


def test_slave_that_is_the_caller_or_at_the_same_site_is_400(alice, adam):
    """Nobody needs QKD to reach them."""
    assert alice.get(alice.id).status == 400
    assert alice.get(adam.id).status == 400


def test_no_key_is_given_twice(alice, adam, slave):
    """Neither to one master nor to two of them at one KME."""
    found = [k for _ in range(4) for sae in (alice, adam) for k in sae.get(slave.id, number=16).keys.values()]

    assert len(set(found)) == 128
