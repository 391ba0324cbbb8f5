"""A function or an object in a Python file of the user's: found, checked, and called so that its faults hurt nobody.

What raises, takes too long or gives what it must not is told with its file and line. A call has a time limit: a thread
that watches raises an exception in the one that calls, which comes there between two steps of Python. A step that takes
for ever, as a call of a library in C may, cannot be ended so.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import importlib.util
import inspect
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

LIMIT_S = 1.0  # of one call
_SUFFIX = ".py"


class PlugError(ValueError):
    """What cannot be used; one line."""


class PluggedFailed(Exception):
    """A call that raised, took too long or gave nonsense; one line with file and line."""


class _TooSlow(BaseException):
    """No `except Exception` of the user's is to catch it."""


def absolute(reference: str) -> str:
    """The same, whichever folder somebody works in who reads it."""
    file, _, name = reference.rpartition(":")
    return f"{Path(file).absolute()}:{name}"


def find(reference: str) -> tuple[str, Any]:
    """The name and the object that FILE.py:NAME refers to; PlugError."""
    file, _, name = reference.rpartition(":")
    if not file.endswith(_SUFFIX) or not name.isidentifier():
        raise PlugError(f"{reference!r}: expected FILE.py:NAME")
    module = _load(Path(file))
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        close = difflib.get_close_matches(name, public, n=1)
        raise PlugError(f"{file} has no {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return name, getattr(module, name)


def function(reference: str, *arguments: str) -> tuple[str, Callable[..., Any]]:
    """The name and the function, which takes these arguments by their places; PlugError."""
    name, found = find(reference)
    wanted = f"a function of ({', '.join(arguments)})"
    if not callable(found):
        raise PlugError(f"{reference}: expected {wanted}, got {type(found).__name__}")
    try:
        inspect.signature(found).bind(*arguments)
    except (TypeError, ValueError) as error:
        raise PlugError(f"{reference}: expected {wanted}: {error}") from None
    return name, found


def call(reference: str, step: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """What `step` gives, which calls what `reference` refers to; PluggedFailed."""
    file = reference.rpartition(":")[0]
    try:
        with _watched(limit_s):
            return step()
    except _TooSlow as error:
        raise PluggedFailed(f"{_place(error, file)} takes longer than {limit_s:g} s") from None
    except PluggedFailed:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        what = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise PluggedFailed(f"{_place(error, file)} raises {what}") from None


def _load(path: Path) -> ModuleType:
    path = path.absolute()
    spec = importlib.util.spec_from_file_location(f"plugged_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise PlugError(f"{path}: no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for what their annotations mean
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise PlugError(f"{path}, line {error.lineno}: {error.msg}") from None
    except Exception as error:
        raise PlugError(f"{_place(error, str(path))} raises {type(error).__name__}: {error}") from None
    return module


def _place(error: BaseException, file: str) -> str:
    """The innermost line of the user's file that the error went through."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == Path(file).name]
    return f"{file}, line {lines[-1]}:" if lines else f"{file}:"


@contextlib.contextmanager
def _watched(limit_s: float) -> Iterator[None]:
    """The block in its time; _TooSlow comes there when that is over."""
    thread, guard, over = ctypes.c_ulong(threading.get_ident()), threading.Lock(), threading.Event()

    def end() -> None:
        with guard:
            if not over.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_TooSlow))

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with guard:
            over.set()
            # One that was raised and has not come yet would strike whoever is next.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)
        timer.cancel()
