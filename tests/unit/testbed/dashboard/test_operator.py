"""What the live view says of what its viewer asked for."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest

from testbed.dashboard.operator import Operator
from testbed.errors import UserError
from testbed.operation.desk import NotDone


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
