"""A component to be forked, as node, controller and SAE processes are: it does what its configuration says."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import ssl
import sys
import threading
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.memory import memory


def _own_kb() -> int:
    """What it has of memory for itself alone."""
    return next(memory(os.getpid())).own


def _arenas(threads: int, scratch: Path) -> int:
    """From how many of malloc's arenas so many threads are served, all at work at once."""
    libc = ctypes.CDLL(None)
    libc.fopen.restype, libc.malloc.restype = ctypes.c_void_p, ctypes.c_void_p
    together = threading.Barrier(threads)

    def work() -> None:
        libc.malloc(1000)
        together.wait()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    file = ctypes.c_void_p(libc.fopen(str(scratch).encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    return scratch.read_text().count("<heap nr=")


def main(path: Path) -> int:
    """Tell who it is, be ready, wait if it is to; the exit status."""
    config = json.loads(path.read_text())
    own_kb = _own_kb()
    told = {
        "parent": os.getppid(), "session": os.getsid(0), "network": str(Path("/proc/self/ns/net").readlink()),
        "folder": str(Path.cwd()), "threads": threading.active_count(), "argv": sys.argv,
        "descriptors": sorted(str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink()),
        "handlers": [number.name for number in signal.Signals if callable(signal.getsignal(number))],
        "random": [
            os.urandom(8).hex(), ssl.RAND_bytes(8).hex(),
            ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value,
        ],
    }  # fmt: skip
    AESGCM(AESGCM.generate_key(256)).encrypt(bytes(12), b"first", None)
    told["first_keys_kb"] = _own_kb() - own_kb
    if threads := config.get("at_work"):
        told["arenas"] = _arenas(threads, path.with_suffix(".arenas"))
    Path(config["tell"]).write_text(json.dumps(told))
    if config.get("bug"):
        raise ValueError(config["bug"])
    print("ready", flush=True)
    print("a last word", file=sys.stderr, flush=True)
    while config.get("wait"):
        signal.pause()
    return int(config.get("status", 0))
