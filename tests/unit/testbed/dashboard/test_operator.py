"""What the live view says of what its viewer asked for."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from unittest import mock

import pytest

from testbed.dashboard.operator import Operator
from testbed.errors import UserError
from testbed.operation.desk import NotDone
from testbed.operation.interface import REQUESTS

DASHBOARD = Path(__file__).parents[4] / "testbed" / "dashboard"


@pytest.mark.parametrize(
    ("error", "said"),
    [(NotDone("no answer"), "✕ no answer"), (UserError("no such fibre"), "✕ no such fibre"),
     (KeyError("x"), "✕ this met a bug of ours; the network goes on, the traceback is in the run's log")],
)  # fmt: skip
def test_what_was_not_done_is_said_whatever_the_reason(error, said):
    """And not that it is under way, for ever."""
    tag = mock.Mock()

    def fails() -> None:
        raise error

    assert asyncio.run(Operator(mock.Mock(), tag).do(fails, str)) is None

    assert [call.args[0] for call in tag.say.call_args_list] == ["… under way", said]


def test_page_changes_the_network_by_requests_of_the_operators_interface_alone():
    """It has no way of its own: what its buttons ask for is what `qkd` and the Python API ask for."""
    panels = [path.read_text(encoding="utf-8") for path in (DASHBOARD / "panels").glob("*.py")]
    asked = {name for text in panels for name in re.findall(r'\brequest\(\s*"(\w+)"', text)}

    assert asked == {"set", "set_rate", "set_generation", "open", "close", "break", "heal", "fibres", "change_fibre",
                     "reset_fibre", "story"}  # fmt: skip
    assert asked < REQUESTS.keys()
    assert not [text for text in panels if re.search(r"\bdesk\b|\.faults\.(inject|heal)", text)]
