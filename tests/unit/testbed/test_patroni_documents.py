"""Configurations of etcd and Patroni, on the hosts of a database that fails over."""

from __future__ import annotations

import json

import pytest

from testbed.database.patroni import etcd_document, patroni_document

ADDRESSES = {"db": "10.1.0.2", "db2": "10.1.0.3", "db3": "10.1.0.4"}


def patroni(name: str, *, waits: bool) -> dict:
    """Patroni's."""
    return patroni_document(name, ADDRESSES[name], port=5432, parameters={"fsync": "on"}, waits=waits)


def test_every_member_of_etcd_knows_all_and_wants_certificates():
    """Of other members, and of those who ask it."""
    for name, address in ADDRESSES.items():
        found = etcd_document(name, ADDRESSES)

        assert found["initial-cluster"] == (
            "db=https://10.1.0.2:2380,db2=https://10.1.0.3:2380,db3=https://10.1.0.4:2380"
        )
        assert {found[f"listen-{who}-urls"].rpartition(":")[0] for who in ("client", "peer")} == {f"https://{address}"}
        assert all(found[f"{who}-transport-security"]["client-cert-auth"] for who in ("client", "peer"))


def test_server_that_is_cut_off_gives_up_before_another_one_takes_over():
    """By its own clock, while the key that says who takes writes is still there: Patroni's rule."""
    found = patroni("db", waits=True)["bootstrap"]["dcs"]

    assert found["loop_wait"] + 2 * found["retry_timeout"] <= found["ttl"]


@pytest.mark.parametrize("waits", [True, False])
def test_commits_wait_for_the_standby_where_they_are_to(waits):
    """That is the same at both servers, as is all but name and address."""
    first, second = (patroni(name, waits=waits) for name in ("db", "db2"))

    assert first["bootstrap"]["dcs"]["synchronous_mode"] is waits
    assert json.loads(json.dumps(first).replace("10.1.0.2", "10.1.0.3").replace('"db"', '"db2"')) == second


def test_patroni_is_asked_and_asks_under_certificates_alone():
    """No password is in its configuration; each connection to another host checks that host's name."""
    found = patroni("db", waits=True)

    assert found["restapi"]["verify_client"] == "required"
    assert found["ctl"]["insecure"] is False
    assert "password" not in json.dumps(found)
    for use in ("replication", "rewind"):
        assert found["postgresql"]["authentication"][use]["sslmode"] == "verify-full"
