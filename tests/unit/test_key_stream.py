"""The local database: a byte leaves once, expired bytes never, and nothing readable lies on disk."""

import shutil
from pathlib import Path

import pytest

from etsi.secret import Secret
from node.blocks import Block
from node.key_stream import KeyStore, Missing, RelayedKey
from node.ranges import Instruction, Range

QC = "a-b/1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database lies."""
    return tmp_path / "local.db"


@pytest.fixture
def store(path: Path):
    """A store with a TTL of 3 slots."""
    store = KeyStore(path, path.with_suffix(".key"), ttl_slots=3)
    yield store
    store.close()


def block(slot: int, offset: int, payload: bytes) -> Block:
    """A block of QC a-b/1."""
    return Block(QC, slot, slot, offset, Secret(payload))


def bytes_of(store: KeyStore, start: int, end: int) -> bytes:
    """Take [start, end) and reveal it."""
    return store.take([Range(QC, start, end)])[0].reveal()


def test_gives_the_bytes_of_a_range_across_blocks(store):
    """A key larger than a block comes out in the order of the stream."""
    store.store(block(1, 0, b"abcd"))
    store.store(block(2, 4, b"efgh"))

    assert bytes_of(store, 2, 7) == b"cdefg"
    assert bytes_of(store, 0, 2) == b"ab"
    assert bytes_of(store, 7, 8) == b"h"


def test_a_byte_leaves_once(store):
    """Any overlap with bytes already taken is refused, and the rest of the request stays where it was."""
    store.store(block(1, 0, b"abcdefgh"))
    bytes_of(store, 2, 4)

    with pytest.raises(Missing):
        store.take([Range(QC, 4, 6), Range(QC, 3, 4)])

    assert bytes_of(store, 4, 6) == b"ef"


def test_a_byte_leaves_once_across_a_restart(store, path):
    """What was taken before a crash cannot be taken after it; what was not is still there."""
    store.store(block(1, 0, b"abcd"))
    bytes_of(store, 0, 2)
    again = KeyStore(path, path.with_suffix(".key"), ttl_slots=3)

    with pytest.raises(Missing):
        again.take([Range(QC, 0, 1)])

    assert bytes_of(again, 2, 4) == b"cd"
    again.close()


def test_a_byte_leaves_once_though_the_machine_forgets_the_last_commits(store, path, monkeypatch):
    """A power failure brings back what the disk had; what may have been used since is erased before anybody asks."""
    store.store(block(1, 0, bytes(1000) * 12))
    bytes_of(store, 0, 32)
    on_disk = path.parent / "before"
    shutil.copytree(path.parent, on_disk, ignore=shutil.ignore_patterns("before", "*-shm"))
    bytes_of(store, 32, 64)
    boot = path.parent / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr("node.key_stream._BOOT_ID", boot)

    again = KeyStore(on_disk / path.name, on_disk / "local.key", ttl_slots=3)

    with pytest.raises(Missing):
        again.take([Range(QC, 32, 64)])
    (held,) = again.held()
    assert held.floor >= 64
    assert held.generated == held.used + held.expired + held.stored
    assert len(bytes_of(again, held.floor, held.head)) == held.head - held.floor > 0
    again.close()


def test_bytes_survive_a_crash_of_the_node_alone(store, path):
    """The machine runs on and forgets nothing, so nothing is given up."""
    store.store(block(1, 0, b"abcdefgh"))
    bytes_of(store, 0, 2)
    bytes_of(store, 2, 4)

    again = KeyStore(path, path.with_suffix(".key"), ttl_slots=3)

    assert bytes_of(again, 4, 8) == b"efgh"
    again.close()


def test_a_repeated_block_changes_nothing(store):
    """A block sent again because its acknowledgement was lost is not stored twice."""
    store.store(block(1, 0, b"abcd"))
    bytes_of(store, 0, 4)

    assert store.store(block(1, 0, b"abcd")) is False
    assert store.held()[0].stored == 0


