"""What `vagrant up` makes, without a hypervisor: a fresh system, set up by provision.sh, booted in user-mode Linux.

Debian 12 as in the Vagrantfile, Debian 13 and Ubuntu 24.04; README says what came of it. The kernel is this machine's
for all of them. Run by `make test-vagrant`, not with the suite: it fetches whole systems, and takes some minutes each.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from testbed.virtual_machine.user_mode_linux import Machine
from tests.support.running import ROOT

# Where the Vagrantfile has the project, and what the box brings beside Debian's minimum.
PROJECT = Path("/home/vagrant/qkd-testbed")
BOX = ("sudo", "ca-certificates", "passwd")
# A fresh system trusts the authorities that this machine trusts, and asks the package index that it asks.
OURS = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pip.conf"), Path("/etc/xdg/pip"))
OUR_SETTINGS = ("PIP_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
LIMIT_S = 600
MODULES = Path("/usr/lib/uml/modules")
UBUNTU = "http://archive.ubuntu.com/ubuntu"
# What Ubuntu signs its archive with: Debian 12 has no package of it, so the file is known by its digest.
UBUNTU_KEYS = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
UBUNTU_KEYS_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"


def run(*command: object, **options: object) -> None:
    """A command that has to succeed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def in_root(root: Path, script: str) -> None:
    """Run a shell script in the system of that folder; whatever it starts ends with it."""
    settings = {k: v for k, v in os.environ.items() if k.startswith(OUR_SETTINGS)}
    world = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root}/proc"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **settings}
    run(*world, "chroot", root, "sh", "-ec", script, env=environment, cwd="/")


def copy_project(root: Path) -> None:
    """As Vagrant does, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = root / PROJECT.relative_to("/") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def bootstrap(release: str, root: Path, folder: Path) -> None:
    """The minimum of a release in the folder `root`."""
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(BOX)}"]
    if release != "noble":
        run(*command, release, root)
        return
    package = folder / "keys.deb"
    run("curl", "-sSf", "-o", package, f"{UBUNTU}/{UBUNTU_KEYS}")
    assert hashlib.sha256(package.read_bytes()).hexdigest() == UBUNTU_KEYS_SHA256
    run("dpkg-deb", "-x", package, folder / "keys")
    keys = folder / "keys/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    # Debian's debootstrap knows no release of Ubuntu that is newer than itself; all are made as this one was.
    way = "/usr/share/debootstrap/scripts/gutsy"
    run(*command, f"--keyring={keys}", "--components=main,universe", release, root, UBUNTU, way)


@pytest.fixture(params=["bookworm", "trixie", "noble"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a fresh Debian 12 or 13 or Ubuntu 24.04, a user vagrant who may do all, and the project."""
    root = tmp_path / "system"
    bootstrap(request.param, root, tmp_path)
    for path in OURS:
        if path.exists():
            target = root / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, target)
    # No service starts here: what would is the machine's business when it boots.
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    in_root(root, "useradd --create-home --shell /bin/bash vagrant")
    (root / "etc/sudoers.d/vagrant").write_text("vagrant ALL=(ALL) NOPASSWD: ALL\n")
    copy_project(root)
    return root


def with_modules_of_the_kernel(root: Path) -> None:
    """It is this machine's kernel that starts, whatever kernel the system has."""
    for modules in MODULES.iterdir():
        shutil.copytree(modules, root / modules.relative_to("/"), dirs_exist_ok=True, symlinks=True)


@pytest.mark.timeout(0)
def test_fresh_system_that_was_set_up_runs_the_testbed(system: Path, tmp_path: Path):
    """`sudo python testbed/run.py --duration 20 --no-cli`, literally, as user vagrant."""
    in_root(system, f"{PROJECT}/vagrant/provision.sh")
    with_modules_of_the_kernel(system)
    folder = tmp_path / "machine"
    folder.mkdir()
    log = folder / "log"
    command = f"cd {PROJECT} && sudo python testbed/run.py --duration 20 --no-cli"
    script = f"su vagrant -c {shlex.quote(command)}"

    with log.open("wb") as out, Machine(
        script, folder, stdin=None, stdout=out.fileno(), root=system,
        init=PROJECT / "testbed/virtual_machine/user_mode_linux.sh",
    ) as machine:
        status = machine.wait(LIMIT_S)

    shown = log.read_text(errors="replace")
    print(shown)
    assert status == 0, shown
    assert "(datapath kernel)" in shown
    assert "shaped by netem" in shown
