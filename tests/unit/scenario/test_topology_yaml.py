"""What YAML may not say, and that the rest arrives as plain values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenario.topology_description import TopologyError
from scenario.yaml_documents import parse

BOMB = "\n".join(["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 11)])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: a\nnodes: [\n", "line 3: not YAML"),
        ("name: a\n\tb: c\n", "line 2: not YAML"),
        ('{\n\t"name": "a"}', "line 2: not YAML: found character '\\t'"),
        ("name: a\nb: \x07\n", "special characters"),
        ("name: a\nname: b\n", "line 2: not YAML: duplicate key 'name'"),
        ('{"name": "a", "name": "b"}', "line 1: not YAML: duplicate key 'name'"),
        ("name: a\nnodes: [{name: b, name: c}]\n", "line 2: not YAML: duplicate key 'name'"),
        ("a: &x [1]\nb: *x\n", "line 2: not YAML: aliases are not allowed, write out the value of *x"),
        (BOMB, "aliases are not allowed"),
        ("a: 1\n---\nb: 2\n", "line 2: not YAML"),
        ("!!python/object/apply:os.system [true]", "line 1: not YAML: could not determine a constructor"),
        ("? [a]\n: b", "unhashable key"),
        ("name: !!int ''", "not YAML: a value that its tag does not allow"),
        ("name: !!bool maybe", "not YAML: a value that its tag does not allow"),
        ("name: 2001-99-99", "not YAML: month must be in 1..12"),
        ("9" * 5000, "not YAML: Exceeds the limit"),
        ("[" * 1000, "not YAML: nested too deeply"),
    ],
    ids=lambda value: value[:30],
)
def test_yaml_that_is_wrong_is_refused(text, problem):
    """In one line that names the file, the line where PyYAML knows it, and in few words what is wrong there."""
    with pytest.raises(TopologyError) as caught:
        parse(text, "bad.yaml")
    assert str(caught.value).startswith("bad.yaml: ")
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


TOKENS = (
    "name: |a: |- |{|}|[|]|,|\n|  |\t|&x |*x|!!int |!!float |!!set |!!omap |!!binary |? |: |<<: |'|\"|>|%YAML 1.1\n"
)
TOKENS += "|---\n|0x|1:30|.nan|=|~"


@settings(max_examples=60)
@given(st.text(max_size=200) | st.lists(st.sampled_from(TOKENS.split("|")), max_size=30).map("".join))
def test_random_text_never_ends_in_a_traceback(text):
    """Whatever is in a file becomes a value or one line about it."""
    error = ""
    try:
        parse(text, "random")
    except TopologyError as refused:
        error = str(refused)

    assert error.isprintable()
