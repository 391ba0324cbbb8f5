"""What `vagrant up` makes, without a hypervisor: a fresh Debian 12, set up by provision.sh, booted in user-mode Linux.

Run by `make test-vagrant`, not with the suite: it fetches a whole system, and takes some minutes.
"""

from __future__ import annotations

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


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A folder with a fresh Debian 12, a user vagrant who may do all, and the project."""
    root = tmp_path / "debian"
    run("debootstrap", "--variant=minbase", f"--include={','.join(BOX)}", "bookworm", root)
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


@pytest.mark.timeout(0)
def test_fresh_debian_that_was_set_up_runs_the_testbed(debian: Path, tmp_path: Path):
    """`sudo python testbed/run.py --duration 20 --no-cli`, literally, as user vagrant."""
    in_root(debian, f"{PROJECT}/vagrant/provision.sh")
    folder = tmp_path / "machine"
    folder.mkdir()
    log = folder / "log"
    command = f"cd {PROJECT} && sudo python testbed/run.py --duration 20 --no-cli"
    script = f"su vagrant -c {shlex.quote(command)}"

    with log.open("wb") as out, Machine(
        script, folder, stdin=None, stdout=out.fileno(), root=debian,
        init=PROJECT / "testbed/virtual_machine/user_mode_linux.sh",
    ) as machine:
        status = machine.wait(LIMIT_S)

    shown = log.read_text(errors="replace")
    print(shown)
    assert status == 0, shown
    assert "(datapath kernel)" in shown
    assert "shaped by netem" in shown
