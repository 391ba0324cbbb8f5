"""RESTCONF (RFC 8040) over a data model: what a request's path names, and what of a tree a GET shows. PURE.

A tree is a dict of top-level containers by qualified name ("module:name"); lists in it are arrays of entries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from etsi.yang import Container, LeafList, List, Node, Refusal

Model: TypeAlias = Mapping[str, Container]
Tree: TypeAlias = Mapping[str, Any]

MEDIA_TYPE = "application/yang-data+json"
DATA = "ietf-restconf:data"
ALL, CONFIG, NONCONFIG = "all", "config", "nonconfig"
UNBOUNDED = 1 << 16
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
        key = self.node.key if isinstance(self.node, List) else "."
        return f"/{self.name}[{key}='{self.value}']"


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
        return "/".join(
            step.name if step.value is None else f"{step.name}={quote(str(step.value), safe='')}" for step in self.steps
        )


def parse_target(model: Model, path: str) -> Target:
    """The target of a still encoded path below {+restconf}/data, with or without a slash at its end; Refusal."""
    segments = path.strip("/").split("/") if path.strip("/") else []
    if len(segments) > _MAX_SEGMENTS or _ESCAPE.search(path):
        raise Refusal("invalid-value", "expected a path in the form of RFC 8040, clause 3.5.3")
    steps: list[Step] = []
    children: Mapping[str, Node] = model
    for segment in segments:
        name, equals, text = segment.partition("=")
        name, given = _decoded(name), _decoded(text)
        if steps and ":" in name and name.partition(":")[0] == steps[0].name.partition(":")[0]:
            name = name.partition(":")[2]  # the module's name again does no harm
        node = children.get(name)
        at = Target(tuple(steps)).path
        if node is None:
            raise Refusal("invalid-value", f"there is no {name[:80]!r} in the data model", path=at, status=404)
        if not equals:
            steps.append(Step(name, node))
        elif isinstance(node, List | LeafList):
            steps.append(Step(name, node, _key(node, given, f"{at}/{name}")))
        else:
            raise Refusal("invalid-value", f"{name} has no key", path=at)
        if isinstance(node, List) and not equals and segment is not segments[-1]:
            raise Refusal("missing-element", f"expected {name}={{{node.key}}}", path=at)
        children = node.children if isinstance(node, Container | List) else {}
    return Target(tuple(steps))


def _key(node: List | LeafList, text: str, path: str) -> Any:
    kind = node.key_type if isinstance(node, List) else node.type
    try:
        return kind.from_text(text)
    except ValueError:
        raise Refusal("invalid-value", f"expected {kind.expected}", path=path) from None


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise Refusal("invalid-value", "expected UTF-8 in the path") from None


def read(model: Model, tree: Tree, target: Target, *, content: str = ALL, depth: int = UNBOUNDED) -> dict[str, Any]:
    """The body of the answer to a GET (clauses 4.3, 4.8); Refusal 404 if there is no such instance."""
    if not target.steps:
        found = _shown(Container(model), tree, content, depth)
        return {DATA: found}
    value = find(tree, target)
    node = target.node
    if isinstance(node, List) and target.steps[-1].value is not None:
        shown = _shown_entry(node, value, content, depth)
        return {target.name: [shown]}
    if isinstance(node, LeafList) and target.steps[-1].value is not None:
        value = [value]
    shown = _shown(node, value, content, depth)
    if shown is None:
        raise absent(target)
    return {target.name: shown}


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
            key = step.node.key if isinstance(step.node, List) else None
            below = next((v for v in below if (v if key is None else v[key]) == step.value), None)
        if below is None:
            raise absent(target)
        value = below
    return value


def absent(target: Target) -> Refusal:
    """The refusal that says that there is no such instance, 404."""
    return Refusal("invalid-value", "there is no such instance", path=target.path, status=404)


def _shown(node: Node, value: Any, content: str, depth: int) -> Any:
    """What of `value` is shown; None for nothing."""
    if isinstance(node, Container):
        return _shown_members(node.children, value, content, depth)
    if isinstance(node, List):
        entries = [_shown_entry(node, entry, content, depth) for entry in value]
        return [e for e in entries if content != NONCONFIG or not node.config or len(e) > 1]
    return value if content == ALL or node.config == (content == CONFIG) else None


def _shown_entry(node: List, entry: Mapping[str, Any], content: str, depth: int) -> dict[str, Any]:
    # An entry without its key would be no entry, so the key is always there.
    return {node.key: entry[node.key]} | _shown_members(node.children, entry, content, depth)


def _shown_members(
    children: Mapping[str, Node], value: Mapping[str, Any], content: str, depth: int
) -> dict[str, Any]:
    if depth <= 1:
        return {}
    found = {}
    for name, member in value.items():
        node = children[name]
        if content == CONFIG and not node.config:
            continue
        shown = _shown(node, member, content, depth - 1)
        if shown is not None and (content != NONCONFIG or shown not in ({}, [])):
            found[name] = shown
    return found


def query(arguments: Sequence[tuple[str, str]]) -> tuple[str, int]:
    """`content` and `depth` of a GET's query (clauses 4.8.1, 4.8.2); Refusal for anything else."""
    found: dict[str, str] = {}
    for name, value in arguments:
        if name in found or name not in ("content", "depth"):
            raise Refusal("invalid-value", f"query parameter {name[:80]!r}: expected content and depth, each once")
        found[name] = value
    content = found.get("content", ALL)
    if content not in (ALL, CONFIG, NONCONFIG):
        raise Refusal("invalid-value", "content: expected config, nonconfig or all")
    text = found.get("depth", "unbounded")
    if text == "unbounded":
        return content, UNBOUNDED
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise Refusal("invalid-value", "depth: expected a number from 1 to 65535, or unbounded")
    return content, int(text)
