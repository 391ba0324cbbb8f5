"""Asks a server what its OpenAPI description allows and what it forbids, drawn by schemathesis; checks the answers."""

from __future__ import annotations

from typing import Any

import requests
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mtls.credentials import Credentials

# No answer may be a server error, or of a status, content type or shape that the description does not have.
TRUE = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def ask(
    cases: Any, checks: list[Any], url: str, credentials: Credentials, session: requests.Session, *, examples: int = 40
) -> None:
    """Send what `cases` draws to the server at `url`, and check all answers."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases)
    def asked(case) -> None:
        case.call_and_validate(
            base_url=url,
            session=session,
            verify=str(credentials.ca),
            cert=(str(credentials.certificate), str(credentials.key)),
            checks=checks,
        )

    asked()
