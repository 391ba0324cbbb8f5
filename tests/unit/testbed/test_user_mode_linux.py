"""What is told of a virtual machine that ended by itself."""

from __future__ import annotations

import pytest

from testbed.virtual_machine.user_mode_linux import last_words

PANIC = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (f"booting\nVFS: file-max limit reached\n{PANIC}\nCall Trace:\n", f"{PANIC} (before that: VFS: file-max limit reached)"),  # noqa: E501
        (PANIC, PANIC),
        ("booting\nreboot: System halted\n\n", "reboot: System halted"),
        ("", "its kernel said nothing"),
    ],
)
def test_cause_of_a_panic_is_told(log, words):
    """It stands before the panic."""
    assert last_words(log) == words