def test_expired_bytes_are_never_given(store):
    """Bytes made in slot 1 with a TTL of 3 slots serve in slots 1 to 3; from slot 4 on they are refused and erased."""
    store.store(block(1, 0, b"abcd"))
    store.store(block(3, 4, b"efgh"))
    assert bytes_of(store, 0, 1) == b"a"

    store.store(block(4, 8, b""))

    with pytest.raises(Missing):
        store.take([Range(QC, 1, 2)])
    assert store.expire(QC) == 3
    (held,) = store.held()
    assert (held.generated, held.used, held.expired, held.stored) == (8, 1, 3, 4)
    assert held.floor == 4


def test_nothing_is_promised_in_its_last_slot(store):
    """What expires with the next block can still be taken by who was promised it, but nobody new is promised it."""
    for slot in (1, 2, 3):
        store.store(block(slot, 4 * (slot - 1), b"abcd"))

    (held,) = store.held()
    assert held.floor == 4
    assert bytes_of(store, 0, 4) == b"abcd"


def test_a_lost_block_leaves_a_gap_that_nothing_spans(store):
    """After a gap new allocations start behind it, while what was promised before it can still be taken."""
    store.store(block(1, 0, b"abcd"))
    store.store(block(2, 10, b"klmn"))

    (held,) = store.held()
    assert (held.floor, held.head) == (10, 14)
    assert bytes_of(store, 0, 4) == b"abcd"
    with pytest.raises(Missing):
        store.take([Range(QC, 8, 12)])


def test_nothing_readable_lies_on_disk(store, path):
    """Neither waiting nor taken key bytes stand in the files in the clear, and the files are private."""
    store.store(block(1, 0, b"quite-recognisable-key-material"))
    bytes_of(store, 0, 10)
    store.put_relayed([RelayedKey("k", "s", "m", "v", Secret(b"another-recognisable-key"))], QC)

    for file in path.parent.iterdir():
        assert b"recognisable" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0


def test_relayed_key_waits_sealed_and_nowhere_else(store):
    """What is ours of it in memory is wiped."""
    key = Secret(b"key")

    store.put_relayed([RelayedKey("k1", "s", "m", "v", key)], QC)

    assert len(key) == 0


def test_relayed_keys_are_taken_all_or_none_and_once(store):
    """A request with one unknown ID takes nothing; a key taken is gone."""
    store.put_relayed([RelayedKey("k1", "s", "m", "v", Secret(b"key"))], QC)

    assert store.take_relayed(["k1", "unknown"]) is None
    (key,) = store.take_relayed(["k1"])
    assert key.key.reveal() == b"key"
    assert store.take_relayed(["k1"]) is None


def test_relayed_keys_expire(store):
    """One that nobody fetched is gone, a little later than the TTL: its master may have got it in the last moment."""
    store.store(block(1, 0, b"a"))
    store.put_relayed([RelayedKey("k1", "s", "m", "v", Secret(b"key"))], QC)

    store.store(block(5, 1, b""))
    store.expire(QC)
    assert store.relayed_owners(["k1"]) == {"k1": ("m", "v")}

    store.store(block(6, 1, b""))
    store.expire(QC)
    assert store.relayed_owners(["k1"]) == {}


def test_keys_that_were_found_leave_the_stream_and_wait(store):
    """Those that are still held; one that expired meanwhile is left out and harms no other."""
    store.store(block(1, 0, b"abcd"))
    made = [("k1", 0, 2), ("k2", 2, 9), ("k3", 2, 4)]
    found = [Instruction(key_id, "r", "s", "m", "v", Range(QC, start, end), False) for key_id, start, end in made]

    assert store.keep_found(found) == {"k2"}
    assert set(store.relayed_owners(["k1", "k2", "k3"])) == {"k1", "k3"}
    assert [k.key.reveal() for k in store.take_relayed(["k1", "k3"])] == [b"ab", b"cd"]
    assert store.held()[0].stored == 0
