"""A private PostgreSQL cluster, the shared database of a run: made in the run directory, gone with it.

The server runs as user postgres and sees its directory at a fixed place, by a bind mount in a mount namespace of its
own: the run directory may then lie under a private home that postgres could not enter. Root administers it through a
Unix socket, nodes come over TCP with TLS and are let in by their certificates alone (`OU=node`), each under a name of
its own, so that none can speak for another; there is no password.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psycopg
import psycopg.sql

from mtls.credentials import Credentials
from mtls.identity import Identity
from node.material.shared_db import CONNECTIONS_PER_NODE, Members, declare, install_schema
from testbed.machine.processes import how_it_ended

DATABASE = "qkd"
TEMPLATE = "template1"  # there before DATABASE is, and not for nodes
NODES_ROLE = "qkd_node"  # what all nodes may do
CONTROLLERS_ROLE = "qkd_controller"  # and all controllers, where there are several
INSIDE = "/var/lib/postgresql"
_VERSIONS = Path("/usr/lib/postgresql")
_OLDEST = 14
_START_S = 30.0
_TOOL_S = 120.0
# A client that says nothing is put out after this time, and the round trips of TLS and of PostgreSQL's own protocol.
_AUTHENTICATION_S, _ROUND_TRIPS = 5.0, 6
# FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h; chattr(1) calls the flag T.
_GET_FLAGS, _SET_FLAGS, _TOP_OF_HIERARCHY = 0x80086601, 0x40086602, 0x20000
_Connection = psycopg.Connection[tuple[object, ...]]

# What differs from PostgreSQL's defaults, and why.
_SETTINGS = {
    "unix_socket_directories": INSIDE,
    "unix_socket_permissions": "0700",
    "ssl": "on",
    "ssl_cert_file": f"{INSIDE}/server.pem",
    "ssl_key_file": f"{INSIDE}/server.key",
    "ssl_ca_file": f"{INSIDE}/ca.pem",
    "ssl_min_protocol_version": "TLSv1.2",
    "synchronous_commit": "on",
    "fsync": "on",
    # Who is cut off makes room for others soon.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "5",
    "tcp_user_timeout": "10s",
    "client_connection_check_interval": "2s",
    # A node has the processes of its connections, and no others to share its statements out among.
    "max_worker_processes": "0",
    "max_logical_replication_workers": "0",
    # /dev/shm is tiny in many containers.
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "32MB",
    # A statement quoted in the log would carry key IDs; the errors alone say enough.
    "log_min_error_statement": "panic",
    "log_line_prefix": "%m [%p] ",
}
# What PostgreSQL lets everybody use. A node calls the functions of the schema and needs none of PostgreSQL's own, nor
# its languages: some take places in the table of locks or the disk, others work for long and cannot be interrupted.
_NOT_FOR_ALL = """
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pg_catalog FROM PUBLIC;
REVOKE USAGE ON LANGUAGE plpgsql, sql FROM PUBLIC
"""
_TEMPORARY_FILES = "64MB"  # of one connection of a node
# What nodes tell each other, which none of ours does, is kept as long as somebody who listens has not heard it.
NOTES = "size=8m,mode=1777"
MEMORY_KB = 512 << 10  # addresses of one process; some half of them are what all share, and code
HBA = (
    "local all,replication postgres peer map=admin",
    f"hostssl {DATABASE} +{NODES_ROLE} all cert clientname=DN map=nodes",
    f"hostssl {DATABASE} +{CONTROLLERS_ROLE} all cert clientname=DN map=controllers",
)
IDENT = (
    "admin root postgres",
    "admin postgres postgres",
    r'nodes "/^CN=([a-z0-9-]+),OU=node$" node-\1',
    r'controllers "/^CN=([a-z0-9-]+),OU=controller$" controller-\1',
)


class ClusterError(Exception):
    """PostgreSQL cannot be made or started; one line that says why and what to do."""


def find_binaries() -> Path:
    """The folder of the newest PostgreSQL server on this machine."""
    found = [p for p in _VERSIONS.glob("[0-9]*") if (p / "bin" / "postgres").exists() and int(p.name) >= _OLDEST]
    if not found:
        raise ClusterError(f"no PostgreSQL server {_OLDEST} or newer under {_VERSIONS}: run 'make setup'")
    return max(found, key=lambda p: int(p.name)) / "bin"


def settings(*, connections: int, round_trip_s: float) -> dict[str, str]:
    """What differs from PostgreSQL's defaults, for so many connections over round trips of so many seconds. PURE."""
    # Who says nothing is put out; who is far away has his time.
    authentication_s = round(_AUTHENTICATION_S + _ROUND_TRIPS * round_trip_s)
    return _SETTINGS | {"max_connections": str(connections), "authentication_timeout": f"{authentication_s}s"}


