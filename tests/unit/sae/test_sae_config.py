"""The applications' configuration file: what is taken, and that each mistake is named in one line."""

import json

import pytest

from sae.config import load, parse

HERE, THERE = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


@pytest.fixture
def document(tmp_path):
    """A good configuration."""
    files = {name: str(tmp_path / name) for name in ("certificate", "key", "ca")}
    for path in files.values():
        with open(path, "w"):  # noqa: PTH123 - any existing file will do
            pass
    return {
        "name": "telecom", "host": "127.0.0.1", "directory": str(tmp_path / "run"), "audit_secret": "ab" * 32,
        "kme_url": "https://127.0.0.1:8443", "kme_name": "telecom",
        "saes": [{"id": HERE, "name": "billing", "port": 9001, "credentials": files}],
        "peers": {
            HERE: {"name": "billing", "url": "https://127.0.0.1:9001"},
            THERE: {"name": "tax-office", "url": "https://[::1]:9001"},
        },
    }  # fmt: skip


def test_good_configuration_is_taken(document):
    """IDs stay as they are written, and a session ends at a key failure unless the file says otherwise."""
    config = parse(document)

    assert [sae.id for sae in config.saes] == [HERE]
    assert set(config.peers) == {HERE, THERE}
    assert (config.on_key_failure, parse(document | {"on_key_failure": "go_on"}).on_key_failure) == ("end", "go_on")
    assert (config.pace, parse(document | {"pace": "application"}).pace) == ("session", "application")


def test_configuration_never_shows_its_secret(document):
    """What a log or a traceback prints of it has a length only."""
    assert "abab" not in repr(parse(document))


CASES = [
    ("name", None), ("host", ""), ("directory", 3), ("audit_secret", "ab" * 31), ("audit_secret", "xy" * 32),
    ("audit_secret", None), ("kme_url", "http://127.0.0.1:8443"), ("kme_url", "https://127.0.0.1"),
    ("kme_url", "https://127.0.0.1:8443/"), ("kme_url", "https://h:99999"), ("kme_name", "Telecom Inc."),
    ("saes", {}), ("saes", [3]), ("saes", [{}]), ("peers", []), ("peers", {"x" * 129: {}}), ("peers", {HERE: {}}),
    ("peers", {}), ("on_key_failure", "shrug"), ("on_key_failure", []), ("surprise", 1),
]  # fmt: skip


@pytest.mark.parametrize(("member", "value"), CASES)
def test_each_mistake_is_named_in_one_line(document, member, value):
    """Missing, of the wrong type, out of range, unknown: the error names the member."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        parse(document | {member: value})

    named = "saes[0].id" if (member, value) == ("peers", {}) else member
    assert str(caught.value).startswith(named)


@pytest.mark.parametrize(
    ("member", "value"), [("id", "x"), ("name", ""), ("port", 0), ("port", True), ("credentials", {}), ("colour", 1)]
)
def test_mistake_in_an_application_is_named_too(document, member, value):
    """With its place in the list."""
    document["saes"][0][member] = value

    with pytest.raises(ValueError, match=rf"^saes\[0\]\.{member}"):
        parse(document)


def test_two_applications_of_one_port_are_refused(document):
    """Each application has its own."""
    document["saes"].append(document["saes"][0] | {"id": THERE})

    with pytest.raises(ValueError, match="each port once"):
        parse(document)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_file_that_is_no_json_object_is_one_line(tmp_path, content):
    """Whatever the file holds, the error is a ValueError of one line."""
    path = tmp_path / "sae.json"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        load(path)


def test_good_file_loads(tmp_path, document):
    """The same document, from a file."""
    path = tmp_path / "sae.json"
    path.write_text(json.dumps(document))

    assert load(path) == parse(document)
