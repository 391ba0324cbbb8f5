"""What applications declare to need: it counts if it is admitted, and both ends hear what counts."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest

from tests.support.followed import declare, figures, stumble
from tests.support.waiting import until


@pytest.mark.parametrize("end", ["a", "d"])
def test_application_that_declares_another_qos_gets_it(world, end):
    """At both ends, whichever told of it; its links carry that much more, and what it did not name stays."""
    ksid = world.open("a", "d")["ksid"]
    declare(world, end, ksid, app_qos={"min_bandwidth": 1000, "jitter": 4}, app_priority=2)

    def qos(app: dict[str, Any]) -> Any:
        return app["app_qos"], app.get("app_priority")

    wanted = {"min_bandwidth": 1000, "jitter": 4}, 2
    assert until(lambda: [qos(world.nodes[n].app(ksid)) for n in "ad"] == [wanted] * 2)
    assert until(lambda: figures(world, ksid) == [2000] * 6)
    declare(world, end, ksid, app_qos={"ttl": 60})
    assert until(lambda: [world.nodes[n].app(ksid)["app_qos"].get("ttl") for n in "ad"] == [60] * 2)
    assert figures(world, ksid) == [2000] * 6
    assert world.open_sessions()[ksid]["qos"] == {"key_size_bits": 1000, "interval_s": 1.0}


def test_node_between_declares_nothing(world):
    """Only the ends have a word; nor does anybody of a session that there is not."""
    ksid = world.open("a", "d")["ksid"]
    declare(world, "c", ksid, app_qos={"min_bandwidth": 1000})
    declare(world, "a", str(uuid.uuid4()), app_qos={"min_bandwidth": 1000})
    for name in "ca":
        world.catch_up(name)
    declare(world, "a", ksid, app_priority=1)

    assert until(lambda: world.nodes["a"].app(ksid).get("app_priority") == 1)
    assert world.nodes["a"].app(ksid)["app_qos"] == {"min_bandwidth": 26}


def test_node_that_stumbles_over_a_qos_takes_it_over_later(world):
    """It is told again."""
    ksid = world.open("a", "b")["ksid"]
    node, stumbled = world.nodes["b"], threading.Event()
    node.before_edit = lambda: stumble(node, stumbled)
    try:
        declare(world, "a", ksid, app_priority=9)
        assert until(stumbled.is_set)
    finally:
        node.before_edit = lambda: None
        node.broken = False

    assert until(lambda: [world.nodes[n].app(ksid).get("app_priority") for n in "ab"] == [9] * 2)
