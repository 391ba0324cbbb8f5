"""Whatever single thing of a run's records is changed: the audit finds it, or it is listed here why it need not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.audit.evidence import Unreadable
from tests.support.played_run import PLAYED, verdict

Path = tuple[str | int, ...]
DROP, AGAIN, CHANGE, CUT = "drop", "again", "change", "cut"

# What may happen without a finding: where, with an event's name or # for a number, and what is done there; and why.
HARMLESS = {
    r"records meant .*": "the measure of all: what a run was meant to be is told by nobody else",
    r".* (time|mono|who|trace|parent|cause|error|duration_ms) \w+": "for people, tolerated, or an excuse not needed",
    r"\w+ stopped again|\w+ \w stopped again|run killed again": "an end that is told twice is one",
    r"run ready .*": "who was not killed has to tell that it started all the same",
    r"controller parameters (ttl_slots change|drop|again|event change)": "all was young enough by each TTL of the run",
    r"controller ksid_assigned (drop|again|event change|ksid .*)": "the master tells of its session, too",
    r"saes \w session_open (drop|again|event change|ksid .*)": "the controller tells of each session, too",
    r"qcs block (made|slot) change": "a time between those of the neighbours; the audit is as exact as a slot",
    r"qcs block_lost sequence change": "a block as long as the one lost, of which nothing was used",
    r"qcs stopped waiting # (3 change|again)": "what may have been on its way at the end came, but for one block",
    r"records nodes \w taken # [45] change": "a time between those of the neighbours; for `made` the QC's word counts",
    r"records allocations # [45] change": "the database's answer was lost and nothing taken: nobody else knows it",
    r"nodes b statement (drop|event change|statement change)": "the last one before it was killed",
    r"nodes \w (statement|used|lost) ranges # 3 change": "what a pad was for: only a key is used differently",
    r"nodes \w lost (again|ranges # again)": "a loss that is told twice is one",
    r"nodes a lost (drop|(event|allocation|method) change|(key_ids|ranges) drop)": "only it knows that a client left",
    r"nodes c lost (drop|event change|ranges # drop)": "a key that was never fetched, of which its node need not tell",
    r"nodes c key_delivered (drop|key_ids \d (drop|change)|event change)": "of a client that keeps no journal",
    r"saes \w message (again|drop|event change|ok .*)": "nothing else follows from it",
    r"saes \w started saes sae-\w change": "the name of an application, for people",
    r"saes \w (message|key_error) (ksid|side|key_id|again) ?\w*": "said of another key of the same application",
    r"saes \w key_error again": "said twice",
    r"saes b key (fingerprint|size_bits) change": "a key that only its slave got",
    r"gateways \w key ksid change": "a gateway knows no key session",
    r"gateways \w key_error (drop|again|(event|ksid|side) change)": "of a key that never was",
    r"gateways \w started saes gw-\w change": "the name of a gateway, for people",
    r"gateways \w tunnel_(ended|held|closed) (kind|every_s) change": "an end tells of its terms when it turns",
    r"gateways \w tunnel_ended (drop|again|(event|peer) change)": "the gateway ended at once",
    r"gateways \w tunnel_(held|closed) (drop|again|event change)": "it went by its key for a little too long",
    r"gateways b tunnel_keyed (drop|event change)": "an end that hears of no turn stays under the key before",
}  # fmt: skip


def places(document: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in the document."""
    if not isinstance(document, dict | list):
        return
    for name, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*path, name)
        yield from places(value, (*path, name))


def at(document: Any, path: Path) -> Any:
    """What is there."""
    for name in path:
        document = document[name]
    return document


def is_found(run: Any) -> bool:
    """Whether the audit of these records has a finding."""
    try:
        return bool(verdict(run).findings)
    except Unreadable:
        return True


def spoken(path: Path, what: str) -> str:
    """A place and what is done there, in words that `HARMLESS` matches."""
    words = []
    for i, name in enumerate(path, start=1):
        here = at(PLAYED, path[:i])
        row = isinstance(name, int) and isinstance(here, dict | list)
        words.append(str(here.get("event", "#") if isinstance(here, dict) else "#") if row else str(name))
    return " ".join([*words, what])


def changed(document: Any, path: Path, what: str, value: Any) -> Any:
    """The document with that done at the end of the path; what lies beside the path is shared with the old one."""
    name, *rest = path
    copy = document.copy()
    if rest:
        copy[name] = changed(document[name], tuple(rest), what, value)
    elif what == DROP:
        del copy[name]
    elif what == AGAIN:
        copy.insert(name, document[name])
    elif what == CUT:
        del copy[name:]
    else:
        copy[name] = value
    return copy


JOURNALS: list[Path] = [
    ("run",), ("qcs",), ("controller",), *((kind, node) for kind in ("nodes", "saes") for node in "abc"),
    *(("gateways", node) for node in "ab"),
]  # fmt: skip
# The top is given, and of the blocks, which are all alike, a few are enough.
PLACES = [
    path for path in places(PLAYED)
    if len(path) > 1 and (path[0] != "qcs" or path[1] % 10 == 0 or PLAYED["qcs"][path[1]]["event"] != "block")
]  # fmt: skip
VALUES = sorted({v for p in PLACES if isinstance(v := at(PLAYED, p), str)})
NUMBERS = st.sampled_from([1, -1, 8, 16, -16, 400, 10**6, -(10**6)])


@st.composite
def mutations(draw: st.DrawFn) -> tuple[Path, str, Any]:
    """A place, what is done there, and what is there afterwards."""
    path = draw(st.sampled_from(PLACES))
    value = at(PLAYED, path)
    if isinstance(value, dict | list):
        return path, draw(st.sampled_from([DROP, AGAIN] if isinstance(path[-1], int) else [DROP])), None
    if value is None or isinstance(value, str):
        return path, CHANGE, draw(st.sampled_from(VALUES).filter(lambda other: other != value))
    if isinstance(value, bool):
        return path, CHANGE, not value
    return path, CHANGE, value + draw(NUMBERS)


@pytest.mark.parametrize("journal", JOURNALS, ids=" ".join)
def test_journal_that_is_cut_off_at_any_line_is_found(journal):
    """As if its process had written nothing after it; who was not killed has to tell of its start, ready or not."""
    for line, event in enumerate(at(PLAYED, journal)):
        assert is_found(changed(PLAYED, (*journal, line), CUT, None)) or event["event"] == "ready", line


@settings(max_examples=300, deadline=None)
@given(mutations())
def test_single_mutation_is_found_or_harmless(mutation):
    """Numbers, IDs and rows of all records and journals."""
    path, what, value = mutation
    found = is_found(changed(PLAYED, path, what, value))

    words = spoken(path, what)
    assert found or any(re.fullmatch(pattern, words) for pattern in HARMLESS), (words, value)
