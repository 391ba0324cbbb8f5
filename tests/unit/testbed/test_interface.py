"""The operators' interface: what it refuses, and that its schemas and pages say the same as its code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from documents.checks import Malformed
from testbed.operation.answers import EVENTS
from testbed.operation.interface import REQUESTS, checked, in_page, schemas

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_page_of_the_interface_is_as_the_code_writes_it():
    """Every request with its arguments, what it does, and its answer: `make interface`."""
    page = (DOCS / "operator.md").read_text(encoding="utf-8")

    assert in_page(page) == page
    assert all(f"| `{name}` |" in page for name in REQUESTS)
    assert in_page(page.replace("| `status` |", "| `stratus` |")) == page


def test_schemas_in_the_docs_are_those_of_the_code():
    """`make interface` writes them."""
    assert json.loads((DOCS / "operator.schema.json").read_text(encoding="utf-8")) == schemas()


def test_events_are_described_one_by_one():
    """In the page by name, in the schema with what each may tell: what belongs to another one is refused."""
    page = (DOCS / "operator.md").read_text(encoding="utf-8")
    schema = schemas()["follow"]["event"]
    jsonschema_rs.meta.validate(schema)

    assert all(f"`{name}`" in page for name in EVENTS)
    assert jsonschema_rs.is_valid(schema, {"event": "qc_dark", "time": 1.0, "qc": "a-b"})
    assert not jsonschema_rs.is_valid(schema, {"event": "qc_dark", "time": 1.0, "keys": 5})
    assert not jsonschema_rs.is_valid(schema, {"event": "rain", "time": 1.0})


@pytest.mark.parametrize("name", REQUESTS)
def test_arguments_and_answer_of_every_request_have_a_schema(name):
    """One that JSON Schema itself allows, and that does not allow everything."""
    for schema in (schemas()[name]["arguments"], schemas()[name]["answer"]):
        jsonschema_rs.meta.validate(schema)
        assert not jsonschema_rs.is_valid(schema, "nonsense")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("status", {}), ("status", {"of": "x"}), ("open", {"master": "a", "slave": "b"}), ("open", {"master": "a"}),
        ("open", {"master": "a", "slave": "b", "interval_s": None, "key_size_bits": 256}),
        ("open", {"master": "a", "slave": "b", "interval_s": -1}), ("open", {"master": "", "slave": "b"}),
        ("open", {"master": "a" * 257, "slave": "b"}), ("get_key", {"master": "a", "slave": "b", "number": 129}),
        ("get_key", {"master": "a", "slave": "b", "size": 8}), ("get_key_with_ids", {"master": "a", "slave": "b"}),
        ("get_key_with_ids", {"master": "a", "slave": "b", "key_ids": ["i"]}),
        ("get_key_with_ids", {"master": "a", "slave": "b", "key_ids": "i"}),
        ("set_rate", {"qc": "q", "low": 0, "high": 5}), ("set_rate", {"qc": "q", "low": 0, "high": 1.5}),
        ("set_generation", {"qc": "q", "enabled": 1}), ("set_generation", {"qc": "q", "enabled": True}),
        ("break", {"kind": "node", "where": ["a"]}), ("break", {"kind": "node", "where": None}), ("heal", {}),
        ("change_fibre", {"fibre": "f", "shape": 5}),
    ],
)  # fmt: skip
def test_arguments_are_taken_if_their_schema_allows_them(name: str, arguments: dict[str, Any]):
    """And refused if it does not: who asks may check beforehand."""
    try:
        checked(name, arguments)
        taken = True
    except Malformed:
        taken = False

    assert jsonschema_rs.is_valid(schemas()[name]["arguments"], arguments) == taken


def test_request_with_wrong_arguments_names_the_wrong_one():
    with pytest.raises(ValueError, match="do: expected one of status, names,"):
        checked("fly", {})
    with pytest.raises(ValueError, match="arguments of close: expected only ksid"):
        checked("close", {"ksid": "k", "force": True})
    with pytest.raises(ValueError, match="slave: expected a string: name or ID of an SAE"):
        checked("open", {"master": "a"})
    with pytest.raises(ValueError, match="enabled: expected true or false"):
        checked("set_generation", {"qc": "q", "enabled": 1})


def test_every_request_says_what_it_does():
    for request in REQUESTS.values():
        assert request.meaning.endswith(".")
