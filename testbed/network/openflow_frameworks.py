"""The OpenFlow frameworks that the controller can run on, and the Python that has each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from testbed.errors import UserError

_ROOT = Path(__file__).resolve().parents[2]
_OS_KEN, _RYU = "os-ken", "ryu"
FRAMEWORKS = (_OS_KEN, _RYU)  # the first one is in the environment of everything else


def python_for(framework: str) -> str:
    """The Python to run the controller with. Ryu's environment is set up if it is missing; UserError if that fails."""
    if framework == _OS_KEN:
        return sys.executable
    if subprocess.call([_ROOT / "vagrant" / "provision.sh", _RYU]) != 0:
        raise UserError("--framework ryu: its Python environment cannot be set up; the lines above say why")
    return str(_ROOT / ".venv-ryu" / "bin" / "python")
