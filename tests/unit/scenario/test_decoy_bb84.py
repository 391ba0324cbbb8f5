"""Decoy-state BB84: figures of the literature, and laws that hold for every device."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tno.quantum.communication.qkd_key_rate.quantum import standard_detector
from tno.quantum.communication.qkd_key_rate.quantum.bb84 import (
    BB84FullyAsymptoticKeyRateEstimate,
    compute_gain_and_error_rate,
)

from scenario.quantum import decoy_bb84
from scenario.quantum.decoy_bb84 import MOST_QBER, Device

# The experiment of C. Gobby, Z. L. Yuan, A. J. Shields, Applied Physics Letters 84, 3762 (2004), as Ma et al. use it.
GYS = Device(
    pulses_per_s=2e6, signal=0.48, decoy=0.05, signal_share=1.0, sifted=0.5, efficiency=0.045, dark=1.7e-6,
    misalignment=0.033, correction=1.22, db_per_km=0.21,
)  # fmt: skip
devices = st.builds(
    Device, pulses_per_s=st.floats(1e6, 1e9), signal=st.floats(0.2, 0.7), decoy=st.floats(0.01, 0.15),
    signal_share=st.floats(0.5, 1), sifted=st.floats(0.3, 1), efficiency=st.floats(0.02, 0.5),
    dark=st.floats(1e-8, 1e-4), misalignment=st.floats(0, 0.05), correction=st.floats(1, 1.4),
    dead_time_s=st.floats(0, 1e-5),
)  # fmt: skip
losses = st.floats(0, 40)


def test_gys_without_loss_and_with_infinite_decoys_gives_what_the_literature_has():
    """R = 2.555e-3 a pulse."""
    single = decoy_bb84.infinite_decoys(GYS, 0.0)

    assert decoy_bb84.secret_bits(GYS, 0.0, single) == pytest.approx(2.555e-3, rel=2e-4)


@pytest.mark.parametrize(("efficiency", "mbit_s"), [(0.1, 9.8), (0.3, 30.1)])
def test_rate_of_a_fast_device_hangs_on_its_receiver_as_the_page_says(efficiency, mbit_s):
    """At 10^9 pulses a second over 2 dB: why no such device ships without its efficiency."""
    fast = Device(
        pulses_per_s=1e9, signal=0.4, decoy=0.1, signal_share=1.0, sifted=1.0, efficiency=efficiency, dark=1e-5,
        misalignment=0.02, correction=1.16,
    )  # fmt: skip

    assert decoy_bb84.rate_bps(fast, 2.0) / 1e6 == pytest.approx(mbit_s, abs=0.06)


@pytest.mark.parametrize("km", range(10, 101, 10))
def test_rate_and_errors_are_those_that_an_independent_program_finds(km):
    """TNO's, with its own detector, at the intensity that it finds best: within 5 % from 10 to 100 km."""
    loss_db = 0.2 * km
    found, rate = BB84FullyAsymptoticKeyRateEstimate(standard_detector).optimize_rate(attenuation=loss_db)
    (photons,) = found["mu"]
    _, (errors,) = compute_gain_and_error_rate(standard_detector, photons, loss_db)
    # It counts clicks of two detectors, of which each may click in the dark, and corrects errors at Shannon's limit.
    ours = Device(
        pulses_per_s=1e7, signal=photons, decoy=0.05, signal_share=1.0, sifted=1.0, correction=1.0,
        efficiency=standard_detector.efficiency_party, dark=1 - (1 - standard_detector.dark_count_rate) ** 2,
        misalignment=math.sin(standard_detector.polarization_drift) ** 2,
    )  # fmt: skip

    single = decoy_bb84.infinite_decoys(ours, loss_db)
    assert rate > 0
    assert decoy_bb84.secret_bits(ours, loss_db, single) == pytest.approx(rate, rel=0.05)
    assert decoy_bb84.qber(ours, loss_db) == pytest.approx(errors, rel=0.05)


def test_gys_reaches_142_km_with_infinite_decoys():
    """Ma et al., section II: 142.05 km at 0.21 dB a km."""
    km = next(
        km for km in (x / 100 for x in range(13_000, 16_000))
        if not decoy_bb84.secret_bits(GYS, 0.21 * km, decoy_bb84.infinite_decoys(GYS, 0.21 * km))
    )  # fmt: skip

    assert km == pytest.approx(142.05, abs=0.1)


@given(devices, losses)
def test_bounds_of_two_kinds_of_decoys_are_on_the_safe_side(device, loss_db):
    """No more clicks of single photons than there are, no fewer errors."""
    exact, bound = decoy_bb84.infinite_decoys(device, loss_db), decoy_bb84.vacuum_and_weak_decoy(device, loss_db)

    assert bound.click <= exact.click * (1 + 1e-9)
    assert bound.error >= exact.error * (1 - 1e-6) or bound.click == 0


@given(devices, losses, st.floats(0, 10))
def test_rate_falls_and_errors_grow_with_loss(device, loss_db, more_db):
    """A longer fibre is never better. (A dead time may hide it where clicks abound, so there is none here.)"""
    device = replace(device, dead_time_s=0.0)

    assert decoy_bb84.rate_bps(device, loss_db + more_db) <= decoy_bb84.rate_bps(device, loss_db) * (1 + 1e-9)
    assert decoy_bb84.qber(device, loss_db + more_db) >= decoy_bb84.qber(device, loss_db) * (1 - 1e-9)


@given(devices)
def test_reach_is_where_the_key_ends(device):
    """To a thousandth of a dB."""
    reach = decoy_bb84.reach_db(device)

    assert decoy_bb84.rate_bps(device, reach + 0.01) == 0
    assert reach == 0 or decoy_bb84.rate_bps(device, max(0.0, reach - 0.01)) > 0


@given(st.floats(0, 1))
def test_interception_adds_a_quarter_of_its_fraction_to_the_errors(fraction):
    """Of photons that would all have come to the right detector."""
    clean = replace(GYS, misalignment=0.0, dark=0.0)

    assert decoy_bb84.qber(decoy_bb84.intercepted(clean, fraction), 5.0) == pytest.approx(fraction / 4)


def test_above_eleven_percent_there_is_no_key():
    """However much light there is."""
    device = replace(GYS, dark=0.0, correction=1.0)
    for wrong, some in ((MOST_QBER - 0.005, True), (MOST_QBER + 0.001, False)):
        found = replace(device, misalignment=wrong)
        single = replace(decoy_bb84.infinite_decoys(found, 0.0), error=0.0)
        assert (decoy_bb84.secret_bits(found, 0.0, single) > 0) == some


def test_dead_time_bounds_the_clicks():
    """No more than one a dead time, however bright."""
    bright = replace(GYS, pulses_per_s=1e9, dead_time_s=1e-6)
    without = replace(bright, dead_time_s=0.0)
    clicks = 1e9 * decoy_bb84.gain(bright, 0.0, bright.signal)[0]

    ratio = decoy_bb84.rate_bps(bright, 0.0) / decoy_bb84.rate_bps(without, 0.0)
    assert ratio == pytest.approx(1 / (1 + clicks * 1e-6))
    assert math.isclose(decoy_bb84.entropy(0.5), 1.0)
    assert decoy_bb84.entropy(0.0) == decoy_bb84.entropy(1.0) == 0.0
