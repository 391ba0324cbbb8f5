"""The OpenAPI description that the KME serves is true: schemathesis asks what it allows and what it forbids.

No answer may be a server error, or of a status, content type or shape that the description does not have.
"""

from __future__ import annotations

import pytest
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.support import described
from tests.support.described import TRUE
from tests.support.waiting import until

from .conftest import BYTES_PER_SLOT

OPERATIONS = [
    ("/api/v1/keys/{slave_SAE_ID}/status", "GET"),
    ("/api/v1/keys/{slave_SAE_ID}/enc_keys", "GET"),
    ("/api/v1/keys/{slave_SAE_ID}/enc_keys", "POST"),
    ("/api/v1/keys/{master_SAE_ID}/dec_keys", "GET"),
    ("/api/v1/keys/{master_SAE_ID}/dec_keys", "POST"),
]
NAMES = [f"{method} {path.rpartition('/')[2]}" for path, method in OPERATIONS]


@pytest.fixture(scope="module", autouse=True)
def _plenty(kmes):
    """No lack of key material: 503 would be an honest answer, and is another test's business."""
    alice, bob, carol = (kmes.saes[name] for name in ("alice", "bob", "carol"))
    kmes.set_rate(4 * BYTES_PER_SLOT)
    until(lambda: alice.stored(bob.id) >= 40_000)
    yield
    kmes.set_rate(BYTES_PER_SLOT)
    alice.drain(bob.id, leave=1000)
    bob.drain(carol.id, leave=1000)


@pytest.fixture(scope="module")
def schema(kmes):
    """The description, as alice gets it."""
    return schemathesis.openapi.from_dict(kmes.saes["alice"].call("GET", "/api/v1/openapi.json").body)


@pytest.fixture
def operation(request, schema):
    """The operation of that path and method."""
    path, method = request.param
    return schema[path][method]


@pytest.fixture
def session():
    """Keeps its connection."""
    with requests.Session() as session:
        yield session


def ask(cases, checks, session, alice) -> None:
    """Send what `cases` draws to alice's KME, and check all answers."""
    described.ask(cases, checks, f"https://{alice.address}", alice.credentials, session)


def integers(case):
    """Number and size of a key request in its POST form."""
    return [case.body.get(name) for name in ("number", "size")] if isinstance(case.body, dict) else []


def test_description_has_these_operations(schema):
    """So that the tests below leave none out."""
    assert {(o.ok().path, o.ok().method.upper()) for o in schema.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES, indirect=True)
def test_valid_requests_are_answered_as_described(operation, session, alice):
    """For SAE IDs of every kind."""
    ask(operation.as_strategy(), TRUE, session, alice)


@pytest.mark.parametrize("operation", OPERATIONS[1:], ids=NAMES[1:], indirect=True)
def test_invalid_requests_are_answered_as_described(operation, session, alice):
    """For SAE IDs of every kind. No request for a status is invalid."""
    ask(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), TRUE, session, alice)


@pytest.mark.parametrize("operation", OPERATIONS[1:], ids=NAMES[1:], indirect=True)
def test_what_the_description_forbids_is_refused(operation, session, alice, bob):
    """Of an SAE that is there, so that the ID is not what it is refused for."""
    cases = operation.as_strategy(
        generation_mode=GenerationMode.NEGATIVE, path_parameters={operation.path_parameters[0].name: bob.id}
    )

    ask(cases, [*TRUE, negative_data_rejection], session, alice)


@pytest.mark.parametrize("operation", OPERATIONS[:3], ids=NAMES[:3], indirect=True)
def test_what_the_description_allows_is_accepted(operation, session, alice, bob):
    """Key IDs out of the air are not, of course: they are not found. Nor 8.0, which JSON Schema calls an integer."""
    cases = operation.as_strategy(path_parameters={"slave_SAE_ID": bob.id})
    cases = cases.filter(lambda case: not any(isinstance(v, float) for v in integers(case)))

    ask(cases, [*TRUE, positive_data_acceptance], session, alice)
