"""What a node tells of its statements to the shared database, of which stories are made."""

from __future__ import annotations

import pytest

from node.failures import DatabaseUnreachable
from node.material.key_events import statement
from node.material.shared_db import Foreign
from telemetry import journal


@pytest.mark.parametrize(
    ("error", "told"), [(DatabaseUnreachable("it is away"), "database_unreachable"), (Foreign(), "failed")]
)
def test_statement_that_came_to_nothing_is_told_by_its_cause(tmp_path, error, told):
    """As the answer names it: a story is for people, and no place for an exception's name."""
    path = tmp_path / "journal.jsonl"
    with pytest.raises(type(error)), statement(journal.Journal(path, "node:a"), "allocate", ksid="x"):
        raise error

    (event,) = journal.read(path)
    assert (event["statement"], event["ksid"], event["error"]) == ("allocate", "x", told)
