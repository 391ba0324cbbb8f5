"""Run a command to which the kernel answers each request to sync a file at once, with success: unsynced.py COMMAND...

What a process wrote stays with the kernel when the process is killed; to sync it guards against the end of the machine
alone. That ends a run, and nothing of a run outlives it. A service that has to agree with others within a second (etcd)
loses its place, though, whenever a busy disk takes longer, and of that no machine of a run is to die.

The filter (seccomp) holds for the command and its children. To set it takes root; the command may give that up. It is
run as a file, so it imports nothing of ours. Where a kernel has no such filters the command runs without one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys

# Of linux/audit.h and asm/unistd.h: the architecture, and the numbers of fsync and fdatasync there.
_CALLS = {"x86_64": (0xC000003E, 74, 75), "aarch64": (0xC00000B7, 82, 83)}
# Of linux/bpf_common.h and linux/seccomp.h: load a word of the call; jump if it is equal; return.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_SUCCEED, _ALLOW = 0x00050000, 0x7FFF0000  # the error number 0, without the call; the call
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


def filter_program(architecture: int, *numbers: int) -> bytes:
    """Instructions (struct sock_filter) that have the system calls of these numbers succeed at once. PURE."""
    tests = [(_JUMP_IF_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 0, len(numbers) + 1, architecture),
        (_LOAD, 0, 0, _NUMBER),
        *tests,
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _SUCCEED),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def set_filter(program: bytes) -> None:
    """Have the kernel put each system call of this process through these instructions; OSError."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    given = Program(len(program) // 8, program)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(given), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    if calls := _CALLS.get(platform.machine()):
        with contextlib.suppress(OSError):
            set_filter(filter_program(*calls))
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the command of whoever starts it
