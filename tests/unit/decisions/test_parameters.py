"""The one list of parameters: what is within its limits, and who takes it from there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.parameters import FOR_NODES, MOST_RATE, PARAMETERS, Whole, checked, parse_rate, rate
from documents.checks import Malformed

YANG = (Path(__file__).parents[3] / "etsi/qkd-testbed.yang").read_text()
WHOLE = [p for p in PARAMETERS.values() if isinstance(p, Whole)]


@pytest.mark.parametrize("parameter", PARAMETERS.values(), ids=lambda p: p.name)
def test_default_is_within_the_limits(parameter):
    """And is written as it is read."""
    assert parameter.check(parameter.default) == parameter.parse(str(parameter.default)) == parameter.default


@pytest.mark.parametrize("parameter", WHOLE, ids=lambda p: p.name)
@given(value=st.integers())
def test_whole_number_is_taken_within_its_limits_only(parameter, value):
    """As JSON has it, and as text."""
    for read, given_ in ((parameter.check, value), (parameter.parse, str(value))):
        if parameter.low <= value <= parameter.high:
            assert read(given_) == value
        else:
            with pytest.raises(Malformed, match=rf"{parameter.name}: expected an integer from {parameter.low} to"):
                read(given_)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"mode": "magic"}, "mode: expected one of basic, qkp, otp, parallel, paths-2, paths-3, paths-2of3"),
        ({"mode": None}, "mode: expected one of basic, qkp, otp, parallel, paths-2, paths-3, paths-2of3"),
        ({"admission": ["none"]}, "admission: expected one of none, eq1, reserve, calendar, selective"),
        ({"ttl_slots": True}, "ttl_slots: expected an integer from 1 to 86400"),
        ({"keys_ahead": "4"}, "keys_ahead: expected an integer from 0 to 64"),
        ({"speed": 3}, "speed: expected one of mode, ttl_slots, keys_ahead, implicit_idle_s, admission, path_policy, "
         "mechanism"),
    ],
)
def test_what_cannot_be_is_refused_by_name(document, said):
    """With what was expected."""
    with pytest.raises(Malformed) as refused:
        checked(document)

    assert str(refused.value) == said


@given(low=st.integers(0, MOST_RATE), high=st.integers(0, MOST_RATE))
def test_rate_is_low_to_high(low, high):
    """As a document and as text."""
    if low <= high:
        assert parse_rate(f" {low}-{high}\n") == rate({"low": low, "high": high}) == (low, high)
    else:
        with pytest.raises(Malformed, match=f"high: expected an integer from {low} to {MOST_RATE}"):
            rate({"low": low, "high": high})


@pytest.mark.parametrize(
    "text", ["", "-", "33", "33-", "a-b", "33-47-50", "1.5-2", "٣-٤", "-1-2", "9" * 20 + "-1", "47-33"]
)
def test_rate_of_another_form_is_refused_with_an_example(text):
    """On the page and at the command line alike."""
    with pytest.raises(Malformed, match="rate: expected LOW-HIGH in bytes a slot, such as 33-47, got"):
        parse_rate(text)


def test_yang_module_has_the_parameters_of_nodes_within_their_limits():
    """It stands alone, for tools that read YANG."""
    (container,) = re.findall(r"container parameters \{(.*?)\n    \}", YANG, re.DOTALL)
    leaves = dict(re.findall(r"leaf (\w+) \{(.*?)\n      \}", container, re.DOTALL))

    assert list(leaves) == [parameter.name for parameter in FOR_NODES]
    for parameter in FOR_NODES:
        if isinstance(parameter, Whole):
            assert f'range "{parameter.low}..{parameter.high}"' in leaves[parameter.name]
        else:
            assert all(value in leaves[parameter.name] for value in parameter.values)
