"""A host of the shared database that fails over: PostgreSQL under Patroni, and a member of etcd.

Patroni starts PostgreSQL, follows the server that takes writes, and takes its place when that is gone. Who takes writes
is a key in etcd, which ends by itself unless its owner renews it: so nobody has it who is cut off. etcd has a member
on each of three hosts, and goes on while two of them see each other.

What the hosts say to one another, etcd and Patroni, goes over mutual TLS under a CA of their own. No node and no
application has a certificate of that CA, so none of them can decide who takes writes.
"""

from __future__ import annotations

import http
import http.client
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from mtls.credentials import Credentials
from testbed.database.postgres import (
    HBA,
    IDENT,
    INSIDE,
    MEMORY_KB,
    NOTES,
    TEMPLATE,
    Cluster,
    find_binaries,
    settings,
)
from testbed.machine import unsynced
from testbed.machine.processes import run_tool

API_PORT, CLIENT_PORT, PEER_PORT = 8008, 2379, 2380  # of Patroni, of etcd for Patroni, and of etcd for etcd
_SCOPE = "qkd"
_ASK_S = 2.0
_REPLICATOR, _REWINDER = "qkd_replicator", "qkd_rewinder"
# The key that says who takes writes ends after TTL seconds; its owner renews it each LOOP and gives up after RETRY in
# vain, and takes no more writes then. LOOP + 2 RETRY <= TTL: who is cut off gives up before another one takes over.
_TTL_S, _LOOP_S, _RETRY_S = 5, 1, 2  # Patroni takes no RETRY below 2
_HEARTBEAT_MS, _ELECTION_MS = 100, 1000  # of etcd's leader, and after how long without one another one is elected
_LAG_BYTES = 16 << 20  # of a standby that may take over, where commits do not wait for it
# A standby that is silent for so long is not waited for, and one that hears nothing connects anew.
_SILENCE = "3s"
# What pg_rewind reads at the server that takes writes.
_REWIND_READS = (
    "pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)", "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
)  # fmt: skip
# For the other server to follow the one that takes writes, and to read there what it lacks.
_SERVERS = (
    f"CREATE ROLE {_REPLICATOR} LOGIN REPLICATION",
    f"CREATE ROLE {_REWINDER} LOGIN",
    *(f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {_REWINDER}" for function in _REWIND_READS),
)
_PARAMETERS = {
    # Patroni has no fewer; without parallel workers no statement of a node's is shared out among them.
    "max_worker_processes": "2", "max_parallel_workers": "0",
    "wal_sender_timeout": _SILENCE, "wal_receiver_timeout": _SILENCE, "wal_retrieve_retry_interval": "500ms",
}  # fmt: skip
# What a standby may not have less of than was in force when the last record was written.
_STANDBYS = ("max_connections", "max_worker_processes")
_HBA = (
    *HBA,
    f"hostssl replication {_REPLICATOR} all cert clientname=DN map=servers",
    f"hostssl {TEMPLATE} {_REWINDER} all cert clientname=DN map=servers",
)
_IDENT = (
    *IDENT,
    *(f'servers "/^CN=[a-z0-9-]+,OU=database$" {role}' for role in (_REPLICATOR, _REWINDER)),
)
# The folder of PostgreSQL's programs that Patroni is given: those that are there, and the server with a bound.
_SERVER = f"""#!/bin/sh
ulimit -v {MEMORY_KB} && exec {{binaries}}/postgres "$@"
"""
_TIMELINE = """
    SELECT CASE WHEN pg_is_in_recovery() THEN 0
                ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END
"""


def etcd_document(name: str, addresses: Mapping[str, str]) -> dict[str, Any]:
    """Configuration of the member of etcd on host `name`; `addresses`: of all hosts. PURE."""
    address = addresses[name]
    tls = {"cert-file": f"{INSIDE}/inner.pem", "key-file": f"{INSIDE}/inner.key",
           "trusted-ca-file": f"{INSIDE}/inner-ca.pem", "client-cert-auth": True}  # fmt: skip
    client, peer = f"https://{address}:{CLIENT_PORT}", f"https://{address}:{PEER_PORT}"
    return {
        "name": name, "data-dir": f"{INSIDE}/etcd",
        "listen-client-urls": client, "advertise-client-urls": client,
        "listen-peer-urls": peer, "initial-advertise-peer-urls": peer,
        "initial-cluster": ",".join(f"{host}=https://{ip}:{PEER_PORT}" for host, ip in addresses.items()),
        "initial-cluster-token": _SCOPE, "initial-cluster-state": "new",
        "heartbeat-interval": _HEARTBEAT_MS, "election-timeout": _ELECTION_MS,
        "auto-compaction-mode": "revision", "auto-compaction-retention": "1000",
        "client-transport-security": tls, "peer-transport-security": tls,
        # Of version 3 Patroni goes on to see what a member says that was cut off, as if nothing had changed since.
        "enable-v2": True, "logger": "zap", "log-level": "warn",
    }  # fmt: skip


def patroni_document(
    name: str, address: str, *, port: int, parameters: Mapping[str, str], waits: bool
) -> dict[str, Any]:
    """Configuration of Patroni on host `name`, at that address. PURE.

    `parameters`: PostgreSQL's. `waits`: whether a commit waits for the standby.
    """
    inner = {"certfile": f"{INSIDE}/inner.pem", "keyfile": f"{INSIDE}/inner.key"}
    shown = {"sslmode": "verify-full", "sslcert": f"{INSIDE}/server.pem", "sslkey": f"{INSIDE}/server.key",
             "sslrootcert": f"{INSIDE}/ca.pem"}  # fmt: skip
    roles = {"replication": _REPLICATOR, "rewind": _REWINDER}
    return {
        "scope": _SCOPE, "name": name, "watchdog": {"mode": "off"},
        "log": {"level": "INFO", "traceback_level": "DEBUG"},
        "restapi": {"listen": f"{address}:{API_PORT}", "connect_address": f"{address}:{API_PORT}", **inner,
                    "cafile": f"{INSIDE}/inner-ca.pem", "verify_client": "required"},
        "ctl": {"insecure": False, **inner, "cacert": f"{INSIDE}/inner-ca.pem"},
        # By the member on this host, whatever became of the others: one that is cut off is not waited for.
        "etcd": {"hosts": [f"{address}:{CLIENT_PORT}"], "use_proxies": True, "protocol": "https",
                 "cert": inner["certfile"], "key": inner["keyfile"], "cacert": f"{INSIDE}/inner-ca.pem"},
        "bootstrap": {"dcs": {
            "ttl": _TTL_S, "loop_wait": _LOOP_S, "retry_timeout": _RETRY_S, "maximum_lag_on_failover": _LAG_BYTES,
            "synchronous_mode": waits, "master_start_timeout": 0, "primary_start_timeout": 0,
            "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": dict(parameters)},
        }},
        "postgresql": {
            "listen": f"{address}:{port}", "connect_address": f"{address}:{port}", "database": TEMPLATE,
            "data_dir": f"{INSIDE}/data", "bin_dir": f"{INSIDE}/bin", "use_unix_socket": True,
            "authentication": {"superuser": {"username": "postgres"},
                               **{use: {"username": role, **shown} for use, role in roles.items()}},
            "parameters": {"unix_socket_directories": INSIDE},
            "pg_hba": list(_HBA), "pg_ident": list(_IDENT),
            "basebackup": [{"checkpoint": "fast"}, "no-sync"],
            "remove_data_directory_on_rewind_failure": True, "remove_data_directory_on_diverged_timelines": True,
        },
    }  # fmt: skip


