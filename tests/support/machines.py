"""Several "machines" on this one: network namespaces with an SSH server each, and one from which a run is started."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.waiting import until

_ITS_OWN = ("sshd", "/usr/sbin/sshd", "sleep", "unshare --net --time", "unshare --pid")
_NET = "198.51.100"  # RFC 5737: of nobody


def network_of(pid: int) -> Path:
    """The network namespace of a process."""
    return Path(f"/proc/{pid}/ns/net").readlink()


def _tool(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


class Machines:
    """Machines of these names, on one Ethernet with home, from which `argv` of `at_home` is run. Use as a context.

    Each one's clock since its start is `older_s` seconds ahead of that of the one before it.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, older_s: int = 5000) -> None:
        self._older_s = older_s
        self.folder = folder
        self.names = list(names)
        self._stack = contextlib.ExitStack()
        self.pids: dict[str, int] = {}

    def __enter__(self) -> Machines:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as made:
            self.pids["home"] = self._namespace(made, 0)
            self._in("home", "ip", "link", "add", "net", "type", "bridge")
            self._in("home", "ip", "address", "add", f"{_NET}.1/24", "dev", "net")
            self._in("home", "ip", "link", "set", "net", "up")
            addresses = {name: f"{_NET}.{number}" for number, name in enumerate(self.names, start=2)}
            for name, address in addresses.items():
                self._add(made, name, address)
            write_client(self.folder, addresses)
            self._stack = made.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def at_home(self, argv: Sequence[str]) -> list[str]:
        """`argv` to be run at home."""
        return self.on("home", *argv)

    def on(self, name: str, *argv: str) -> list[str]:
        """`argv` to be run on a machine."""
        there = f"/proc/{self.pids[name]}/ns"
        return ["nsenter", f"--net={there}/net", f"--time={there}/time", "--", *argv]

    @property
    def environment(self) -> dict[str, str]:
        """Of a run, so that it finds them."""
        return {**os.environ, "QKD_SSH": f"ssh -F {self.folder / 'ssh_config'}"}

    def links(self, name: str) -> set[str]:
        """The interfaces of a machine."""
        shown = subprocess.run(self.on(name, "ip", "-o", "link"), capture_output=True, text=True, check=True).stdout
        return {line.split(":")[1].strip().partition("@")[0] for line in shown.splitlines()}

    def attach(self, name: str, *, up: bool) -> None:
        """Put a machine on the network, or take it off."""
        self._in("home", "ip", "link", "set", f"to-{name}"[:15], "up" if up else "down")

    def processes(self, name: str) -> dict[int, str]:
        """What runs on a machine beside its SSH server: command lines, by process ID."""
        there = network_of(self.pids[name])
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if network_of(int(path.name)) == there and not line.startswith(_ITS_OWN):
                    found[int(path.name)] = line
        return found

    def _namespace(self, made: contextlib.ExitStack, ahead_s: int) -> int:
        # The clock of a time namespace is set before its first process, hence the fork.
        argv = ["unshare", "--net", "--time", "--boottime", str(ahead_s), "--monotonic", str(ahead_s), "--fork"]
        process = made.enter_context(
            subprocess.Popen([*argv, "--kill-child", "sh", "-c", "ip link set lo up && echo $$ && exec sleep infinity"],
                             stdout=subprocess.PIPE, text=True)
        )  # fmt: skip
        made.callback(process.kill)
        assert process.stdout is not None
        return int(process.stdout.readline())

    def _in(self, name: str, *argv: str) -> None:
        _tool("nsenter", f"--net=/proc/{self.pids[name]}/ns/net", "--", *argv)

    def _add(self, made: contextlib.ExitStack, name: str, address: str) -> None:
        pid = self.pids[name] = self._namespace(made, self._older_s * len(self.pids))
        here = f"to-{name}"[:15]
        self._in("home", "ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._in("home", "ip", "link", "set", here, "master", "net", "up")
        self._in(name, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        self._in(name, "ip", "link", "set", "eth0", "up")
        config = write_server(self.folder, name, address)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        log = self.folder / f"sshd-{name}.log"
        # Its sessions have environments of their own, by which no guardian finds them: they go with their namespace.
        contained = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]
        argv = [*contained, "/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
        with log.open("wb") as file:
            server = made.enter_context(subprocess.Popen(self.on(name, *argv), stderr=file))
        made.callback(server.kill)
        until(lambda: "listening" in log.read_text())


def write_server(folder: Path, name: str, address: str) -> Path:
    """The configuration of an SSH server for a machine of that name and address; the keys of all are made with it."""
    for key in ("host", "user"):
        if not (folder / key).exists():
            _tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
    config = folder / f"sshd-{name}"
    config.write_text(
        f"ListenAddress {address}\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'user.pub'}\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\n"
    )
    return config


def write_client(folder: Path, addresses: Mapping[str, str]) -> Path:
    """The configuration of `ssh` for who reaches machines by those names, whose servers were written there."""
    public = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text("".join(f"{address} {public}\n" for address in addresses.values()))
    config = folder / "ssh_config"
    config.write_text(
        "".join(f"Host {name}\n  HostName {address}\n" for name, address in addresses.items())
        + f"Host *\n  User root\n  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
    )
    return config


def placement(path: Path, **datacenters: Sequence[str]) -> Path:
    """A file for `--machines` that has these machines with these datacenters."""
    rows = [f"  - {{name: {name}, ssh: {name}, datacenters: [{', '.join(of)}]}}\n" for name, of in datacenters.items()]
    path.write_text("machines:\n" + "".join(rows))
    return path

