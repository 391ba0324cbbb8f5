"""What journals of nodes and applications say, for those that come from elsewhere: each event, with the members that
readers take for granted. PURE.

Who reads a journal (summary, stories, live view, audit) takes it for the word of our own processes. A journal that a
worker sends is the word of whoever is root there. `check` holds a line of it to what an honest process may write, so
that no reader has to doubt it. Members that are named here nowhere have to be plain data, of little depth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from documents.checks import Malformed, integer, mapping, number
from mtls import json_text
from telemetry import bugs

Check = Callable[[Any, str], object]
_Members = Mapping[str, Check]

_MOST = (1 << 63) - 1
_DEEPEST = 6  # lists and objects within each other
_LONGEST = 100_000  # entries; a line has a bound of its own
_ID = re.compile("[0-9a-f]{16}|[0-9a-f]{32}")  # of a span, of a trace


def _text(value: Any, field: str) -> None:
    if not isinstance(value, str):
        raise Malformed(field, "a text")


def _flag(value: Any, field: str) -> None:
    if not isinstance(value, bool):
        raise Malformed(field, "true or false")


def _id(value: Any, field: str) -> None:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Malformed(field, "16 or 32 hexadecimal digits")


def _list(of: Check, value: Any, field: str, *, fewest: int = 0) -> None:
    if not isinstance(value, list) or not fewest <= len(value) <= _LONGEST:
        raise Malformed(field, f"an array of at least {fewest} entries" if fewest else "an array")
    for one in value:
        of(one, field)


def _object(of: Check, value: Any, field: str) -> None:
    for one in mapping(value, field).values():
        of(one, field)


def _range(value: Any, field: str) -> None:
    if not isinstance(value, list) or len(value) != 4:
        raise Malformed(field, "rows of QC, start, end and purpose")
    qc, start, end, purpose = value
    _text(qc, field)
    _whole(start, field)
    _whole(end, field)
    _text(purpose, field)


def _or_null(of: Check, value: Any, field: str) -> None:
    if value is not None:
        of(value, field)


def _anything(value: Any, field: str, left: int = _DEEPEST) -> None:
    if not left:
        raise Malformed(field, f"no more than {_DEEPEST} lists and objects within each other")
    inside = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    for one in inside:
        _anything(one, field, left - 1)


_whole = partial(integer, low=0, high=_MOST)
_number = partial(number, low=-1e15, high=1e15)
_lasting = partial(number, low=0, high=1e12)  # ms or s
_hops = partial(integer, low=0, high=10_000)
_texts, _ranges = partial(_list, _text), partial(_list, _range)
_path = partial(_list, _text, fewest=2)
_of_text, _of_whole = partial(_object, _text), partial(_object, _whole)

_EVERY: _Members = {"time": partial(number, low=0, high=1e11), "mono": _number}
# These have one meaning, wherever they stand.
_ANYWHERE: _Members = {
    **dict.fromkeys(("trace", "span", "parent", "above"), _id),
    **dict.fromkeys(("cause", "message", "error", "qc", "node", "by", "to", "mode", "source", "reason"), _text),
    **dict.fromkeys(("master_sae", "slave_sae", "key_id", "side", "method", "statement", "allocation"), _text),
    **dict.fromkeys(("short_bytes", "needed_bytes", "available_bytes", "needed", "most", "size_bits"), _whole),
    **dict.fromkeys(("key_ids", "ahead", "allocations", "made_in", "down"), _texts),
    "ksid": partial(_or_null, _text), "cipher": partial(_or_null, _text), "enough": _hops, "hops": _hops,
    "at": _number, "duration_ms": _lasting, "max_bandwidth": _number, "at_once": _flag,
    "ranges": partial(_or_null, _ranges),
}  # fmt: skip
_PAIR: _Members = {"master_sae": _text, "slave_sae": _text}
_LOST: _Members = {"cause": _text, "ranges": _ranges}
_STATEMENT: _Members = {"at": _number, "duration_ms": _lasting, "key_ids": _texts}
_OF_BOTH: Mapping[str, _Members] = {
    "call": {"method": _text, "path": _text, "to": _text, "at": _number, "duration_ms": _lasting},
    "stopped": {},
    "events_lost": {"number": _whole},
    bugs.EVENT: {"what": _text, "error": _text}, bugs.REFUSED: {"what": _text, "error": _text},
}
_OF_BLOCK: _Members = {"qc": _text, "epoch": _whole, "start": _whole, "end": _whole}
# By event; where one has several forms, also by its method or statement. `given`: what an allocation was given.
_OF_NODES: Mapping[str, _Members] = {
    **_OF_BOTH,
    "started": {}, "parameters": {"mode": _text}, "rate": {"qc": _text, "low": _number, "high": _number},
    "link_status": {"qc": _text, "status": _text}, "older_copy_erased": {},
    "new_app": {**_PAIR, "side": _text}, "new_app_answered": {**_PAIR, "side": _text, "duration_ms": _lasting},
    "session_configured": {**_PAIR, "ksid": _text}, "session_idle": {"ksid": _text},
    "session_expired": {"ksid": _text}, "session_removed": {"ksid": _text},
    "key_delivered enc_keys": {
        **_PAIR, "ksid": _text, "key_ids": _texts, "hops": _hops, "mode": _text, "size_bits": _whole, "source": _text,
        "duration_ms": _lasting,
    },
    "key_delivered dec_keys": {**_PAIR, "key_ids": _texts, "duration_ms": _lasting},
    "key_failed enc_keys": {**_PAIR, "cause": _text, "duration_ms": _lasting},
    "key_failed dec_keys": {**_PAIR, "cause": _text, "duration_ms": _lasting, "key_ids": _texts},
    "lost": {**_LOST, "allocation": _text},
    "lost enc_keys": {**_LOST, "key_ids": _texts}, "lost dec_keys": {**_LOST, "key_ids": _texts},
    "statement allocate": {**_STATEMENT, "allocation": _text, "ksid": _text},
    "statement allocate given": {
        **_STATEMENT, "allocation": _text, "ksid": _text, "mode": _text, "cipher": partial(_or_null, _text),
        "path": _path, "ranges": _ranges,
    },
    "statement collect": _STATEMENT, "statement deliver": _STATEMENT,
    "used": {"allocation": _text, "ranges": _ranges}, "reported": {"at": _number, "known": _of_whole},
    "block_differs": _OF_BLOCK, "keys_relayed": {"allocation": _text, "ksid": _text, "key_ids": _texts},
    "relay_failed": {"cause": _text}, "part_lost": {"allocation": _text, "path": _texts, "cause": _text},
    "device": {"qc": _text, "state": _text, "why": _text}, "device_trusted": {"qc": _text},
    "device_suspected": {"qc": _text, "cause": _text}, "device_gap": _OF_BLOCK,
    "device_block": {**_OF_BLOCK, "made": _number, "at": _number},
}  # fmt: skip
_OF_SAES: Mapping[str, _Members] = {
    **_OF_BOTH,
    "started": {"saes": _of_text},
    "session_requested": {**_PAIR, "duration_s": partial(_or_null, _lasting)},
    "ask_connection": {**_PAIR, "duration_ms": _lasting}, "open_key_session": {**_PAIR, "duration_ms": _lasting},
    "session_waits": {**_PAIR, "retry_s": _lasting},
    "session_refused": {**_PAIR, "cause": _text, "message": _text},
    "session_failed": {**_PAIR, "cause": _text, "message": _text},
    "session_open": {
        **_PAIR, "ksid": _text, "path": _texts, "hops": _hops,
        **dict.fromkeys(("ask_connection_ms", "open_key_session_ms", "total_ms"), _lasting),
    },
    "session_closed": {"ksid": _text, "reason": _text, "keys": _whole, "errors": _of_whole, "errors_said": _of_text},
    "key": {"key_id": _text, "side": _text, "size_bits": _whole, "fingerprint": _text, "duration_ms": _lasting},
    "key_error": {
        "side": _text, "peer": _text, "cause": _text, "message": _text, "facts": partial(_object, _anything),
    },
    "message": {"key_id": _text, "side": _text, "ok": _flag},
}  # fmt: skip
BY_KIND: Mapping[str, Mapping[str, _Members]] = {"nodes": _OF_NODES, "saes": _OF_SAES}
_WRITERS = {"nodes": "node", "saes": "sae"}


def check(line: bytes, kind: str, name: str) -> None:
    """Malformed unless a line, with its end, is one of the journal of the node or of the applications (`kind`: a key of
    `BY_KIND`) of that name.
    """
    try:
        event = json_text.loads(line, parse_constant=_no_number)
        if b"\\ud" in line.lower():
            json.dumps(event, ensure_ascii=False).encode()  # half a character cannot be written anywhere
    except (ValueError, RecursionError):
        raise Malformed("line", "JSON") from None
    of_kind = BY_KIND[kind]
    form = _form(mapping(event, "line"))
    if form not in of_kind:
        raise Malformed("event", f"one that {'a node' if kind == 'nodes' else 'an application'} writes")
    needed = {**_EVERY, **of_kind[form]}
    for member, of in needed.items():
        if member not in event:
            raise Malformed(f"{form}: {member}", "to be there")
        of(event[member], f"{form}: {member}")
    for member, value in event.items():
        if member not in needed:
            # Members of strangers may have any name, and what is said is to be one line.
            of = _ANYWHERE.get(member, _anything)
            of(value, f"{form}: {member if member in _ANYWHERE else 'a member'}")
    # Of a party that has too many key sessions a failure tells under this member.
    if event.get("who") != f"{_WRITERS[kind]}:{name}" and not ("most" in event and isinstance(event.get("who"), str)):
        raise Malformed(f"{form}: who", f"{_WRITERS[kind]}:{name}")
    for member, above in (("span", "trace"), ("parent", "span"), ("above", "parent")):
        if member in event and above not in event:
            raise Malformed(f"{form}: {above}", f"to be there beside {member}")


def _form(event: Mapping[str, Any]) -> str:
    words = [event.get("event"), event.get("statement") if "statement" in event else event.get("method")]
    if words[0] not in ("statement", "key_delivered", "key_failed", "lost"):
        words = words[:1]
    given = ["given"] if words[0] == "statement" and words[1] == "allocate" and event.get("ranges") else []
    return " ".join(str(word)[:40] for word in (*words, *given) if word is not None)


def _no_number(text: str) -> None:
    raise ValueError(text)