class Host(Cluster):
    """The database host `name` at `address`, with its files below `directory`.

    `credentials`: its TLS identity for nodes and for the other server. `inner`: that for etcd and Patroni.
    """

    def __init__(self, directory: Path, name: str, address: str, credentials: Credentials, inner: Credentials) -> None:
        super().__init__(directory, credentials)
        self.name = name
        self.address = address
        self._inner = inner

    def prepare(
        self, addresses: Mapping[str, str], *, port: int, connections: int, round_trip_s: float, waits: bool,
        first: bool,
    ) -> None:  # fmt: skip
        """Make its files; of the `first` one also what is in the database.

        `addresses`: of all hosts, by name; the rest as of `initialise`, and of `patroni_document`.
        """
        self._make(port, data=first)
        parameters = settings(connections=connections, round_trip_s=round_trip_s) | _PARAMETERS
        if first:
            self._run(
                "postgres", "--single", "-D", f"{INSIDE}/data", *(f"-c{name}={parameters[name]}" for name in _STANDBYS),
                TEMPLATE, given="".join(f"{statement}\n" for statement in _SERVERS),
            )  # fmt: skip
        self._write_credentials("inner", self._inner)
        self._write("inner-ca.pem", self._inner.ca.read_bytes())
        patroni = patroni_document(self.name, self.address, port=port, parameters=parameters, waits=waits)
        self._write("patroni.json", json.dumps(patroni).encode())  # which is YAML, too
        self._write("etcd.json", json.dumps(etcd_document(self.name, addresses)).encode())
        programs = self.directory / "bin"
        programs.mkdir(mode=0o755)
        binaries = find_binaries()
        for program in binaries.iterdir():
            if program.name != "postgres":
                (programs / program.name).symlink_to(program)
        self._write("bin/postgres", _SERVER.format(binaries=binaries).encode(), mode=0o755)

    def etcd(self) -> list[str]:
        """Command of its member of etcd, which waits for no disk: else a busy one makes members elect without end."""
        no_sync = [sys.executable, "-I", "-S", unsynced.__file__]
        return [*no_sync, *self._here(), "--", shutil.which("etcd") or "etcd", f"--config-file={INSIDE}/etcd.json"]

    def patroni(self) -> list[str]:
        """Command of Patroni with its PostgreSQL: the first process of a PID namespace, so that none outlives it."""
        # Killed from outside, the namespace's first process goes with its parent, and all others with it.
        alone = ("--pid", "--fork", "--mount-proc", "--ipc")
        program = shutil.which("patroni") or "patroni"
        # Whose number PostgreSQL left here was in another namespace: a process that has it in this one is not that one,
        # and PostgreSQL would not start beside it.
        first = 'rm -f "$1"/data/postmaster.pid'
        enter = self._here(first, namespaces=alone, drop=["--pdeathsig=KILL"])
        return [*enter, "--", program, f"{INSIDE}/patroni.json"]

    def bound_notes(self, patroni: int) -> None:
        """Have the notes of its clients go where there is room for a few; `patroni`: process ID of its command.

        That is so from the start where there is a database, and not where Patroni makes a copy first. ProcessFailed.
        """
        (first,) = Path(f"/proc/{patroni}/task/{patroni}/children").read_text().split()
        place = f"{INSIDE}/data/pg_notify"
        script = f"mountpoint -q {place} || mount -t tmpfs -o {NOTES} notes {place}"
        run_tool("nsenter", f"--target={first}", "--mount", "sh", "-c", script)

    def has_quorum(self) -> bool:
        """Whether its member of etcd answers, and has a leader. To be asked where its address can be reached."""
        _, body = self._asked(CLIENT_PORT, "/health")
        return b'"true"' in body

    def may_take_over(self) -> bool:
        """Whether it holds all that is committed, and is known for that in etcd. To be asked as `has_quorum`."""
        return self._asked(API_PORT, "/synchronous")[0] == http.HTTPStatus.OK

    def _asked(self, port: int, path: str) -> tuple[int, bytes]:
        """Status and body of an answer; 0 and nothing if there is none."""
        connection = http.client.HTTPSConnection(
            self.address, port, timeout=_ASK_S, context=self._inner.client_context()
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def timeline(self) -> int | None:
        """The timeline on which it takes writes, 0 if it takes none; None if it does not answer."""
        try:
            with self._admin(TEMPLATE) as admin:
                ((found,),) = admin.execute(_TIMELINE).fetchall()
                return int(str(found))
        except psycopg.Error:
            return None

    def is_followed(self) -> bool:
        """Whether the other one follows it."""
        try:
            with self._admin(TEMPLATE) as admin:
                return admin.execute("SELECT FROM pg_stat_replication WHERE state = 'streaming'").rowcount > 0
        except psycopg.Error:
            return False
