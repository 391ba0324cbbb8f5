"""W3C Trace Context: the header's law, and which trace is under way where."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import journal, trace

HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEX = "0123456789abcdef"


def ids(digits: int) -> st.SearchStrategy[str]:
    """Trace or span IDs that are valid."""
    return st.text(HEX, min_size=digits, max_size=digits).filter(lambda t: t.strip("0") != "")


@given(ids(32), ids(16))
def test_what_is_written_is_read(trace_id, span_id):
    """A header carries trace and span from one process to the next."""
    assert trace.parse(trace.to_header(trace.Span(trace_id, span_id))) == trace.Span(trace_id, span_id)


@given(st.text())
def test_any_header_is_read_or_ignored(text):
    """Nothing that a client sends is an error, and what is taken is what the standard allows."""
    found = trace.parse(text)

    assert found is None or (trace.to_header(found)[:53] == "00" + text[2:53])


@pytest.mark.parametrize(
    "header",
    [
        None, "", HEADER.upper(), HEADER[:-1], HEADER + "0", " " + HEADER, HEADER + "\n", "ff" + HEADER[2:],
        HEADER + "-extra", HEADER.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        HEADER.replace("00f067aa0ba902b7", "0" * 16), HEADER + "," + HEADER, "cc" + HEADER[2:] + "x",
    ],
)  # fmt: skip
def test_invalid_header_begins_a_new_trace(header):
    """Clause 3.2: no version ff, no zeros, lower case, no more and no less in version 00."""
    assert trace.parse(header) is None
    with trace.received(header) as span:
        assert span.parent is None
        assert span.trace not in HEADER


def test_processes_that_are_forked_or_seed_their_chance_draw_other_ids():
    """Nodes come from one process, and a notebook may call `random.seed`."""
    program = """
import os, random
from telemetry import trace
os.fork()
random.seed(1)
with trace.begin() as span:
    os.write(1, f"{span.trace} {span.span} ".encode())
"""
    drawn = [
        digits
        for _ in range(2)
        for digits in subprocess.check_output([sys.executable, "-c", program], text=True).split()
    ]

    assert [len(digits) for digits in drawn] == [32, 16] * 4
    assert len(set(drawn)) == len(drawn)


def test_later_version_is_read_as_far_as_it_is_known():
    """Clause 3.2.4: what a future version adds comes behind another hyphen."""
    assert trace.parse("cc" + HEADER[2:] + "-what-the-future-will-be-like") == trace.parse(HEADER)


def test_request_goes_on_with_the_callers_trace():
    """As a span of its own, below the caller's."""
    with trace.received(HEADER) as span:
        assert (span.trace, span.parent) == (HEADER[3:35], HEADER[36:52])
        with trace.part() as part:
            assert (part.trace, part.parent, part.above) == (span.trace, span.span, span.parent)
    assert trace.current() is None


def test_outside_of_all_traces_there_are_no_parts():
    """What nobody asked for is nobody's story."""
    with trace.part() as part:
        assert part is None
        assert trace.ids() == {}


def test_step_is_carried_into_another_thread():
    """Where it would else be in no trace."""
    with ThreadPoolExecutor(1) as pool, trace.begin() as span:
        assert pool.submit(trace.current).result() is None
        assert pool.submit(trace.carried(trace.current)).result() == span
        assert pool.submit(trace.current).result() is None


def test_journal_has_the_ids_of_what_is_under_way(tmp_path):
    """Beside what the event says itself; none outside of traces."""
    book = journal.Journal(tmp_path / "journal.jsonl", "node:a", context=trace.ids)
    book.event("before")
    with trace.received(HEADER) as span:
        book.event("within", key_id="k")
    book.close()

    before, within = journal.read(tmp_path / "journal.jsonl")
    assert not {"trace", "span", "parent"} & before.keys()
    assert (within["trace"], within["span"], within["parent"]) == (span.trace, span.span, HEADER[36:52])
