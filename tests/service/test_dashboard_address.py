"""Where the live view listens when several runs live side by side."""

from __future__ import annotations

import socket

import pytest

from testbed.dashboard.address import check, listen
from testbed.errors import UserError


def test_unasked_there_is_a_page_whatever_is_taken():
    """The usual port for the first, any other one for the next; both on the loopback alone."""
    with listen(None) as first, listen(None) as second:
        places = {first.getsockname(), second.getsockname()}

    assert len(places) == 2
    assert {host for host, _ in places} == {"127.0.0.1"}


def test_port_that_was_asked_for_and_is_taken_is_an_error():
    """Rather than a page where nobody looks for it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--dashboard {port}: cannot listen on 127.0.0.1:{port} .*choose another"):
            check(port)
    check(port)
