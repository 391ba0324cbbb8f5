"""RESTCONF (RFC 8040): what an edit makes of a tree of configuration. PURE: edits give a new tree."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ietf.restconf import DATA, Model, Step, Target, Tree, absent, exists, index_of
from ietf.yang import Container, Leaf, LeafList, List, Node, Refusal, check, check_conditions, check_entry


@dataclass(frozen=True, slots=True)
class Edit:
    """The tree after an edit; `created`: the path below data of what is new, for Location; empty if nothing is."""

    tree: dict[str, Any]
    created: str = ""


def allowed(target: Target) -> list[str]:
    """The methods that can change the resource, in whatever state it is: what Allow lists beside those that read."""
    return [method for method in _METHODS if why_never(method, target) is None]


def why_never(method: str, target: Target) -> str | None:
    """Why that method can never change the resource; None if it can."""
    if not target.steps:
        return None if method == "PATCH" else "the datastore as a whole can be patched only: all of it is there"
    node, last = target.node, target.steps[-1]
    if not node.config:
        return "this resource is read-only"
    if method == "POST":
        return "a leaf has no children" if isinstance(node, Leaf | LeafList) else None
    if isinstance(node, List) and last.value is None:
        return "expected one entry of the list"
    if method == "DELETE":
        parent = target.steps[-2].node if len(target.steps) > 1 else None
        if parent is None:
            return "a node's model as a whole is not deleted"
        if isinstance(parent, List) and last.name == parent.key:
            return "a list entry's key is not deleted"
        if isinstance(parent, Container) and last.name in parent.mandatory:
            return "this leaf is mandatory"
    return None


def edit(model: Model, tree: Tree, method: str, target: Target, body: Any) -> Edit:
    """What PUT, POST, PATCH or DELETE makes of the configuration `tree` (clauses 4.4 to 4.7); Refusal."""
    never = why_never(method, target)
    if never is not None:
        raise Refusal("operation-not-supported", never, path=target.path)
    edited = _METHODS[method](model, tree, target, body)
    for name, value in edited.tree.items():
        check_conditions(model[name], value, f"/{name}", tree.get(name))
    return edited


def _put(model: Model, tree: Tree, target: Target, body: Any) -> Edit:
    del model
    value = _own_body(target, body)
    if isinstance(target.node, Container):
        for member in target.node.mandatory - set(value):
            raise Refusal("missing-element", f"expected {member}", path=target.path)
    existed = exists(tree, target)
    edited = _changed(tree, target.steps, functools.partial(_in_place, value))
    return Edit(edited, "" if existed else target.url)


def _post(model: Model, tree: Tree, target: Target, body: Any) -> Edit:
    del model
    node = target.node
    if isinstance(node, List) and target.steps[-1].value is None:
        target = Target(target.steps[:-1])  # the list itself in place of its parent: it is clear what is meant
        node = target.node
    assert isinstance(node, Container | List)  # noqa: S101 - nothing else has children
    name, value = _child(target, node, body)
    child = node.children[name]
    path = f"{target.path}/{name}"
    if isinstance(child, List | LeafList):
        if not isinstance(value, list) or not value:
            raise Refusal("invalid-value", "expected an array with an entry", path=path)
        entries = check(child, value, path, state=False)
        key = child.key if isinstance(child, List) else None
        steps = [Step(name, child, e if key is None else e[key]) for e in entries]
        for step in steps:
            if exists(tree, Target((*target.steps, step))):
                raise Refusal("data-exists", "it exists already", path=target.path + step.identifier())
        made = dict(tree)
        for step, entry in zip(steps, entries, strict=True):
            made = _changed(made, (*target.steps, step), functools.partial(_in_place, entry))
        return Edit(made, Target((*target.steps, steps[0])).url)
    step = Step(name, child)
    new = Target((*target.steps, step))
    if isinstance(child, Container) or exists(tree, new):
        raise Refusal("data-exists", "it exists already", path=new.path)
    value = check(child, value, path, state=False)
    return Edit(_changed(tree, new.steps, functools.partial(_in_place, value)), new.url)


def _child(target: Target, node: Container | List, body: Any) -> tuple[str, Any]:
    """Name and value of the new child in a POST's body: one member, qualified with its module.

    A widely used controller repeats the parent around it, without the module's name: that, too, is understood.
    """
    name, value = _only_member(body)
    module, _, own = target.name.partition(":")
    if name in (own, target.name) and isinstance(value, Mapping) and isinstance(node, Container):
        name, value = _only_member(value)
        name = name if ":" in name else f"{module}:{name}"
    prefix, _, child = name.partition(":")
    if prefix != module or child not in node.children:
        names = ", ".join(f"{module}:{n}" for n in node.children)
        raise Refusal("unknown-element", f"expected one of {names}", path=f"{target.path}/{name[:80]}")
    return child, value


def _only_member(body: Any) -> tuple[str, Any]:
    if not isinstance(body, Mapping) or len(body) != 1:
        raise Refusal("malformed-message", "expected an object with one member, the resource")
    ((name, value),) = body.items()
    return name, value


def _patch(model: Model, tree: Tree, target: Target, body: Any) -> Edit:
    """Plain patch (clause 4.6.1): a merge into what is there."""
    if not target.steps:
        name, value = _only_member(body)
        if name != DATA or not isinstance(value, Mapping):
            raise Refusal("unknown-element", f"expected {DATA}", path=f"/{name[:80]}")
        edited = dict(tree)
        for top, members in value.items():
            if top not in model:
                raise Refusal("unknown-element", f"expected one of {', '.join(model)}", path=f"/{top[:80]}")
            edited[top] = _merged(model[top], edited.get(top, {}), check(model[top], members, f"/{top}", state=False))
        return Edit(edited)
    if not exists(tree, target) and not isinstance(target.node, Container):
        raise absent(target)
    value = _own_body(target, body)
    last = target.steps[-1]
    node = Container(last.node.children) if isinstance(last.node, List) else last.node
    return Edit(_changed(tree, target.steps, functools.partial(_merged, node, new=value)))


def _delete(model: Model, tree: Tree, target: Target, body: Any) -> Edit:
    del model, body
    if not exists(tree, target):
        raise absent(target)
    return Edit(_changed(tree, target.steps, lambda _: None))


_METHODS: Mapping[str, Callable[[Model, Tree, Target, Any], Edit]] = {
    "PUT": _put, "POST": _post, "PATCH": _patch, "DELETE": _delete,
}  # fmt: skip


def _own_body(target: Target, body: Any) -> Any:
    """The checked value in a body that holds the target itself: for an entry an array of one, with the URL's key."""
    name, value = _only_member(body)
    if name != target.name:
        raise Refusal("unknown-element", f"expected {target.name}", path=f"/{name[:80]}")
    last, path = target.steps[-1], target.path
    if last.value is None:
        found = check(last.node, value, path, state=False)
        parent = target.steps[-2] if len(target.steps) > 1 else None
        is_key = parent is not None and isinstance(parent.node, List) and parent.node.key == last.name
        if parent is not None and is_key and found != parent.value:
            raise Refusal("invalid-value", f"expected {parent.value}, as in the URL", path=path)
        return found
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    elif isinstance(value, list):
        raise Refusal("invalid-value", "expected an array of one entry", path=path)
    if isinstance(last.node, List):
        found = check_entry(last.node, value, path.rpartition("[")[0], state=False)
        key = found[last.node.key]
    else:
        assert isinstance(last.node, LeafList)  # noqa: S101 - nothing else has values in its path
        (found,) = check(last.node, [value], path, state=False)
        key = found
    if key != last.value:
        raise Refusal("invalid-value", f"expected {last.value}, as in the URL", path=path)
    return found


