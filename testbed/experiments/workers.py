"""Work in virtual time shared out: to all cores of this machine, or to a Dask cluster (dask.distributed).

A task is a function and an item, and both travel; a result depends on nothing else. So the results are the same,
wherever and in whatever order the tasks are done, and a task whose worker is lost is done again by another one.
"""

from __future__ import annotations

import functools
import hashlib
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import UserError
from testbed.machine.namespaces import die_with_parent

_ROOT = Path(__file__).resolve().parents[2]
# What results are made of, beside the task itself.
_ROOMS = ("decisions", "documents", "etsi", "scenario", "simulation", "testbed/experiments")
_ANSWERS_WITHIN_S = 10
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextmanager
def workers(address: str | None) -> Iterator[Each]:
    """What gives a function's results for items, in their order, as they come. UserError, also while it is used.

    `address`: of the scheduler of a Dask cluster; None: this machine.
    """
    if address is None:
        pool = ProcessPoolExecutor(initializer=_begin)
        try:
            yield pool.map
        except BrokenProcessPool:
            raise UserError("a worker process was killed: is there enough memory?") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    else:
        yield from _cluster(address)


def _begin() -> None:
    """A worker of this machine begins. One that is interrupted says nothing: the process that waits for it does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(signal.SIGKILL)  # it would wait for its next task for ever


def _cluster(address: str) -> Iterator[Each]:
    try:
        import distributed
    except ImportError:
        raise UserError("--dask needs the package distributed: .venv/bin/pip install distributed") from None
    refused = f"--dask {address}:"
    try:
        client = distributed.Client(address, timeout=_ANSWERS_WITHIN_S, set_as_default=False)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{refused} no Dask scheduler answers there: {_first_line(error)}") from None

    def each(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        futures = client.map(_Checked(function, sources()), list(items), pure=False)
        while futures:  # one that is read is let go of, and the cluster forgets it
            yield futures.pop(0).result()

    try:
        client.wait_for_workers(1, timeout=_ANSWERS_WITHIN_S)
        yield each
    except distributed.KilledWorker as error:
        raise UserError(f"{refused} workers died, one after another, of one task: {_first_line(error)}") from None
    except ModuleNotFoundError as error:
        raise UserError(f"{refused} no module {error.name!r} there: start all of it in a checkout") from None
    except (OSError, TimeoutError, distributed.CancelledError) as error:
        raise UserError(f"{refused} the cluster is gone, or has no workers: {_first_line(error)}") from None
    finally:
        client.close(timeout=_ANSWERS_WITHIN_S)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A function that is called only where the sources are those with that digest."""

    function: Callable[[Any], Any]
    sources: str

    def __call__(self, item: Any) -> Any:
        if sources() != self.sources:
            raise UserError(f"a worker has other sources than this checkout: expected the same in {_ROOT} there")
        return self.function(item)


@functools.cache
def sources() -> str:
    """A digest of the modules that results depend on."""
    digest = hashlib.sha256()
    for path in sorted(path for room in _ROOMS for path in (_ROOT / room).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
