"""Whatever single thing of a run's records is changed: the audit finds it, or it is listed here why it need not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.audit.evidence import Unreadable
from tests.unit.audit.played import PLAYED, verdict

Path = tuple[str | int, ...]
DROP, AGAIN, CHANGE = "drop", "again", "change"

# What may happen without a finding: where, with an event's name or # for a number, and what is done there; and why.
HARMLESS = {
    r"records meant .*": "the measure of all: what a run was meant to be is told by nobody else",
    r".* (time|mono|who|trace|cause|error|duration_ms) \w+": "for people, within tolerance, or an excuse not needed",
    r"(controller|nodes \w|saes \w) \w+ event \w+": "as if the event were not there: see the lines on 'drop'",
    r"qcs stopped event \w+": "the same",
    r"controller parameters( ttl_slots)? \w+": "all was young enough by each TTL of the run",
    r"controller ksid_assigned (drop|again|ksid .*)": "the master tells of its session, too",
    r"saes \w session_open (drop|again|ksid .*)": "the controller tells of each session, too",
    r"qcs block (made|slot) change": "a time between those of the neighbours; the audit is as exact as a slot",
    r"qcs block_lost sequence change": "a block as long as the one lost, of which nothing was used",
    r"qcs stopped .*": "what may have been on its way at the end came, but for one block",
    r"records nodes \w taken # [45] change": "a time between those of the neighbours; for `made` the QC's word counts",
    r"records allocations # [45] change": "the database's answer was lost and nothing taken: nobody else knows it",
    r"nodes b used .*": "it ended without a word soon after, and might not have told",
    r"nodes \w (started|stopped) .*": "a node's end excuses what is not told; all is told",
    r"nodes \w statement (drop|statement .*)": "what came of the allocation is told apart",
    r"nodes b statement request change": "the database's answer was lost: nothing came of the allocation",
    r"nodes \w (statement|used|lost) ranges # 3 change": "what a pad was for: only a key is used differently",
    r"nodes \w lost (again|ranges # again)": "a loss that is told twice is one",
    r"nodes a lost (drop|request change|key_ids drop|ranges drop)": "that a client was gone nobody else knows",
    r"nodes c lost (drop|ranges # drop)": "that the bytes of a key were gone nobody else knows",
    r"nodes b lost (drop|request change)": "the statement says that no answer came",
    r"nodes c key_delivered (drop|key_ids \d (drop|change)|event change)": "of a client that keeps no journal",
    r"saes \w (started|stopped|message) (again|drop|event change|ok .*)": "nothing else follows from it",
    r"saes \w started saes sae-\w change": "the name of an application, for people",
    r"saes \w (message|key_error) (ksid|side|key_id|again) ?\w*": "said of another key of the same application",
    r"saes \w key_error again": "said twice",
    r"saes b key (drop|fingerprint change|size_bits change)": "a key that only its slave got",
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
    else:
        copy[name] = value
    return copy


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
    if isinstance(value, str):
        return path, CHANGE, draw(st.sampled_from(VALUES).filter(lambda other: other != value))
    if isinstance(value, bool):
        return path, CHANGE, not value
    return path, CHANGE, value + draw(NUMBERS)


@settings(max_examples=300, deadline=None)
@given(mutations())
def test_single_mutation_is_found_or_harmless(mutation):
    """Numbers, IDs and rows of all records and journals."""
    path, what, value = mutation
    run = changed(PLAYED, path, what, value)
    try:
        found = bool(verdict(run).findings)
    except Unreadable:
        found = True

    words = spoken(path, what)
    assert found or any(re.fullmatch(pattern, words) for pattern in HARMLESS), (words, value)
