"""`run.py conformance` with options that are wrong, or a KME that is not there: one line, exit status 2."""

from __future__ import annotations

import socket

import pytest

from conformance import command
from mtls.authority import Authority
from mtls.identity import Identity, Role

A, B, OTHER = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "123")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Options that are right, by their names."""
    authority = Authority(tmp_path_factory.mktemp("conformance") / "pki")
    found = {"--ca": [authority.ca]}
    for option, sae in (("--a", A), ("--b", B), ("--other", OTHER)):
        credentials = authority.issue(Identity(Role.SAE, sae))
        found[option] = [credentials.certificate, credentials.key]
    return found


def said(capsys, files, *urls: str, **changed: object) -> str:
    """What it says, with these options changed."""
    options = files | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    arguments = [str(word) for option, values in options.items() for word in (option, *values)]

    assert command.main([*(urls or ("https://127.0.0.1:1", "https://127.0.0.1:2")), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "127.0.0.1:1", "https://", "https://h:x", "https://h:0", "https://h/?x=1"]
)
def test_url_that_is_none_is_named(capsys, files, url):
    """Of the first KME and of the second."""
    assert f"URL_A: expected https://HOST[:PORT], not {url}" in said(capsys, files, url, "https://127.0.0.1:2")
    assert f"URL_B: expected https://HOST[:PORT], not {url}" in said(capsys, files, "https://127.0.0.1:1", url)


def test_file_that_is_not_there_is_named(capsys, files, tmp_path):
    """With its option."""
    missing = tmp_path / "missing.pem"

    assert f"--ca: {missing}: No such file" in said(capsys, files, ca=[missing])
    assert f"--b: {missing}: No such file" in said(capsys, files, b=[missing, missing])


def test_file_that_is_no_certificate_is_named(capsys, files, tmp_path):
    """Of an SAE, or of the CA."""
    text = tmp_path / "text.pem"
    text.write_text("x")

    assert "--a: " in (found := said(capsys, files, a=[text, text]))
    assert "expected a PEM certificate" in found
    assert "expected PEM certificates" in said(capsys, files, ca=[text])


def test_key_of_another_certificate_is_found(capsys, files):
    """Before anything is asked."""
    mixed = [files["--a"][0], files["--b"][1]]

    assert "the key of the certificate" in said(capsys, files, a=mixed)


def test_same_sae_twice_is_found(capsys, files):
    """A pair has two SAEs, and a third one is another."""
    assert "expected two SAEs" in said(capsys, files, b=files["--a"])
    assert "expected a third SAE" in said(capsys, files, other=files["--b"])


@pytest.mark.parametrize("patience", ["-1", "1e9", "nan"])
def test_patience_out_of_range_is_refused(capsys, files, patience):
    """With the range."""
    assert "--patience: expected 0 to 3600 seconds" in said(capsys, files, patience=[patience])


def test_certificate_without_a_common_name_needs_the_id(capsys, files, tmp_path):
    """The option that gives it is named."""
    long = Authority(tmp_path / "pki").issue(Identity(Role.SAE, "x" * 100))
    mine = [long.certificate, long.key]

    assert "expected one common name" in (found := said(capsys, files, a=mine))
    assert "say --id-a ID" in found
    assert "no answer" in said(capsys, files, a=mine, id_a=["x" * 100])


def test_kme_that_is_not_there_is_said(capsys, files):
    """Nothing listens at that port."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        url = f"https://127.0.0.1:{held.getsockname()[1]}"

        assert "no answer: Connection refused" in said(capsys, files, url, url)
