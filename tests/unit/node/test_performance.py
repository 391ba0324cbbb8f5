"""How QCs and applications fare: rates over the last seconds, consumption by period, and what is worth telling."""

from __future__ import annotations

import pytest

from etsi import gs015
from node.material.key_stream import Held
from node.tree.operational_state import QcState
from node.tree.performance import Performance, Watch


class Clock:
    """Seconds, as the test wants them."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        """Now."""
        return self.time


@pytest.fixture
def clock() -> Clock:
    """At 1000 s."""
    return Clock()


@pytest.fixture
def performance(clock: Clock) -> Performance:
    """Of a node with one QC."""
    return Performance(lambda: [Held("q", 0, 0, 9, 700, 1000, 200, 100)], now=clock, wall=clock)


def test_rate_is_the_mean_of_the_last_seconds(performance, clock):
    """40 bytes a second are 320 bit/s; what is older than the window does not count."""
    for _ in range(5):
        performance.block("q", 1000, 2.5)
        clock.time += 1
    for _ in range(30):
        performance.block("q", 40, 1.5)
        clock.time += 1

    state = performance.state(15).qcs["q"]

    assert state.rate_bps == pytest.approx(320)
    assert (state.qber_percent, state.alive, state.slot, state.stored) == (1.5, True, 9, 700)


def test_rate_is_nothing_when_blocks_are_empty_or_do_not_come(performance, clock):
    """An empty block says that the QC is there; silence, that it is not."""
    for n_bytes in (40, 40, 0):
        performance.block("q", n_bytes, None)
        clock.time += 1
    assert (performance.state(15).qcs["q"].rate_bps, performance.state(15).qcs["q"].alive) == (0, True)

    clock.time += 10
    assert performance.state(15).qcs["q"].alive is False


def test_qc_that_brings_blocks_generates_between_them_at_its_mean_rate(performance, clock):
    """From its first block on; where the TTL is too short for it, for half of that."""
    seen, short = [], []
    for slot in range(150):
        performance.block("q", 3000 if slot % 30 == 9 else 0, None)
        clock.time += 1
        seen.append(performance.state(60).qcs["q"])
        short.append(performance.state(20).qcs["q"].generates)

    assert all(state.generates for state in seen[9:])
    assert seen[129].rate_bps == pytest.approx(8 * 3000 / 30)
    assert 8 * 4 * 3000 / 150 <= seen[-1].rate_bps <= 800
    assert short[39:69] == [True] * 10 + [False] * 20


def test_qc_that_was_silent_for_long_is_passive_soon_again(performance, clock):
    """What it did before an outage does not count after the next blocks."""
    for n_bytes in [40] * 5 + [0] * 100 + [40] * 5 + [0]:
        performance.block("q", n_bytes, None)
        clock.time += 1

    assert performance.state(60).qcs["q"].generates is False


def test_node_that_begins_anew_takes_a_qc_with_stock_for_one_that_generates(performance, clock):
    """For half of the TTL: its device may be between two blocks."""
    seen = []
    for _ in range(31):
        performance.block("q", 0, None)
        seen.append(performance.state(60).qcs["q"].generates)

    assert seen == [True] * 29 + [False] * 2


def test_consumption_is_counted_by_period(performance, clock):
    """Periods without any are left out; the one that is not over is shown as far as it goes."""
    performance.app_made("app")
    performance.consumed("app", 128)
    clock.time += 11
    performance.consumed("app", 256)
    clock.time += 25
    performance.consumed("app", 64)
    clock.time += 1

    state = performance.state(15).apps["app"]

    assert [bits for _, _, bits in state.periods] == [128, 256, 64]
    assert all(start < end for start, end, _ in state.periods)
    assert state.created == 1000.0
    performance.app_gone("app")
    performance.consumed("app", 1)
    assert performance.state(15).apps == {}


@pytest.mark.parametrize(
    ("state", "enabled", "status"),
    [
        (QcState(generated=1, stored=1, alive=True, generates=True), True, gs015.ACTIVE),
        (QcState(generated=1, stored=0, alive=True, generates=True), True, gs015.ACTIVE),
        (QcState(generated=1, stored=1, alive=True, generates=True), False, gs015.PASSIVE),
        (QcState(generated=1, stored=1, alive=True), True, gs015.PASSIVE),
        (QcState(generated=1, stored=1, alive=False), True, gs015.PASSIVE),
        (QcState(generated=1, stored=0, alive=True), True, gs015.OFF),
        (QcState(), True, gs015.PENDING),
        (QcState(), False, gs015.OFF),
    ],
)
def test_status_says_whether_keys_are_made_and_left(state, enabled, status):
    """The standard's four."""
    assert state.status(enabled=enabled) == status


def link(status: str = gs015.ACTIVE, skr: int = 1000, demand: int = 0) -> dict[str, object]:
    """A link's state."""
    return {"qkdl_status": status, "qkdl_performance": {"skr": skr, "eskr": skr, "expected_consumption": demand}}


def test_only_what_changes_is_worth_telling():
    """Status at once, the rate by a fifth of what was told last, overload when it begins."""
    watch = Watch()
    told = [
        watch.changes({"a": state})
        for state in (link(), link(), link(skr=1150), link(skr=1250), link(gs015.PASSIVE, skr=1250),
                      link(demand=2000), link(demand=2000), link(demand=1), link(demand=2000))
    ]  # fmt: skip

    assert told == [
        [], [], [], [("performance", "a")], [("status", "a")],
        [("status", "a"), ("overloaded", "a")], [], [], [("overloaded", "a")],
    ]  # fmt: skip
    assert watch.changes({}) == []
    assert watch.changes({"a": link(gs015.OFF)}) == []
