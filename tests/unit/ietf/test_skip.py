"""SKIP's queries are checked, and its documents have what the draft gives them."""

from __future__ import annotations

import pytest

from documents.checks import Malformed
from documents.secret import Secret
from ietf import skip

UUID = "6f7b4578-1503-479f-9e11-d45d4b3da9d0"


def test_key_query_has_a_remote_system_and_may_have_a_size():
    """In bits."""
    assert skip.key_query([("remoteSystemID", "b")], 256) == ("b", 256)
    assert skip.key_query([("size", "128"), ("remoteSystemID", "b")], 256) == ("b", 128)


@pytest.mark.parametrize(
    ("query", "field"),
    [([], "remoteSystemID"), ([("remoteSystemID", "")], "remoteSystemID"),
     ([("remoteSystemID", "b"), ("remoteSystemID", "b")], "query"), ([("remoteSystemID", "b"), ("x", "1")], "query"),
     ([("remoteSystemID", "b"), ("size", "1_0")], "size"), ([("remoteSystemID", "b"), ("size", "")], "size"),
     ([("remoteSystemID", "b"), ("size", "-8")], "size"), ([("remoteSystemID", "b" * 129)], "remoteSystemID")],
    ids=str,
)  # fmt: skip
def test_key_query_that_is_wrong_names_the_field(query, field):
    """And says what was expected."""
    with pytest.raises(Malformed) as caught:
        skip.key_query(query, 256)

    assert caught.value.field == field


@pytest.mark.parametrize("said", ["", "x" * 32, UUID, UUID.replace("-", "") + "0", "{" + UUID[1:] + "}", "٠" * 32])
def test_key_id_is_32_hexadecimal_digits(said):
    """A UUID without hyphens."""
    with pytest.raises(Malformed):
        skip.key_id(said)


def test_key_id_is_read_as_it_was_written():
    """In capitals, too."""
    written = skip.key(UUID, Secret(b"\x01\xff"))

    assert written == {"keyId": UUID.replace("-", ""), "key": "01ff"}
    assert skip.key_id(written["keyId"]) == skip.key_id(written["keyId"].upper()) == UUID


def test_entropy_is_asked_for_in_bits():
    """256 by default."""
    assert skip.entropy_query([]) == 256
    assert skip.entropy_query([("minentropy", "512")]) == 512
    for wrong in ("0", "8193", "x"):
        with pytest.raises(Malformed):
            skip.entropy_query([("minentropy", wrong)])
    assert skip.entropy(b"\x00\x01", 16) == {"randomStr": "0001", "minentropy": 16}


def test_capabilities_name_both_ends():
    """As the draft spells them."""
    assert skip.capabilities("a", ["b", "c"]) == {
        "entropy": True, "key": True, "algorithm": "QKD", "localSystemID": "a", "remoteSystemID": ["b", "c"],
    }  # fmt: skip
