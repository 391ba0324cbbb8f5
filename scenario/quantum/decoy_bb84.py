"""Decoy-state BB84 over a fibre: how much key it gives, and with how many errors. PURE.

After X. Ma, B. Qi, Y. Zhao, H.-K. Lo, "Practical decoy state for quantum key distribution", Physical Review A 72,
012326 (2005); equations are numbered as there. Losses are in dB, rates in bit/s, times in seconds.

Theory of operation. A laser sends pulses of `signal` photons in the mean. Fibre and receiver let a part `eta`
of the photons through, so a detector clicks with probability Q (the gain); it also clicks in the dark, with probability
Y0. A part E of the clicks is wrong (the QBER): half of the dark ones, and `misalignment` of the others. Only pulses of
one photon carry a secret, for of any other one an eavesdropper may keep a photon. How many clicks came of one photon
(the yield Y1), and how many of these are wrong (e1), cannot be seen. So some pulses are weaker (decoys, `decoy` photons
in the mean) and some are empty: what these give bounds Y1 from below and e1 from above. What is left when errors are
corrected and the eavesdropper's share is taken off is the key (equation 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_DARK_ERROR = 0.5  # e0: a dark click is right or wrong by chance
# Where 1 - 2 H2(QBER) is 0: what error correction gives away and what an eavesdropper may know are the whole key.
MOST_QBER = 0.11


@dataclass(frozen=True, slots=True)
class Device:
    """A transmitter and its receiver.

    `signal`, `decoy`: mean photons of a pulse. `signal_share`: the part of all pulses that are signals. `sifted`: the
    part of the clicks in which both ends have used the basis of the key. `efficiency`: the part of the photons at the
    receiver that would be counted; `dark`: the probability of a dark click, in one pulse. `misalignment`: the part of
    photons that come to the wrong detector. `correction`: bits spent on error correction, over Shannon's limit.
    `dead_time_s`: how long a detector is blind after a click. `db_per_km`: what a kilometre of fibre takes.
    """

    pulses_per_s: float
    signal: float
    decoy: float
    signal_share: float
    sifted: float
    efficiency: float
    dark: float
    misalignment: float
    correction: float
    dead_time_s: float = 0.0
    db_per_km: float = 0.2


@dataclass(frozen=True, slots=True)
class Yield:
    """What came of single photons: the probability of a click (Y1), and that of an error in it (e1)."""

    click: float
    error: float


def entropy(p: float) -> float:
    """Shannon's binary entropy H2, in bits."""
    return 0.0 if p <= 0 or p >= 1 else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def gain(device: Device, loss_db: float, photons: float) -> tuple[float, float]:
    """The probability that a pulse of so many photons in the mean gives a click, and that the click is wrong.

    Equations 8 and 9: Q = Y0 + 1 - exp(-eta mu), E Q = e0 Y0 + e_d (1 - exp(-eta mu)).
    """
    light = -math.expm1(-_eta(device, loss_db) * photons)
    clicks = device.dark + light
    return clicks, (_DARK_ERROR * device.dark + device.misalignment * light) / clicks if clicks else 0.0


def infinite_decoys(device: Device, loss_db: float) -> Yield:
    """What single photons give, known exactly: as if there were decoys of all intensities (section II)."""
    light = _eta(device, loss_db)
    click = device.dark + light - device.dark * light
    return Yield(click, (_DARK_ERROR * device.dark + device.misalignment * light) / click if click else _DARK_ERROR)


def vacuum_and_weak_decoy(device: Device, loss_db: float) -> Yield:
    """Bounds on what single photons give, of empty pulses and of one kind of decoys (equations 34 and 37)."""
    mu, nu = device.signal, device.decoy
    (q_mu, _), (q_nu, e_nu) = gain(device, loss_db, mu), gain(device, loss_db, nu)
    click = (
        mu / (mu * nu - nu**2)
        * (q_nu * math.exp(nu) - q_mu * math.exp(mu) * nu**2 / mu**2 - (mu**2 - nu**2) / mu**2 * device.dark)
    )  # fmt: skip
    if click <= 0:
        return Yield(0.0, _DARK_ERROR)
    error = (e_nu * q_nu * math.exp(nu) - _DARK_ERROR * device.dark) / (click * nu)
    return Yield(click, min(max(error, 0.0), _DARK_ERROR))


def secret_bits(device: Device, loss_db: float, single: Yield) -> float:
    """Secret bits of a signal pulse, at least (equation 1); 0 if there are none.

    R = q (-Q_mu f H2(E_mu) + Q_1 (1 - H2(e_1))), where Q_1 = Y_1 mu exp(-mu).
    """
    clicks, qber = gain(device, loss_db, device.signal)
    if qber > MOST_QBER:
        return 0.0
    of_one = single.click * device.signal * math.exp(-device.signal)
    left = of_one * (1 - entropy(single.error)) - clicks * device.correction * entropy(qber)
    return max(0.0, device.sifted * left)


def rate_bps(device: Device, loss_db: float) -> float:
    """The rate of the secret key, bit/s.

    After each click the detector is blind for its dead time, so of n clicks a second n / (1 + n t) are counted.
    """
    clicks_per_s = device.pulses_per_s * gain(device, loss_db, device.signal)[0]
    counted = 1 / (1 + clicks_per_s * device.dead_time_s)
    single = vacuum_and_weak_decoy(device, loss_db)
    return device.pulses_per_s * device.signal_share * secret_bits(device, loss_db, single) * counted


def qber(device: Device, loss_db: float) -> float:
    """The quantum bit error rate of the signals, 0 to 0.5."""
    return gain(device, loss_db, device.signal)[1]


def reach_db(device: Device) -> float:
    """The loss up to which there is a key, dB, to a thousandth; 0 if there is none at all."""
    low, high = 0.0, 100.0
    if not rate_bps(device, low):
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if rate_bps(device, middle) else (low, middle)
    return low


def intercepted(device: Device, fraction: float) -> Device:
    """The device as its two ends see it while somebody intercepts that part of the pulses, and sends them again.

    In half of the cases he measures in the wrong basis; of the photons that he then sends, half come to the wrong
    detector. So a quarter of what he intercepts is wrong that was right before, and a quarter is right that was wrong.
    """
    wrong = device.misalignment
    return replace(device, misalignment=wrong + fraction * (0.25 - 0.5 * wrong))


def _eta(device: Device, loss_db: float) -> float:
    """The probability that a photon of a pulse is counted (equations 2 to 4)."""
    return device.efficiency * 10 ** (-loss_db / 10)
