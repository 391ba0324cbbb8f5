"""The ciphers between nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from documents.secret import Secret
from node.relaying.ciphers import CCM_TAG_BYTES, CHECK_BYTES, Tampered, ccm_open, ccm_seal, check_value, fits, otp

KEY = Secret(bytes(range(16)))


@given(st.binary(min_size=1, max_size=80), st.data())
def test_otp_undoes_itself_with_the_same_pad_only(data, draw):
    """Another pad gives other bytes."""
    pad = Secret(draw.draw(st.binary(min_size=len(data), max_size=len(data))))

    sealed = otp(Secret(data), pad)

    assert otp(sealed, pad).reveal() == data
    assert (sealed.reveal() == data) == (pad.reveal() == bytes(len(data)))


def test_pad_of_another_length_is_refused():
    """Rather than used twice, or in part."""
    with pytest.raises(ValueError, match="a pad of 3 bytes does not fit 4"):
        otp(Secret(b"abcd"), Secret(b"abc"))


@given(st.binary(max_size=5000), st.text(), st.binary())
def test_ccm_opens_what_it_sealed(data, request, header):
    """With a tag of 16 bytes."""
    sealed = ccm_seal(Secret(data), KEY, request, header)

    assert len(sealed) == len(data) + CCM_TAG_BYTES
    assert ccm_open(sealed, KEY, request, header).reveal() == data


def test_ccm_carries_the_largest_request():
    """64 keys of 8192 bits."""
    data = bytes(64 * 1024)

    assert ccm_open(ccm_seal(Secret(data), KEY, "r", b""), KEY, "r", b"").reveal() == data


@pytest.mark.parametrize(
    "change", [{"request": "r2"}, {"header": b"h2"}, {"key": Secret(bytes(16))}, {"bit": 0}, {"bit": 100}, {"bit": -1}]
)
def test_ccm_notices_any_change(change):
    """Of the message, the header, the request or the key."""
    sealed = bytearray(ccm_seal(Secret(bytes(100)), KEY, "r", b"h").reveal())
    if "bit" in change:
        sealed[change["bit"]] ^= 1

    with pytest.raises(Tampered):
        ccm_open(Secret(sealed), change.get("key", KEY), change.get("request", "r"), change.get("header", b"h"))


@given(st.binary(min_size=1, max_size=80), st.binary(max_size=80), st.data())
def test_check_value_fits_what_it_was_made_of_and_nothing_else(data, header, draw):
    """Another byte in data or header, or a byte that goes over from one to the other: it does not fit."""
    check = check_value(Secret(data), header)
    at = draw.draw(st.integers(0, len(data + header) - 1))
    altered = bytearray(header + data)
    altered[at] ^= draw.draw(st.integers(1, 255))

    assert len(check) == CHECK_BYTES
    assert fits(Secret(data), header, check)
    assert not fits(Secret(altered[len(header) :]), bytes(altered[: len(header)]), check)
    assert not fits(Secret(data[1:]), header + data[:1], check)


def test_check_value_is_another_one_each_time():
    """So that nobody can tell whether two batches hold the same keys."""
    assert check_value(KEY, b"").reveal() != check_value(KEY, b"").reveal()
