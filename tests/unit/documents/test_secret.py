"""Key bytes cannot be printed, logged or pickled by accident."""

import pickle
from pathlib import Path

import pytest

from documents.secret import Secret
from telemetry.journal import Journal, read


@pytest.mark.parametrize("show", [repr, str, lambda s: f"{s}", lambda s: f"{s!r:>40}", lambda s: "%s" % [s]])
def test_shows_only_its_length(show):
    """Whatever way a secret is turned into text, only its length comes out."""
    shown = show(Secret(b"\x41" * 16))

    assert "16 bytes" in shown
    assert "AAAA" not in shown


def test_compares_by_content():
    """Two parties' keys can be compared without revealing them."""
    assert Secret(b"same") == Secret(b"same")
    assert Secret(b"same") != Secret(b"else")


def test_wiped_secret_is_empty():
    """After wiping nothing is left to reveal."""
    secret = Secret(b"gone soon")

    secret.wipe()

    assert secret.reveal() == b""


def test_does_not_pickle():
    """A secret does not leave its process by way of a queue or a file."""
    with pytest.raises(TypeError, match="Secret"):
        pickle.dumps(Secret(b"stay"))


@pytest.mark.parametrize("fact", [b"key", Secret(b"key"), {"deep": [b"key"]}, [Secret(b"key")], bytearray(b"key")])
def test_journal_refuses_key_material(tmp_path: Path, fact):
    """Bytes and secrets never reach a journal, however deep they hide, and nothing of the line is written."""
    journal = Journal(tmp_path / "j.jsonl", "node")

    with pytest.raises(TypeError, match="only plain JSON data"):
        journal.event("key_delivered", fact=fact)

    assert (tmp_path / "j.jsonl").read_bytes() == b""


def test_journal_lines_say_when_who_what(tmp_path: Path):
    """An event carries both clocks, the writer and its facts; the file is private."""
    journal = Journal(tmp_path / "j.jsonl", "node")

    journal.event("key_delivered", hops=2)

    (line,) = read(tmp_path / "j.jsonl")
    assert (line["who"], line["event"], line["hops"]) == ("node", "key_delivered", 2)
    assert line["time"] > 0
    assert line["mono"] > 0
    assert (tmp_path / "j.jsonl").stat().st_mode & 0o777 == 0o600


def test_journal_survives_a_torn_last_line(tmp_path: Path):
    """A journal cut off by a crash is read up to its last whole line."""
    (tmp_path / "j.jsonl").write_text('{"event":"whole"}\n{"event":"to')

    assert [line["event"] for line in read(tmp_path / "j.jsonl")] == ["whole"]


def test_journal_gives_events_of_some_names_only(tmp_path: Path):
    """Without parsing the others."""
    journal = Journal(tmp_path / "j.jsonl", "node")
    for name in ("key", "call", "key_error", "key"):
        journal.event(name, of="call")

    assert [line["event"] for line in read(tmp_path / "j.jsonl", "key", "key_error")] == ["key", "key_error", "key"]
