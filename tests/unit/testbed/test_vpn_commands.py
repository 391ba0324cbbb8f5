"""What one types behind `qkd vpn`, and which request comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.errors import UserError
from testbed.operation import words

END = {"node": "a", "peer": "b", "from": "172.30.0.1", "to": "172.30.0.2", "kind": "ipsec", "every_s": 2.0}


def obey(line: str, answer: Any = END) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """What is printed, and what was asked for."""
    asked = []

    def do(name: str, /, **arguments: Any) -> Any:
        asked.append((name, arguments))
        return answer

    return words.obey(line.split(), do), asked


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("vpn a b", {}),
        ("vpn a b --ipsec", {"kind": "ipsec"}),
        ("vpn a b --every 2.5 --wireguard --hold", {"kind": "wireguard", "every_s": 2.5, "policy": "hold"}),
    ],
)
def test_tunnel_is_asked_for_as_it_is_typed(line, wanted):
    said, asked = obey(line)

    assert asked == [("open_tunnel", {"a": "a", "b": "b", **wanted})]
    assert "172.30.0.2" in said


@pytest.mark.parametrize("line", ["vpn a", "vpn a b c", "vpn a b --every", "vpn a b --every soon", "vpn a b off now"])
def test_what_means_nothing_is_told_with_what_was_expected(line):
    with pytest.raises(UserError, match="expected"):
        obey(line)


def test_ends_are_listed_with_the_age_of_their_keys():
    up = {**END, "state": "up", "key_id": "42", "since": 0.0001, "keys": 7, "received_bytes": 1, "sent_bytes": 2}
    said, _ = obey("vpn", [up, {"node": "b", "peer": "a", "state": "gone", "problem": "it does not answer"}])

    assert "a to b  ipsec  up" in said
    assert "it does not answer" in said
