"""`python -m testbed.experiments.qc_rate FILE.svg`: rate and QBER of the devices that ship, against distance."""

from __future__ import annotations

import argparse
import sys

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from scenario.qc_document import shipped
from scenario.quantum import decoy_bb84
from scenario.quantum.decoy_bb84 import Device

_STEP_KM = 0.5
_LINES = ("-", "--", ":", "-.")
_BLACK, _GREY = "#111111", "#777777"


def figure() -> Figure:
    """Above, the rate of the secret key; below, the QBER; both until no key comes any more."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "qc-rate", "font.size": 11}):
        drawn = Figure(figsize=(7.0, 5.6), layout="constrained")
        FigureCanvasSVG(drawn)
        rates, errors = drawn.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for (name, device), line in zip(shipped().items(), _LINES, strict=False):
            lengths = _lengths_km(device)
            losses = [device.db_per_km * km for km in lengths]
            rates.semilogy(
                lengths, [decoy_bb84.rate_bps(device, db) for db in losses], line, color=_BLACK, label=name
            )
            errors.plot(lengths, [100 * decoy_bb84.qber(device, db) for db in losses], line, color=_BLACK, label=name)
        errors.axhline(100 * decoy_bb84.MOST_QBER, color=_GREY, linewidth=1)
        errors.annotate("no key above", (0, 100 * decoy_bb84.MOST_QBER), (4, -14), textcoords="offset points")
        rates.set_ylabel("secret key, bit/s")
        errors.set_ylabel("QBER, %")
        errors.set_ylim(0, 14)
        errors.set_xlabel("length of the fibre, km")
        rates.legend(title="device", frameon=False)
    return drawn


def _lengths_km(device: Device) -> list[float]:
    """From 0 to where its key ends."""
    reach_km = decoy_bb84.reach_db(device) / device.db_per_km
    return [_STEP_KM * i for i in range(int(reach_km / _STEP_KM) + 1)]


def main(arguments: list[str]) -> int:
    """Draw it; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiments.qc_rate",
        description="Draw rate and QBER of the devices that ship against the length of the fibre.",
    )
    parser.add_argument("file", metavar="FILE.svg", help="where the picture goes")
    given = parser.parse_args(arguments)
    try:
        figure().savefig(given.file, format="svg", metadata={"Date": None})
    except OSError as error:
        print(f"qc_rate: {given.file}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
