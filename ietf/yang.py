"""What of YANG (RFC 7950) our data models use, as Python values, and the check of JSON (RFC 7951) against it. PURE.

A schema is a tree of Leaf, LeafList, Container and List. Checked values are JSON's own (dict, list, str, int, bool) in
canonical form: UUIDs in lower case, identities with their module's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

_MAX_UINT32 = (1 << 32) - 1
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")  # RFC 6991
_DECIMAL3 = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,3}|-?(?:0|[1-9][0-9]{0,14})")
_DATE_AND_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})")
_MAX_ENTRIES = 100_000
_MAX_TEXT = 4096


class Refusal(Exception):
    """Data that the model does not allow, or a request that cannot be met: an error of RFC 8040, clause 7.

    `tag` is one of RFC 6241's error tags, `path` an instance identifier (empty: the request as a whole).
    """

    def __init__(self, tag: str, message: str, *, path: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.tag = tag
        self.message = message
        self.path = path
        self.status = status  # where the tag alone does not say


@dataclass(frozen=True, slots=True)
class Type:
    """A leaf's type. `read` gives the canonical form of a JSON value or raises ValueError; `expected` is for people."""

    expected: str
    read: Callable[[Any], Any]
    numeric: bool = False

    def from_text(self, text: str) -> Any:
        """A value as it stands in a URL; ValueError."""
        if self.numeric:
            if not text.isascii() or not text.isdigit() or (len(text) > 1 and text.startswith("0")):
                raise ValueError(text)
            return self.read(int(text))
        return self.read(text)