class Cluster:
    """The cluster in `directory`, which is made; `credentials` are its TLS identity."""

    def __init__(self, directory: Path, credentials: Credentials) -> None:
        self.directory = directory / secrets.token_hex(4)  # which nothing was called before, see `_spread`
        self._credentials = credentials
        self._binaries = find_binaries()
        self._data = "data"  # the folder of the server in command, in `directory`; a standby's becomes it
        self._servers = 1
        self._port = 0

    @staticmethod
    def version() -> str:
        """Version of the server, as it says itself."""
        shown = subprocess.run([find_binaries() / "postgres", "--version"], capture_output=True, text=True, check=False)
        return shown.stdout.strip().partition(") ")[2].partition(" ")[0]

    def initialise(self, *, listen: str, port: int, connections: int = 100, round_trip_s: float = 0.0) -> None:
        """Make the cluster (about a second); it will listen on address `listen`, for so many connections at a time.

        `round_trip_s`: the longest one to a client.
        """
        self._make(port)
        given = settings(connections=connections, round_trip_s=round_trip_s)
        given |= {"listen_addresses": listen, "port": str(port)}
        lines = (f"{name} = '{value}'\n" for name, value in given.items())
        self._write("data/postgresql.auto.conf", "".join(lines).encode())
        for name, entries in (("pg_hba", HBA), ("pg_ident", IDENT)):
            self._write(f"data/{name}.conf", "".join(f"{entry}\n" for entry in entries).encode())

    def _make(self, port: int, *, data: bool = True) -> None:
        """The directory, with its TLS identity and, if wanted, what is in a new cluster."""
        self._port = port
        self.directory.parent.mkdir(mode=0o700, exist_ok=True)
        _spread(self.directory.parent)
        self.directory.mkdir(mode=0o700)
        shutil.chown(self.directory, "postgres", "postgres")
        self._write_credentials("server", self._credentials)
        self._write("ca.pem", self._credentials.ca.read_bytes())
        if data:
            # Not synced: a cluster that is half made when the power fails is made anew with the next run.
            options = ["--encoding=UTF8", "--locale=C", "--auth=peer", "--no-sync", "--no-instructions"]
            self._run("initdb", *options, f"--pgdata={INSIDE}/data")

    def command(self) -> list[str]:
        """Command of the server in the foreground; SIGINT ends it quickly and cleanly."""
        return self._as_postgres("postgres", "-D", f"{INSIDE}/{self._data}")

    def copy(self) -> list[str]:
        """Command of a standby, which begins as a copy of what the server has now (a second or two), and follows it."""
        self._servers += 1
        standby, primary = f"data-{self._servers}", f"host={INSIDE} port={self._port} user=postgres"
        options = ["--checkpoint=fast", "--no-sync", f"--pgdata={INSIDE}/{standby}", f"--dbname={primary}"]
        self._run("pg_basebackup", *options)
        self._write(f"{standby}/standby.signal", b"")
        settings = {"listen_addresses": "", "port": self._port + 1, "primary_conninfo": primary}
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._as_postgres("postgres", "-D", f"{INSIDE}/{standby}", *given)

    def wait_following(self, alive: Callable[[], bool], log: Path) -> None:
        """Return when all that was committed is on the standby too, and nothing is committed without it any more.

        ClusterError as of `wait_ready`; then the server goes on without one.
        """
        query = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
        try:
            self._configure("SET synchronous_standby_names = '*'")
            self._wait(lambda admin: admin.execute(query).rowcount == 1, alive, log, _START_S)
        except ClusterError:
            self._configure("RESET synchronous_standby_names")
            raise

    def take_over(self) -> None:
        """Once server and standby have ended: `command` is of the standby now. It takes no writes until `promote`."""
        old, self._data = self._data, f"data-{self._servers}"
        shutil.rmtree(self.directory / old)

    def promote(self) -> None:
        """Have the server take writes."""
        with self._admin(TEMPLATE) as admin:
            admin.execute("SELECT pg_promote()")

    def wait_ready(self, alive: Callable[[], bool], log: Path, *, timeout_s: float = _START_S) -> None:
        """Return when the server answers; ClusterError if it ends (`alive` says no) or takes longer."""
        self._wait(lambda _: True, alive, log, timeout_s)

    def _configure(self, change: str) -> None:
        with self._admin(TEMPLATE) as admin:
            admin.execute(f"ALTER SYSTEM {change}")
            admin.execute("SELECT pg_reload_conf()")

    def _wait(
        self, settled: Callable[[_Connection], bool], alive: Callable[[], bool], log: Path, timeout_s: float
    ) -> None:
        deadline = time.monotonic() + timeout_s
        why: object = "it answers, and no standby follows"
        while True:
            try:
                with self._admin(TEMPLATE) as admin:
                    if settled(admin):
                        return
            except psycopg.OperationalError as error:
                why = error
            if not alive():
                said = _last_line(log.read_text()) or "it said nothing"
                raise ClusterError(f"PostgreSQL ended at once: {said}; see {log}")
            if time.monotonic() > deadline:
                raise ClusterError(f"PostgreSQL is silent after {timeout_s:g} s: {why}; see {log}")
            time.sleep(0.02)

    def create(self, schema: str) -> None:
        """Database and `schema` for the nodes."""
        names = {"database": psycopg.sql.Identifier(DATABASE), "role": psycopg.sql.Identifier(NODES_ROLE)}
        with self._admin(TEMPLATE) as admin:
            for statement in (
                # The one that is there: to copy it file by file is half the work of making a cluster.
                "ALTER DATABASE postgres RENAME TO {database}",
                "CREATE ROLE {role}",
                "REVOKE ALL ON DATABASE {database} FROM PUBLIC",  # temporary tables among them
                "GRANT CONNECT ON DATABASE {database} TO {role}",
                # No node needs more than a statement at a time.
                "ALTER DATABASE {database} SET idle_in_transaction_session_timeout = '2s'",
            ):
                admin.execute(psycopg.sql.SQL(statement).format(**names))
        with self._admin(DATABASE) as admin:
            admin.execute(_NOT_FOR_ALL)
        with self.admin_url(DATABASE) as url:
            install_schema(url, schema, NODES_ROLE)

    def admit(self, schema: str, members: Members) -> None:
        """Let these nodes in, with their QCs and SAEs."""
        with self._admin(TEMPLATE) as admin:
            known = {row[0] for row in admin.execute("SELECT rolname FROM pg_roles")}
            for role in sorted({_role(node) for node in members.nodes} - known):
                names = {"role": psycopg.sql.Identifier(role), "nodes": psycopg.sql.Identifier(NODES_ROLE)}
                for text in (
                    f"CREATE ROLE {{role}} LOGIN IN ROLE {{nodes}} CONNECTION LIMIT {CONNECTIONS_PER_NODE}",
                    f"ALTER ROLE {{role}} SET temp_file_limit = '{_TEMPORARY_FILES}'",
                    # An error quotes what was wrong, be it of many megabytes. A node logs what it is refused.
                    "ALTER ROLE {role} SET log_min_messages = fatal",
                ):
                    admin.execute(psycopg.sql.SQL(text).format(**names))
        with self.admin_url(DATABASE) as url:
            declare(url, schema, members)

    @contextlib.contextmanager
    def admin_url(self, database: str = DATABASE) -> Iterator[str]:
        """A URL for the superuser, through the Unix socket, good inside the `with` block."""
        # By way of the folder's descriptor: a socket's path may be 107 bytes long, a run directory's longer.
        fd = os.open(self.directory, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"host=/proc/{os.getpid()}/fd/{fd} port={self._port} user=postgres dbname={database}"
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _admin(self, database: str) -> Iterator[_Connection]:
        with self.admin_url(database) as url, psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            yield connection

    def _as_postgres(self, program: str, *arguments: str) -> list[str]:
        return [*self._here(f"ulimit -v {MEMORY_KB}"), "--", str(self._binaries / program), *arguments]

    def _here(self, first: str = ":", *, namespaces: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
        """What to put before a command so that it runs as postgres and sees the directory; `first` is done before.

        `namespaces`: options of unshare; `drop`: of setpriv.
        """
        steps = (
            first,
            f'mount --bind "$1" {INSIDE}',
            f"cd {INSIDE}",
            f"for d in data*/pg_notify; do [ ! -d $d ] || mount -t tmpfs -o {NOTES} notes $d; done",
            'shift && exec "$@"',
        )
        enter = ["unshare", "--mount", "--propagation=private", *namespaces, "--", "sh", "-c", " && ".join(steps), "sh"]
        become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--reset-env", *drop]
        return [*enter, str(self.directory), *become]

    def _run(self, program: str, *arguments: str, given: str = "") -> None:
        """Have one of PostgreSQL's programs do its work, on what is `given` on its standard input; ClusterError."""
        command = self._as_postgres(program, *arguments)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_TOOL_S, input=given
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{program} failed: it had not ended after {_TOOL_S:g} s") from None
        if done.returncode != 0:
            raise ClusterError(f"{program} failed: {_last_line(done.stderr) or how_it_ended(done.returncode)}")

    def _write_credentials(self, name: str, credentials: Credentials) -> None:
        self._write(f"{name}.pem", credentials.certificate.read_bytes())
        self._write(f"{name}.key", credentials.key.read_bytes())

    def _write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        path = self.directory / name
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        shutil.chown(path, "postgres", "postgres")


def node_url(node: str, credentials: Credentials, server: Identity, address: str, port: int) -> str:
    """The URL with which `node`, the owner of `credentials`, reaches the cluster `server` at address:port."""
    return nodes_url(node, credentials, {server: address}, port)


def nodes_url(node: str, credentials: Credentials, servers: Mapping[Identity, str], port: int) -> str:
    """The same for several servers, which are given with their addresses: one of them takes writes. PURE."""
    facts = {
        "host": ",".join(server.dns for server in servers),
        "hostaddr": ",".join(servers.values()),
        "port": str(port),
        "dbname": DATABASE,
        "user": _role(node),
        "sslmode": "verify-full",
        "sslcert": str(credentials.certificate),
        "sslkey": str(credentials.key),
        "sslrootcert": str(credentials.ca),
    }
    if len(servers) > 1:
        facts["target_session_attrs"] = "read-write"
    return psycopg.conninfo.make_conninfo("", **facts)


def _role(node: str) -> str:
    """A node's name in PostgreSQL; the functions of the schema compare it with the node that is spoken for."""
    return f"node-{node}"


def _spread(directory: Path) -> None:
    """Have ext4 put each folder made in `directory` wherever its name says, not near what was there before.

    ext4 leaves the places of deleted files (inodes) alone for minutes, and looks at each of them for every file it
    makes there. A cluster has a thousand files: made where one was deleted, it takes two or three times as long.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # another file system
            (flags,) = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(struct.calcsize("l"))))
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags | _TOP_OF_HIERARCHY))
    finally:
        os.close(fd)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
