"""User-mode Linux is a package of Debian's for amd64: there it must be, elsewhere there is nothing to run these in."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _where_user_mode_linux_is_packaged() -> None:
    packaged = platform.machine() == "x86_64" and "\nID=debian\n" in f"\n{Path('/etc/os-release').read_text()}"
    if not packaged:
        pytest.skip("user-mode Linux is packaged for Debian on amd64 only")
