"""The delay line between two real network namespaces, with real traffic. Needs root."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scenario.shape import Shape
from testbed.fibres.shapers import DelayLineControl
from testbed.machine.processes import ProcessFailed
from tests.support.waiting import until
from tests.support.wire import Wire

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """The two ends and the line, not started yet."""
    made = Wire(tmp_path)
    yield made
    made.stop()


def test_round_trip_is_the_sum_of_both_directions(wire):
    """Never early; late by scheduling only."""
    wire.shape(delay_ms=20, back={"delay_ms": 40})
    wire.start()

    assert 60 <= wire.rtt_ms() < 80


def test_loss_of_everything_passes_nothing(wire):
    """100 % in one direction is enough."""
    wire.shape(delay_ms=0, loss_percent=100, back={"delay_ms": 0})
    wire.start()

    assert wire.rtt_ms(3) is None


def test_tcp_arrives_unchanged_with_offloads_on(wire):
    """Segments of many kilobytes with checksums still to be made pass through."""
    wire.start()
    offloads = wire.run("x", "ethtool", "-k", "eth0")
    assert "tx-checksumming: on" in offloads
    assert "tcp-segmentation-offload: on" in offloads
    data = os.urandom(8 << 20)

    assert wire.transfer(data) == hashlib.sha256(data).hexdigest()


def test_tcp_is_no_faster_than_the_bandwidth(wire):
    """500 kB at 8 Mbit/s take half a second."""
    wire.shape(delay_ms=1, bandwidth_mbit=8)
    wire.start()
    data = os.urandom(500_000)
    began = time.monotonic()

    assert wire.transfer(data) == hashlib.sha256(data).hexdigest()
    assert time.monotonic() - began >= 0.5


def test_sighup_changes_the_shape_of_a_running_line(wire):
    """And a wrong configuration changes nothing, with a line in the log."""
    wire.start()
    assert until(lambda: wire.rtt_ms() < 60)

    wire.change(delay_ms=30)
    assert wire.rtt_ms() >= 60

    wire.shape(delay_ms=-1)
    wire.process.signal(signal.SIGHUP)
    assert until(lambda: "delay_ms" in wire.process.log.read_text())
    wire.config.write_text('{"lines": []}')
    wire.process.signal(signal.SIGHUP)
    assert until(lambda: "same names" in wire.process.log.read_text())
    assert wire.rtt_ms() >= 60


def test_control_changes_one_line_and_waits_until_it_is_so(wire):
    """Both directions; what the line does not take leaves shape and configuration as they were."""
    wire.start()
    document = json.loads(wire.config.read_text())
    control = DelayLineControl(wire.process, lambda new: wire.config.write_text(json.dumps(new)), document)
    plan = SimpleNamespace(link=SimpleNamespace(name="w"))
    old, new = (Shape(1), Shape(1)), (Shape(20), Shape(40))

    control.apply(plan, before=old, after=new)
    assert wire.rtt_ms() >= 60

    agreed = wire.config.read_text()
    with pytest.raises(ProcessFailed, match=r"keeps the old shape: lines\[0\]\.b_to_a\.delay_ms: expected"):
        control.apply(plan, before=new, after=(Shape(0), Shape(-1)))
    assert wire.config.read_text() == agreed
    assert wire.rtt_ms() >= 60

    wire.process.kill()
    with pytest.raises(ProcessFailed, match="it has ended"):
        control.apply(plan, before=new, after=old)


def test_statistics_are_written_on_sigusr1_and_at_the_end(wire):
    """What passed and what was dropped, each direction on its own; SIGTERM is status 0."""
    wire.shape(delay_ms=0, back={"delay_ms": 0, "loss_percent": 100})
    wire.start()
    wire.run("x", "ip", "neigh", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:02", "dev", "eth0")
    wire.run("y", "ip", "link", "set", "eth0", "address", "02:00:00:00:00:02")
    assert wire.rtt_ms(3) is None

    wire.process.signal(signal.SIGUSR1)
    assert until(wire.stats.exists)
    counts = json.loads(wire.stats.read_text())["w"]
    assert counts["a_to_b"]["frames"] >= 3
    assert counts["a_to_b"]["bytes"] >= 3 * 98
    assert counts["b_to_a"]["frames"] == counts["b_to_a"]["bytes"] == 0
    assert counts["b_to_a"]["dropped"] >= 1

    wire.stats.unlink()
    wire.process.stop()
    assert wire.process.status == 0
    assert json.loads(wire.stats.read_text())["w"]["a_to_b"]["frames"] >= 3


@pytest.mark.parametrize(("cut", "other"), ["xy", "yx"])
def test_end_that_goes_down_takes_the_light_from_the_other(wire, cut, other):
    """As on a fibre; and it comes back, with traffic."""
    wire.start()
    assert until(wire.works)

    wire.set(cut, "down")
    assert until(lambda: not wire.lit(other))

    wire.set(cut, "up")
    assert until(lambda: wire.lit(other) and wire.lit(cut))
    assert until(wire.works)


def test_end_that_is_down_from_the_start_takes_the_light_from_the_other(wire):
    """The line need not have seen it go down."""
    wire.run("d", "ip", "link", "set", "dx", "up")
    wire.set("x", "down")
    wire.start()
    assert until(lambda: not wire.lit("y"))

    wire.set("x", "up")
    assert until(wire.works)


@pytest.mark.parametrize("order", ["xyxy", "xyyx"])
def test_both_ends_down_come_back_in_any_order(wire, order):
    """No order of events leaves the line dark, whether the line sees each of them or several at once."""
    wire.start()
    for seen_one_by_one in (True, False):
        for end, state in zip(order, ("down", "down", "up", "up"), strict=True):
            wire.set(end, state)
            if seen_one_by_one:
                assert until(lambda state=state: state == "up" or not (wire.lit("x") or wire.lit("y")))
        assert until(lambda: wire.lit("x") and wire.lit("y"))
        assert until(wire.works)


def test_line_whose_interface_is_deleted_is_reported(wire):
    """And the process goes on, for the other lines."""
    wire.start()
    wire.run("x", "ip", "link", "del", "eth0")

    assert until(lambda: "line w: interface dx" in wire.process.log.read_text())
    assert wire.process.alive()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "line.json"),
        ('{"lines": 3}', "lines: expected"),
        ('{"lines": [{"name": "w", "a": "dx", "b": "nowhere", "a_to_b": {"delay_ms": 1}, "b_to_a": {"delay_ms": 1}}]}',
         "lines[0].b: expected"),
    ],
)  # fmt: skip
def test_configuration_that_cannot_be_used_is_one_line(wire, document, said):
    """Exit status 2."""
    wire.config.write_text(document)
    done = subprocess.run(wire.command(), capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
