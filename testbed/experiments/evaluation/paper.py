"""What the paper reports, and what its authors' published software takes, by the labels of our rows."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PAPER, SOFTWARE = "paper", "software"
_FILE = Path(__file__).with_name("paper.yaml")
_NO_LABELS = ("value", "source")


def value(experiment: str, measure: str, labels: Mapping[str, str], whose: str = PAPER) -> float | None:
    """What the paper, or its authors' software, has for these labels, in our row's unit; None if it has nothing."""
    wanted = {"measure": measure, **labels}
    for entry in read()[whose].get(experiment, ()):
        if {k: v for k, v in entry.items() if k not in _NO_LABELS} == wanted:
            return float(entry["value"])
    return None


def cite(whose: str = PAPER) -> str:
    """Where those values are from."""
    return str(read()[whose]["cite"])


@functools.cache
def read() -> Mapping[str, Mapping[str, Any]]:
    """The whole file: for `paper` and `software` what they are, and by experiment the values with their labels."""
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return found
