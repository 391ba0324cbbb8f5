"""The paper's values, by the labels of our rows."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).with_name("paper.yaml")


def value(experiment: str, measure: str, labels: Mapping[str, str]) -> float | None:
    """What the paper reports for these labels; None if it is not known here."""
    wanted = {"measure": measure, **labels}
    for entry in _values().get(experiment, ()):
        if {k: v for k, v in entry.items() if k != "value"} == wanted:
            return float(entry["value"])
    return None


@functools.cache
def _values() -> Mapping[str, list[Mapping[str, Any]]]:
    found: Mapping[str, list[Mapping[str, Any]]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return found
