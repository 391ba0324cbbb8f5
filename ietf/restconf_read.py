"""RESTCONF (RFC 8040): what of a tree the answer to a GET shows, as its query parameters say. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ietf.restconf import DATA, Model, Target, Tree, absent, find
from ietf.yang import Container, Leaf, LeafList, List, Node, Refusal

ALL, CONFIG, NONCONFIG = "all", "config", "nonconfig"
EXPLICIT, TRIM, REPORT_ALL, TAGGED = "explicit", "trim", "report-all", "report-all-tagged"
UNBOUNDED = 1 << 16
# What marks a default under "report-all-tagged" (RFC 6243, RFC 7952).
DEFAULT_MARK = {"ietf-netconf-with-defaults:default": True}

# The names selected by `fields`, each with what is selected below it; None selects all.
Fields: TypeAlias = "Mapping[str, Fields | None]"
_MAX_FIELDS = 1000
_MAX_NESTING = 32
_MARK = re.compile(r"[()/;]|[^()/;]+")
_EVERYTHING: Fields | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """The query parameters of a GET: clauses 4.8.1 (content), 4.8.2 (depth), 4.8.3 (fields), 4.8.9 (with-defaults)."""

    content: str = ALL
    depth: int = UNBOUNDED
    fields: Fields | None = None
    defaults: str = EXPLICIT

    def shows(self, node: Leaf | LeafList) -> bool:
        """Whether `content` has leaves of that kind."""
        return self.content == ALL or node.config == (self.content == CONFIG)


def query(arguments: Sequence[tuple[str, str]]) -> Query:
    """The query of a GET; Refusal names the parameter that is wrong, also one that is not offered."""
    found: dict[str, str] = {}
    for name, value in arguments:
        if name in found or name not in ("content", "depth", "fields", "with-defaults"):
            text = "expected content, depth, fields and with-defaults, each once"
            raise Refusal("invalid-value", f"query parameter {name[:80]!r}: {text}")
        found[name] = value
    return Query(
        _one_of(found, "content", (ALL, CONFIG, NONCONFIG)),
        _depth(found.get("depth", "unbounded")),
        _fields(found["fields"]) if "fields" in found else _EVERYTHING,
        _one_of(found, "with-defaults", (EXPLICIT, TRIM, REPORT_ALL, TAGGED)),
    )


def _one_of(found: Mapping[str, str], name: str, words: Sequence[str]) -> str:
    """The value of that parameter; the first word where it is left out."""
    value = found.get(name, words[0])
    if value not in words:
        raise Refusal("invalid-value", f"{name}: expected {', '.join(words[:-1])} or {words[-1]}")
    return value


def _depth(text: str) -> int:
    if text == "unbounded":
        return UNBOUNDED
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise Refusal("invalid-value", "depth: expected a number from 1 to 65535, or unbounded")
    return int(text)


def _fields(text: str) -> Fields:
    marks = _MARK.findall(text)
    if len(marks) > _MAX_FIELDS:
        raise _wrong_fields()
    left = iter([*marks, ""])
    found, last = _selection(left, 0)
    if last:
        raise _wrong_fields()
    return found


def _selection(marks: Iterator[str], nesting: int) -> tuple[dict[str, Any], str]:
    """What the marks up to a closing bracket, or to the end, select; and that mark."""
    if nesting > _MAX_NESTING:
        raise _wrong_fields()
    found: dict[str, Any] = {}
    while True:
        path, inner = [_name(next(marks))], _EVERYTHING
        while (mark := next(marks)) == "/":
            path.append(_name(next(marks)))
        if mark == "(":
            inner, closing = _selection(marks, nesting + 1)
            mark = next(marks) if closing else "("
        if len(path) > _MAX_NESTING or mark not in (";", ")", ""):
            raise _wrong_fields()
        for name in reversed(path[1:]):
            inner = {name: inner}
        found[path[0]] = _together(found.get(path[0], {}), inner)
        if mark != ";":
            return found, mark


def _name(mark: str) -> str:
    if mark in ("", "(", ")", "/", ";"):
        raise _wrong_fields()
    return mark


def _together(one: Fields | None, other: Fields | None) -> Fields | None:
    """What either of two selections selects."""
    if one is None or other is None:
        return None
    return {**one, **{n: _together(one[n], below) if n in one else below for n, below in other.items()}}


def _wrong_fields() -> Refusal:
    return Refusal("invalid-value", "fields: expected names, like a;b/c;d(e;f)")


def read(model: Model, tree: Tree, target: Target, asked: Query = Query()) -> dict[str, Any]:
    """The body of the answer to a GET (clause 4.3); Refusal 404 if there is no such instance."""
    node = target.node if target.steps else Container(model)
    module = target.steps[0].name.partition(":")[0] if target.steps else ""
    fields = _known(node, asked.fields, module)
    value = _found(tree, target, asked)
    if target.steps and target.steps[-1].value is not None:
        value = [value]
    shown = _shown(node, value, asked, asked.depth, fields)
    if shown is None:
        raise absent(target)
    return {target.name if target.steps else DATA: shown}


def _found(tree: Tree, target: Target, asked: Query) -> Any:
    """The value of the target: that of a leaf that is not there is its default, if defaults are asked for."""
    try:
        return find(tree, target)
    except Refusal:
        last = target.steps[-1].node
        if asked.defaults not in (REPORT_ALL, TAGGED) or not isinstance(last, Leaf) or last.default is None:
            raise
        if not _applies(last, find(tree, Target(target.steps[:-1]))):
            raise
        return last.default


def _known(node: Node, fields: Fields | None, module: str) -> Fields | None:
    """The selection with the names of the model; Refusal if it has none such."""
    if fields is None:
        return None
    children = node.children if isinstance(node, Container | List) else {}
    found: dict[str, Fields | None] = {}
    for name, below in fields.items():
        own = name.removeprefix(f"{module}:")
        if own not in children:
            raise Refusal("invalid-value", f"fields: there is no {name[:80]!r} in the data model")
        inner = _known(children[own], below, module or own.partition(":")[0])
        found[own] = _together(found[own], inner) if own in found else inner
    return found


def _shown(node: Node, value: Any, asked: Query, depth: int, fields: Fields | None) -> Any:
    """What of `value` is shown; None for nothing."""
    if isinstance(node, Container):
        return _shown_members(node.children, value, asked, depth, fields)
    if isinstance(node, List):
        entries = [_shown_entry(node, entry, asked, depth, fields) for entry in value]
        keys = len(node.key.split())
        return [e for e in entries if asked.content != NONCONFIG or not node.config or len(e) > keys]
    if not asked.shows(node) or (isinstance(node, Leaf) and asked.defaults == TRIM and value == node.default):
        return None
    return value


def _shown_entry(
    node: List, entry: Mapping[str, Any], asked: Query, depth: int, fields: Fields | None
) -> dict[str, Any]:
    # An entry without its key would be no entry, so the key is always there.
    keys = {name: entry[name] for name in node.key.split()}
    return keys | _shown_members(node.children, entry, asked, depth, fields)


def _shown_members(
    children: Mapping[str, Node], value: Mapping[str, Any], asked: Query, depth: int, fields: Fields | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if depth <= 1:
        return found
    for name, member in _with_defaults(children, value, asked).items():
        node = children[name]
        if (asked.content == CONFIG and not node.config) or (fields is not None and name not in fields):
            continue
        shown = _shown(node, member, asked, depth - 1, None if fields is None else fields[name])
        made_up = name not in value or asked.content == NONCONFIG
        if shown is None or (made_up and shown in ({}, [])):
            continue
        found[name] = shown
        if asked.defaults == TAGGED and isinstance(node, Leaf) and shown == node.default:
            found[f"@{name}"] = DEFAULT_MARK
    return found


def _with_defaults(children: Mapping[str, Node], value: Mapping[str, Any], asked: Query) -> Mapping[str, Any]:
    """The members with those that count without being there, if these are asked for."""
    if asked.defaults not in (REPORT_ALL, TAGGED):
        return value
    absent_leaves = {
        name: node.default
        for name, node in children.items()
        if isinstance(node, Leaf) and node.default is not None and _applies(node, value)
    }
    containers: dict[str, Any] = {
        name: {} for name, node in children.items() if isinstance(node, Container) and _applies(node, value)
    }
    return absent_leaves | containers | dict(value)


def _applies(node: Leaf | Container, siblings: Mapping[str, Any]) -> bool:
    """Whether the leaf could stand beside these."""
    return node.when is None or siblings.get(node.when[0]) == node.when[1]
