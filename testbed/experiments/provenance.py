"""Where and when something was measured, and of which code: without it nobody can make a figure again."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def provenance() -> dict[str, str]:
    """Date (UTC), commit and machine, as one sees them in a report."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} x {_processor()}, {_memory_gb()} GB, Linux {platform.release()}",
    }


def _commit() -> str:
    """Of the code that runs; with "-dirty" where files differ from it, "unknown" outside a repository."""
    command = ["git", "-c", f"safe.directory={_ROOT}", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        shown = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return shown.stdout.strip() or "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return " ".join(value.split())
    return platform.machine()


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
