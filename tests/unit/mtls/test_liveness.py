"""Which round trip is believed, by the figures that a kernel keeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtls.liveness import LONGEST_ROUND_TRIP_S, believed_s

QUICK_US = st.integers(1, 90_000)
MINUTE_US = 60_000_000


class Kernel:
    """Figures of a connection as Linux has them (RFC 6298, and the shortest one of five minutes)."""

    def __init__(self, first_us: int) -> None:
        self.smoothed, self.deviation, self.shortest = float(first_us), first_us / 2, first_us

    def measure(self, us: int) -> float:
        """One more round trip; what is believed then, in seconds."""
        error = us - self.smoothed
        beyond = abs(error) - self.deviation
        # A shorter one makes the deviation grow only slowly (tcp_input.c, tcp_rtt_estimator).
        self.deviation += beyond / 32 if error < 0 < beyond else beyond / 4
        self.smoothed += error / 8
        self.shortest = min(self.shortest, us)
        return self.believed()

    def believed(self) -> float:
        """In seconds."""
        return believed_s(int(self.smoothed), int(self.deviation), self.shortest)


@given(QUICK_US, st.integers(1, 10), st.integers(100_000, MINUTE_US), st.integers(0, 40))
def test_single_packet_that_was_under_way_for_long_is_not_believed(quick, before, late, after):
    """Now or as long as its traces last."""
    kernel = Kernel(quick)
    for _ in range(before):
        kernel.measure(quick)
    assert kernel.measure(late) == 0
    assert {kernel.measure(quick) for _ in range(after)} <= {0}


@given(QUICK_US, st.integers(100_000, MINUTE_US), st.integers(1, 40))
def test_first_packet_that_was_under_way_for_long_is_not_believed_after_the_second(quick, late, after):
    """As when the first greeting of a connection was lost."""
    kernel = Kernel(late)
    assert {kernel.measure(quick) for _ in range(after)} == {0}


@given(QUICK_US, st.integers(200_000, 2_500_000))
def test_wire_that_has_become_long_is_believed_after_some_dozens_of_packets(quick, slow):
    """Whatever was shorter before; and it is never believed to be longer than it is."""
    kernel = Kernel(quick)
    believed = [kernel.measure(slow) for _ in range(60)]

    assert 0.9 * slow / 1e6 < believed[-1] <= slow / 1e6
    assert max(believed) <= slow / 1e6


def test_new_connection_tells_at_once_and_nothing_is_believed_to_be_longer_than_may_be():
    """A hostile kernel confirms when it likes."""
    assert Kernel(600_000).believed() == 0.6
    assert Kernel(MINUTE_US).believed() == LONGEST_ROUND_TRIP_S
    assert believed_s(0, 0, 2**32 - 1) == 0
