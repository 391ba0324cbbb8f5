"""Programs that a run needs, looked for before anything is built, and the environment in which they run.

The controller can run on either of two OpenFlow frameworks, each in a Python environment of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import UserError

# program, Debian package
_NEEDED = (
    ("mnexec", "mininet"),
    ("ovs-vsctl", "openvswitch-switch"),
    ("ovs-vswitchd", "openvswitch-switch"),
    ("ovsdb-server", "openvswitch-switch"),
    ("ovsdb-tool", "openvswitch-switch"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("ifconfig", "net-tools"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
)
# Of a database that fails over.
DATABASE_TOOLS = (("etcd", "etcd-server"), ("patroni", "patroni"))
# Debian keeps system programs there; `su` and some service managers leave them out of PATH.
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
# How variables begin that point PostgreSQL's clients and Open vSwitch's tools elsewhere, or have the shells of hosts
# print what Mininet does not expect.
_MEANT_FOR_OTHERS = ("PG", "OVS_", "PROMPT_COMMAND", "POSIXLY_CORRECT")
_HARMLESS = ("PGSERVICEFILE",)  # a URL of --shared-db may name a service of it


def clean_environment() -> None:
    """Have the folders of system programs in PATH, and nothing of what the caller means for other programs."""
    for name in [n for n in os.environ if n.startswith(_MEANT_FOR_OTHERS) and n not in _HARMLESS]:
        del os.environ[name]
    folders = [f for f in os.environ.get("PATH", "").split(":") if f]
    os.environ["PATH"] = ":".join([*folders, *(f for f in _SYSTEM_FOLDERS if f not in folders)])


def check_tools(needed: Sequence[tuple[str, str]] = _NEEDED) -> None:
    """UserError that names all programs that are missing and the packages to install."""
    missing = [(program, package) for program, package in needed if shutil.which(program) is None]
    if missing:
        programs = ", ".join(program for program, _ in missing)
        packages = " ".join(sorted({package for _, package in missing}))
        raise UserError(f"cannot find {programs}: run 'make setup', or 'apt-get install {packages}'")


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
