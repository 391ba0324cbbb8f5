"""Clients that we did not write: etsi-qkd-014-client, qkdsec and skip-qkd, as they come from PyPI."""

from __future__ import annotations

import base64

import pytest
from etsi_qkd_014_client import QKD014Client
from etsi_qkd_014_client.data import DataError, DataKeyContainer, DataStatus
from qkdsec.client import ETSI014Client
from qkdsec.doctor import run_all
from skip_qkd import MTLSConfig, SkipQKDClient

from tests.support.gs014_client import NOT_FOUND, Sae


def qkd014_client(sae: Sae) -> QKD014Client:
    """etsi-qkd-014-client with that SAE's certificate."""
    files = sae.credentials
    return QKD014Client(sae.address, str(files.certificate), str(files.key), str(files.ca))


@pytest.fixture
def qkdsec_client():
    """`qkdsec_client(sae)`; all are closed at the end."""
    clients: list[ETSI014Client] = []

    def make(sae: Sae) -> ETSI014Client:
        files = sae.credentials
        clients.append(
            ETSI014Client(
                f"https://{sae.address}",
                client_cert=(str(files.certificate), str(files.key)),
                verify=str(files.ca),
            )
        )
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def test_etsi_qkd_014_client_reads_the_status(alice, slave):
    """Every member, as it understands it."""
    code, status = qkd014_client(alice).get_status(slave.id)

    assert (code, type(status)) == (200, DataStatus)
    assert (status.master_sae_id, status.slave_sae_id) == (alice.id, slave.id)
    assert (status.key_size, status.max_key_per_request, status.max_sae_id_count) == (256, 64, 0)


@pytest.mark.parametrize("wanted", [{}, {"number": 3, "size": 512}, {"extension_optional": [{"abc_x": 1}]}], ids=str)
def test_etsi_qkd_014_client_gets_keys_and_the_slave_the_same(alice, slave, wanted):
    """Its short form is a GET, all others are POSTs."""
    code, given = qkd014_client(alice).get_key(slave.id, **wanted)
    assert (code, type(given)) == (200, DataKeyContainer)

    code, fetched = qkd014_client(slave).get_key_with_key_IDs(alice.id, [k.key_id for k in given.keys])

    assert code == 200
    assert {k.key_id: k.key for k in fetched.keys} == {k.key_id: k.key for k in given.keys}
    assert [len(base64.b64decode(k.key)) * 8 for k in given.keys] == [wanted.get("size", 256)] * wanted.get("number", 1)


def test_etsi_qkd_014_client_reads_errors(alice, stranger, bob):
    """It fails on an error without a body: there is none, not even for 401."""
    answers = {
        "size": qkd014_client(alice).get_key(bob.id, size=100),
        "stranger": qkd014_client(stranger).get_status(bob.id),
        "unknown": qkd014_client(bob).get_key_with_key_IDs(alice.id, ["550e8400-e29b-41d4-a716-446655440000"]),
    }

    assert all(isinstance(error, DataError) for _, error in answers.values())
    assert {name: code for name, (code, _) in answers.items()} == {"size": 400, "stranger": 401, "unknown": 400}
    assert answers["unknown"][1].message == NOT_FOUND


def test_qkdsec_gets_keys_and_the_slave_the_same(qkdsec_client, alice, slave):
    """Both forms."""
    for method in ("GET", "POST"):
        given = qkdsec_client(alice).get_enc_keys(slave.id, number=2, size=512, method=method)
        fetched = qkdsec_client(slave).get_dec_keys(alice.id, key_ids=[k.key_id for k in given])

        assert {k.key_id: k.key for k in fetched} == {k.key_id: k.key for k in given}
        assert {k.size_bits for k in given} == {512}


def test_qkdsec_doctor_finds_fault_with_what_the_standard_asks_for_and_with_nothing_else(qkdsec_client, alice, slave):
    """Its round trip fetches a key with the certificate of the master, which a KME that looks must refuse (clause
    5.4: 401), and it waits for 404 where the standard has 400 (clause 6.4). No rule of ours is loosened for that."""
    report = run_all(qkdsec_client(alice), slave.id)

    results = {result.name: result for result in report.results}
    assert {name: result.status.value for name, result in results.items()} == {
        "reachability": "pass",
        "status_fields": "pass",
        "enc_keys_get": "pass",
        "enc_keys_post": "pass",
        "enc_keys_caps": "pass",
        "extensions_accepted": "pass",
        "dec_keys_roundtrip": "fail",
        "error_contract_404": "warn",
        "error_contract_400": "pass",
        "latency": "pass",
    }
    assert "401" in results["dec_keys_roundtrip"].summary
    assert results["error_contract_404"].details["http_status"] == 400


def skip_client(sae: Sae) -> SkipQKDClient:
    """skip-qkd with that SAE's certificate; good for one request."""
    files = sae.credentials
    mutual = MTLSConfig(ca_file=str(files.ca), cert_file=str(files.certificate), key_file=str(files.key))
    return SkipQKDClient(server_address=sae.address, server_id=sae.id, mtls_config=mutual)


def test_skip_qkd_reads_what_the_provider_can_do_and_gets_entropy(alice, bob):
    """As many bits as it asks for."""
    said = skip_client(alice).capabilities()

    assert (said["localSystemID"], said["key"], said["entropy"]) == (alice.id, True, True)
    assert bob.id in said["remoteSystemID"]
    assert len(bytes.fromhex(skip_client(alice).entropy(512)["randomStr"])) == 64


@pytest.mark.parametrize("size", [None, 128, 512])
def test_skip_qkd_gets_a_key_and_the_other_end_the_same(alice, slave, size):
    """Once; over one hop and over a relay."""
    given = skip_client(alice).request_key(slave.id, size)

    assert len(bytes.fromhex(given["key"])) * 8 == (size or 256)
    assert skip_client(slave).fetch_key_by_id(given["keyId"], alice.id) == given
    with pytest.raises(RuntimeError, match="400"):
        skip_client(slave).fetch_key_by_id(given["keyId"], alice.id)


def test_skip_qkd_of_an_unknown_sae_gets_nothing(stranger, bob):
    """It reads the status, and no more."""
    with pytest.raises(RuntimeError, match="401"):
        skip_client(stranger).request_key(bob.id)
