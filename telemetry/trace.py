"""W3C Trace Context: which story a piece of work belongs to, carried from process to process in `traceparent`.

A trace is one story: the opening of a key session, a key from the application that wants it to the one that gets the
same. A span is a part of it: a request at the one who sends it, or at the one who serves it. The span that is under
way is in a context variable; a server sets it for each request, a client sends it, a journal writes it down. What
runs in another thread has none unless it is `carried` there.

`tracestate` is not passed on: it is the caller's word, of no use to us, and would reach parties that it is not for.
"""

from __future__ import annotations

import contextvars
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

HEADER = "traceparent"
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.DOTALL)
_VERSION, _INVALID_VERSION = "00", "ff"
_SAMPLED = "01"  # we keep what we say: every event of a trace is in some journal
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a trace, and the part that it belongs to: 32, 16 and 16 hexadecimal digits. A first one has none.

    `above` is the parent's parent, as far as it is known: of a parent that did nothing but call others nobody tells.
    """

    trace: str
    span: str
    parent: str | None = None
    above: str | None = None


# Not the kernel's own (os.urandom), at each call of which another thread goes on: with 16 clients two of 16 changes of
# thread that a key costs. And not the one that all share, which a program may seed.
_chance = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_chance.seed)
_current: contextvars.ContextVar[Span | None] = contextvars.ContextVar("span", default=None)


def parse(header: str | None) -> Span | None:
    """The caller's span; None if there is no header, or if Trace Context, clause 3.2, says that it is not valid. PURE.

    Of a later version of the standard what this one knows is read, as it asks.
    """
    found = _TRACEPARENT.fullmatch(header or "")
    if found is None or found[1] == _INVALID_VERSION or (found[1] == _VERSION and found[4] is not None):
        return None
    if found[2] == _NO_TRACE or found[3] == _NO_SPAN:
        return None
    return Span(found[2], found[3])


def to_header(span: Span) -> str:
    """The header's value for a request that is that span. PURE."""
    return f"{_VERSION}-{span.trace}-{span.span}-{_SAMPLED}"


def current() -> Span | None:
    """The span that is under way in this thread."""
    return _current.get()


def ids() -> dict[str, str]:
    """The same for a journal: `trace`, `span` and, unless it is a first one, `parent`; empty outside of all traces."""
    found = _current.get()
    if found is None:
        return {}
    own = {"trace": found.trace, "span": found.span}
    return own if found.parent is None else own | {"parent": found.parent}


@contextmanager
def begin() -> Iterator[Span]:
    """A new trace, for the block."""
    with _under(Span(_digits(32), _digits(16))) as span:
        yield span


@contextmanager
def received(header: str | None) -> Iterator[Span]:
    """The block serves a request with that header: it goes on with the caller's trace, or begins one."""
    caller = parse(header)
    if caller is None:
        with begin() as span:
            yield span
    else:
        with _under(Span(caller.trace, _digits(16), caller.span)) as span:
            yield span


@contextmanager
def part() -> Iterator[Span | None]:
    """The block is a part of what is under way; outside of all traces nothing changes."""
    whole = _current.get()
    if whole is None:
        yield None
    else:
        with _under(Span(whole.trace, _digits(16), whole.span, whole.parent)) as span:
            yield span


def carried(step: Callable[P, R]) -> Callable[P, R]:
    """`step`, which runs in the trace of now in whatever thread it is called; once."""
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.run(step, *args, **kwargs)

    return run


@contextmanager
def _under(span: Span) -> Iterator[Span]:
    token = _current.set(span)
    try:
        yield span
    finally:
        _current.reset(token)


def _digits(number: int) -> str:
    """So many hexadecimal digits that nobody else has; they are no secret."""
    return f"{_chance.getrandbits(4 * number):0{number}x}"