def _changed(value: Mapping[str, Any], steps: Sequence[Step], change: Callable[[Any], Any]) -> dict[str, Any]:
    """A copy of `value` in which `change` was applied to what `steps` name; None from it deletes. Refusal 404.

    Entries that are not there are made only at the last step; `change` is given None for those.
    """
    step, rest = steps[0], steps[1:]
    old = value.get(step.name)
    if step.value is None:
        new = _changed(old or {}, rest, change) if rest else change(old)
        return {k: v for k, v in value.items() if k != step.name} | ({} if new is None else {step.name: new})
    entries = list(old or [])
    at = index_of(entries, step)
    if rest:
        if at is None:
            raise Refusal("invalid-value", "there is no such instance", path=step.identifier(), status=404)
        entries[at] = _changed(entries[at], rest, change)
    else:
        new = change(None if at is None else entries[at])
        entries[len(entries) if at is None else at : len(entries) if at is None else at + 1] = (
            [] if new is None else [new]
        )
    return {**value, step.name: entries}


def _in_place(new: Any, _: Any) -> Any:
    return new


def _merged(node: Node, old: Any, new: Any) -> Any:
    if isinstance(node, Container):
        merged = dict(old or {})
        for name, value in new.items():
            merged[name] = _merged(node.children[name], merged.get(name), value)
        return merged
    if isinstance(node, List):
        entries = {e[node.key]: e for e in old or []}
        for entry in new:
            entries[entry[node.key]] = _merged(Container(node.children), entries.get(entry[node.key]), entry)
        return list(entries.values())
    if isinstance(node, LeafList):
        return [*(old or []), *(v for v in new if v not in (old or []))]
    return new
