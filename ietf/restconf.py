"""RESTCONF (RFC 8040) over a data model: what a request's path names, and the errors that say what is wrong. PURE.

A tree is a dict of top-level containers by qualified name ("module:name"); lists in it are arrays of entries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from ietf.yang import Container, LeafList, List, Node, Refusal

Model: TypeAlias = Mapping[str, Container]
Tree: TypeAlias = Mapping[str, Any]

MEDIA_TYPE = "application/yang-data+json"
DATA = "ietf-restconf:data"
_MAX_SEGMENTS = 32
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

# Clause 7: the status of each error tag where the refusal itself does not say.
_STATUS = {
    "invalid-value": 400, "malformed-message": 400, "unknown-element": 400, "missing-element": 400, "bad-element": 400,
    "access-denied": 403, "data-exists": 409, "data-missing": 409, "resource-denied": 409, "in-use": 409,
    "operation-not-supported": 405, "operation-failed": 412,
}  # fmt: skip


def status_of(refusal: Refusal) -> int:
    """The HTTP status that a refusal is answered with."""
    return refusal.status or _STATUS.get(refusal.tag, 500)


def error_document(tag: str, message: str, path: str = "", *, kind: str = "application") -> dict[str, Any]:
    """The error body of clause 7.1. `kind`: transport, rpc, protocol or application."""
    error = {"error-type": kind, "error-tag": tag}
    if path:
        error["error-path"] = path
    return {"ietf-restconf:errors": {"error": [error | {"error-message": message}]}}


@dataclass(frozen=True, slots=True)
class Step:
    """A segment of a path: a schema node by name, and the value that tells a list's or leaf-list's entry apart."""

    name: str
    node: Node
    value: Any = None

    def identifier(self) -> str:
        """The step in an instance identifier (RFC 7951, 6.11)."""
        if self.value is None:
            return f"/{self.name}"
        names = self.node.key.split() if isinstance(self.node, List) else ["."]
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return f"/{self.name}" + "".join(f"[{n}='{v}']" for n, v in zip(names, values, strict=True))

    def segment(self) -> str:
        """The step in a URL (clause 3.5.3)."""
        if self.value is None:
            return self.name
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return f"{self.name}={','.join(quote(str(value), safe='') for value in values)}"


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names; no steps: the whole datastore."""

    steps: tuple[Step, ...]

    @property
    def node(self) -> Node:
        """The schema node; not for the datastore."""
        return self.steps[-1].node

    @property
    def path(self) -> str:
        """As an instance identifier, for errors."""
        return "".join(step.identifier() for step in self.steps)

    @property
    def name(self) -> str:
        """The qualified name that the resource has in a body."""
        module, own = self.steps[0].name.partition(":")[0], self.steps[-1].name
        return own if ":" in own else f"{module}:{own}"

    @property
    def url(self) -> str:
        """The path again, with canonical values."""
        return "/".join(step.segment() for step in self.steps)


def parse_target(model: Model, path: str) -> Target:
    """The target of a still encoded path below {+restconf}/data, with or without a slash at its end; Refusal."""
    segments = path.strip("/").split("/") if path.strip("/") else []
    if len(segments) > _MAX_SEGMENTS or _ESCAPE.search(path):
        raise Refusal("invalid-value", "expected a path in the form of RFC 8040, clause 3.5.3")
    steps: list[Step] = []
    children: Mapping[str, Node] = model
    for segment in segments:
        name, equals, text = segment.partition("=")
        name = _decoded(name)
        if steps and ":" in name and name.partition(":")[0] == steps[0].name.partition(":")[0]:
            name = name.partition(":")[2]  # the module's name again does no harm
        node = children.get(name)
        at = Target(tuple(steps)).path
        if node is None:
            raise Refusal("invalid-value", f"there is no {name[:80]!r} in the data model", path=at, status=404)
        if not equals:
            steps.append(Step(name, node))
        elif isinstance(node, List | LeafList):
            steps.append(Step(name, node, _key(node, text, f"{at}/{name}")))
        else:
            raise Refusal("invalid-value", f"{name} has no key", path=at)
        if isinstance(node, List) and not equals and segment is not segments[-1]:
            raise Refusal("missing-element", f"expected {name}={{{node.key}}}", path=at)
        children = node.children if isinstance(node, Container | List) else {}
    return Target(tuple(steps))


def _key(node: List | LeafList, text: str, path: str) -> Any:
    """The value that tells an entry apart, out of its still encoded form."""
    kinds = node.key_types if isinstance(node, List) else (node.type,)
    given = text.split(",") if len(kinds) > 1 else [text]
    try:
        values = tuple(kind.from_text(_decoded(value)) for kind, value in zip(kinds, given, strict=True))
    except ValueError:
        raise Refusal("invalid-value", f"expected {', '.join(kind.expected for kind in kinds)}", path=path) from None
    return values[0] if len(kinds) == 1 else values


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise Refusal("invalid-value", "expected UTF-8 in the path") from None


def find(tree: Tree, target: Target) -> Any:
    """The value that `target` names in `tree`; Refusal 404."""
    value: Any = tree
    for step in target.steps:
        below = value.get(step.name)
        if below is None and isinstance(step.node, Container):
            below = {}
        if below is None and isinstance(step.node, List) and step.value is None:
            below = []
        if below is not None and step.value is not None:
            at = index_of(below, step)
            below = None if at is None else below[at]
        if below is None:
            raise absent(target)
        value = below
    return value


def index_of(entries: Sequence[Any], step: Step) -> int | None:
    """Where among the entries of its list stands the one that a step names; None: nowhere. A list may be long."""
    name = step.node.key if isinstance(step.node, List) else None
    if name is None:
        return entries.index(step.value) if step.value in entries else None
    if isinstance(step.node, List) and " " in name:  # several leaves
        keys = map(step.node.key_of, entries)
        return next((i for i, key in enumerate(keys) if key == step.value), None)
    for i, entry in enumerate(entries):
        if entry[name] == step.value:
            return i
    return None


def exists(tree: Tree, target: Target) -> bool:
    """Whether `tree` has what `target` names."""
    try:
        find(tree, target)
    except Refusal:
        return False
    return True


def absent(target: Target) -> Refusal:
    """The refusal that says that there is no such instance, 404."""
    return Refusal("invalid-value", "there is no such instance", path=target.path, status=404)
