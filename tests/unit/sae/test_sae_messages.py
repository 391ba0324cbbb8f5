"""The demonstration's messages: readable with the same key, with no other, and not after anybody touched them."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from documents.checks import Malformed
from documents.secret import Secret
from sae.messages import NONCE_BYTES, Sealed, parse, seal, unseal

KEY_ID = "00000000-0000-4000-8000-000000000001"
OTHER_ID = "00000000-0000-4000-8000-000000000002"
NONCE = bytes(NONCE_BYTES)


@given(key=st.binary(min_size=1, max_size=64), words=st.text(max_size=100), nonce=st.binary(min_size=12, max_size=12))
def test_same_key_reads_what_was_sealed_and_sent(key, words, nonce):
    """Keys of every size serve, and the document on the wire carries all that is needed."""
    document = seal(Secret(key), KEY_ID, words, nonce=nonce).to_json()

    assert unseal(Secret(key), parse(document)) == words


@pytest.mark.parametrize(
    "touched",
    [
        lambda s: Sealed(OTHER_ID, s.nonce, s.ciphertext),
        lambda s: Sealed(s.key_id, bytes([1]) * NONCE_BYTES, s.ciphertext),
        lambda s: Sealed(s.key_id, s.nonce, s.ciphertext[:-1] + bytes([s.ciphertext[-1] ^ 1])),
    ],
)
def test_touched_message_is_not_read(touched):
    """Another key ID, nonce or ciphertext, and there are no words."""
    key = Secret(bytes(16))

    assert unseal(key, touched(seal(key, KEY_ID, "words", nonce=NONCE))) is None


def test_another_key_reads_nothing():
    """One bit of difference between the two sides' keys is enough."""
    sealed = seal(Secret(bytes(16)), KEY_ID, "words", nonce=NONCE)

    assert unseal(Secret(bytes(15) + b"\1"), sealed) is None


GOOD = {"key_id": KEY_ID, "nonce": base64.b64encode(NONCE).decode(), "ciphertext": base64.b64encode(bytes(16)).decode()}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("key_id", "x"), ("key_id", None), ("nonce", "AAAA"), ("nonce", "=!"), ("nonce", 3),
        ("ciphertext", "AAAA"), ("ciphertext", "é" * 40), ("ciphertext", None),
    ],
)  # fmt: skip
def test_malformed_message_names_the_member(member, value):
    """Whatever is wrong with a member, the error says which it is."""
    with pytest.raises(Malformed) as caught:
        parse(GOOD | {member: value})

    assert caught.value.field == member