def _string(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or any(ord(c) < 32 and c not in "\t\n\r" for c in value):
        raise ValueError(value)
    value.encode()  # a lone surrogate is no Unicode: UnicodeEncodeError is a ValueError
    return value


def _uri(value: Any) -> str:
    text = _string(value)
    if not text:
        raise ValueError(value)
    return text


def _uuid(value: Any) -> str:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise ValueError(value)
    return value.lower()


def _uint32(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_UINT32:
        raise ValueError(value)
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _decimal3(value: Any) -> str:
    if not isinstance(value, str) or not _DECIMAL3.fullmatch(value):
        raise ValueError(value)
    whole, _, fraction = value.partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def _date_and_time(value: Any) -> str:
    if not isinstance(value, str) or not _DATE_AND_TIME.fullmatch(value):
        raise ValueError(value)
    datetime.fromisoformat(value)
    return value


def _empty(value: Any) -> list[None]:
    if value != [None]:
        raise ValueError(value)
    return [None]


EMPTY = Type("[null]", _empty)
STRING = Type("a string", _string)
URI = Type("a URI", _uri)
UUID = Type("a UUID in text form", _uuid)
UINT32 = Type("an integer from 0 to 4294967295", _uint32, numeric=True)
BOOLEAN = Type("true or false", _boolean)
DECIMAL3 = Type("a decimal number as a string, with at most 3 digits behind the point", _decimal3)
DATE_AND_TIME = Type("a date and time with seconds and time zone (RFC 3339)", _date_and_time)


def pattern(expression: str, expected: str) -> Type:
    """Strings that match all of `expression`."""
    compiled = re.compile(expression)

    def read(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError(value)
        return value

    return Type(expected, read)


def identity(module: str, names: Collection[str]) -> Type:
    """An identityref to one of `names` of another module: the JSON value bears the module's name (RFC 7951, 6.8)."""
    known = {f"{module}:{name}" for name in names}

    def read(value: Any) -> str:
        if value not in known:
            raise ValueError(value)
        return str(value)

    return Type(f"one of {', '.join(sorted(known))}", read)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A single value. `when`: it exists only if that sibling has that value. `default`: what counts where it is not."""

    type: Type
    config: bool = True
    when: tuple[str, str] | None = None
    default: Any = None


@dataclass(frozen=True, slots=True)
class LeafList:
    """Distinct values of one type."""

    type: Type
    config: bool = True
    when: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """Named members. One without presence: it is as good as there when empty."""

    children: Mapping[str, Node]
    config: bool = True
    when: tuple[str, str] | None = None
    mandatory: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class List:
    """Entries with the same members, told apart by their `key`: the name of a leaf, or of several with blanks between.

    Lists that are configuration have one.
    """

    key: str
    children: Mapping[str, Node]
    config: bool = True
    when: tuple[str, str] | None = None

    @property
    def key_types(self) -> tuple[Type, ...]:
        """The types of the key's leaves."""
        return tuple(_leaf(self.children[name]).type for name in self.key.split())

    def key_of(self, entry: Mapping[str, Any]) -> Any:
        """What tells `entry` apart: the key's value, or a tuple of them if it has several leaves."""
        names = self.key.split()
        return entry[names[0]] if len(names) == 1 else tuple(entry[name] for name in names)


Node: TypeAlias = Leaf | LeafList | Container | List


def check(node: Node, value: Any, path: str, *, state: bool, lenient: bool = False) -> Any:
    """`value` of `node` (for a list: all its entries) in canonical form; Refusal names the wrong member.

    `state`: whether members that are no configuration may be there. `lenient`: members of modules that we do not know
    are left out in place of refused, as clients should (RFC 8040, clause 3.2).
    """
    if not state and not node.config:
        raise Refusal("invalid-value", "this member is read-only", path=path)
    if isinstance(node, Leaf):
        return _value(node.type, value, path)
    if isinstance(node, LeafList):
        values = [_value(node.type, v, path) for v in _array(value, path)]
        if len(set(values)) != len(values):
            raise Refusal("invalid-value", "expected different values", path=path)
        return values
    if isinstance(node, Container):
        return _members(node.children, value, path, state=state, lenient=lenient)
    entries = [check_entry(node, entry, path, state=state, lenient=lenient) for entry in _array(value, path)]
    if len({entry[node.key] for entry in entries}) != len(entries):
        raise Refusal("invalid-value", f"expected a different {node.key} in each entry", path=path)
    return entries


def check_entry(node: List, value: Any, path: str, *, state: bool, lenient: bool = False) -> dict[str, Any]:
    """One entry of a list; Refusal, too, if it has no key."""
    entry = _members(node.children, value, path, state=state, lenient=lenient, key=node.key)
    if node.key not in entry:
        raise Refusal("missing-element", f"expected {node.key}, the key of the list", path=path)
    return entry


def check_conditions(node: Node, value: Any, path: str, before: Any = None) -> None:
    """Refusal if a member is there without the value of its sibling that it depends on; all levels of `value`.

    What is one and the same object in `before`, which was checked once, is not checked again.
    """
    if value is before:
        return
    if isinstance(node, List):
        known = set(map(id, before or ()))
        for entry in value:
            if id(entry) not in known:
                _check_conditions(node.children, entry, f"{path}[{node.key}='{entry[node.key]}']", {})
    elif isinstance(node, Container):
        _check_conditions(node.children, value, path, before or {})


def _check_conditions(
    children: Mapping[str, Node], members: Mapping[str, Any], path: str, before: Mapping[str, Any]
) -> None:
    for name, value in members.items():
        child = children[name]
        if child.when is not None and members.get(child.when[0]) != child.when[1]:
            text = f"only where {child.when[0]} is {child.when[1]}"
            raise Refusal("unknown-element", text, path=f"{path}/{name}")
        check_conditions(child, value, f"{path}/{name}", before.get(name))


def _members(
    children: Mapping[str, Node], value: Any, path: str, *, state: bool, lenient: bool, key: str | None = None
) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise Refusal("invalid-value", "expected an object", path=path)
    if key is not None and key in value:
        path = f"{path}[{key}='{_value(_leaf(children[key]).type, value[key], f'{path}/{key}')}']"
    found = {}
    for name, member in value.items():
        if name not in children:
            if lenient and (":" in name or name.startswith("@")):
                continue
            raise Refusal("unknown-element", f"expected one of {', '.join(children)}", path=f"{path}/{name[:80]}")
        if member is None and name != key:
            continue  # a widely used controller writes null for what it leaves out
        found[name] = check(children[name], member, f"{path}/{name}", state=state or name == key, lenient=lenient)
    return found


def _leaf(node: Node) -> Leaf:
    assert isinstance(node, Leaf)  # noqa: S101 - keys are leaves
    return node


def _array(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MAX_ENTRIES:
        raise Refusal("invalid-value", "expected an array", path=path)
    return value


def _value(kind: Type, value: Any, path: str) -> Any:
    try:
        return kind.read(value)
    except (ValueError, TypeError):
        raise Refusal("invalid-value", f"expected {kind.expected}", path=path) from None
