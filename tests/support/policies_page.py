"""What docs/policies.md has one write and type."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")


def write_files(folder: Path) -> list[str]:
    """Write the files of the page into `folder`: their names."""
    found = re.findall(r"Write this into `(\w+\.py)`.*?```python\n(.*?)```", TEXT, re.S)
    for name, text in found:
        (folder / name).write_text(text)
    return [name for name, _ in found]


def commands(start: str) -> list[list[str]]:
    """The commands of the page that begin so, as words behind `run.py`."""
    lines = re.findall(rf"^    {re.escape(start)} (.*)$", TEXT, re.M)
    return [line.split() for line in lines]
