"""What unit tests of several rooms need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decisions.admission import ADMISSION_POLICIES
from decisions.modes import MODES
from decisions.paths import PATH_POLICIES


@pytest.fixture
def policies_as_they_were() -> Iterator[None]:
    """Tables of policies and modes, into which a test may put its own."""
    tables = (PATH_POLICIES, ADMISSION_POLICIES, MODES)
    before = [dict(table) for table in tables]
    yield
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)
