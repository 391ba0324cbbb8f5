"""Documents of GS QKD 014 as they are read: what is accepted, what is refused and in which words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from documents.checks import Malformed
from etsi.gs014 import KeyRequest, Limits, key_ids, key_request, key_request_from_query, limits
from etsi.gs014_openapi import describe

ID = "2ae1f2c0-5a4b-4c3d-8e2f-000000000001"


@given(st.integers(1, 64), st.integers(8, 1024).map(lambda n: 8 * n))
def test_get_and_post_forms_ask_for_the_same(number, size):
    """Clause 6.2: number and size may come as query parameters."""
    document = key_request({"number": number, "size": size}, Limits())

    assert document == KeyRequest(number, size)
    assert key_request_from_query([("number", str(number)), ("size", str(size))], Limits()) == document


def test_empty_request_asks_for_one_key_of_the_default_size():
    """Clause 6.2: every member has a default."""
    assert key_request({}, Limits(key_size=512)) == KeyRequest(1, 512)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "number": st.none() | st.integers(1, 64),
            "size": st.none() | st.just(512),
            "additional_slave_SAE_IDs": st.none() | st.just([]),
            "extension_mandatory": st.none() | st.lists(st.just({"abc_x": None}), max_size=2),
            "extension_optional": st.none() | st.lists(st.just({"abc_x": 1}), max_size=2),
        },
    )
)
def test_members_that_are_null_count_as_left_out(document):
    """Serialisers write null where a program gave nothing; at every level."""
    left_out = {name: value for name, value in document.items() if value is not None}
    expected = KeyRequest(left_out.get("number", 1), left_out.get("size", 256))

    assert key_request(document, Limits()) == expected


def test_null_members_beside_key_ids_are_left_out():
    """Clause 6.4: key_ID_extension and key_IDs_extension are optional."""
    entry = {"key_ID": ID, "key_ID_extension": None}

    assert key_ids({"key_IDs": [entry], "key_IDs_extension": None}, most=1) == [ID]


@pytest.mark.parametrize("value", [True, 1.0, "1", 0, -1, 65, 10**400, [1]])
def test_number_that_is_none_or_out_of_range_is_refused_by_name(value):
    """JSON true, 1.0 and "1" are no integers."""
    with pytest.raises(Malformed) as error:
        key_request({"number": value}, Limits())
    assert error.value.field == "number"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"size": 100}, "size shall be a multiple of 8"),
        ({"extension_mandatory": [{}, {"abc_x": 1}]}, "not all extension_mandatory parameters are supported"),
    ],
)
def test_refusals_have_the_messages_of_the_standard(document, message):
    """Clause 6.2, word for word; every object of the array counts."""
    with pytest.raises(Malformed, match=f"^{message}$"):
        key_request(document, Limits())


def test_key_ids_are_put_in_lower_case_and_may_not_repeat():
    """A UUID in capitals is the same UUID."""
    assert key_ids({"key_IDs": [{"key_ID": ID.upper()}]}, most=2) == [ID]
    with pytest.raises(Malformed):
        key_ids({"key_IDs": [{"key_ID": ID.upper()}, {"key_ID": ID}]}, most=2)


def refused(document: dict[str, int]) -> str | None:
    """The member for which these limits are refused."""
    try:
        limits(document)
    except Malformed as error:
        return error.field
    return None


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.integers(-1, 1 << 24)
            for name in ("key_size", "min_key_size", "max_key_size", "max_key_per_request", "max_key_count")
        },
    )
)
def test_accepted_limits_fit_together_and_refused_ones_are_named(document):
    """min <= default <= max, and the largest answer fits into a body; a refusal says which member is wrong."""
    if (named := refused(document)) is not None:
        assert named.removeprefix("limits.") in Limits().to_json()
        return
    found = limits(document)
    assert found.min_key_size <= found.key_size <= found.max_key_size
    assert found.key_size % 8 == 0
    assert found.max_key_per_request * found.max_key_size <= 1 << 22
    assert found.to_json() == Limits().to_json() | document


def test_unknown_limit_is_refused_by_name():
    """A slip of the pen must not go unnoticed."""
    with pytest.raises(Malformed, match=r"limits\.max_size"):
        limits({"max_size": 1})


@given(st.integers(1, 64), st.sampled_from([256, 512, 1024]))
def test_openapi_names_the_limits_of_this_kme(number, size):
    """The description is made of the same numbers as the checks."""
    schemas = describe(Limits(key_size=size, max_key_per_request=number))["components"]["schemas"]

    assert schemas["KeyRequest"]["properties"]["number"]["maximum"] == number
    assert schemas["KeyRequest"]["properties"]["size"]["default"] == size
    assert schemas["KeyIDs"]["properties"]["key_IDs"]["maxItems"] == number
    json.dumps(schemas)
