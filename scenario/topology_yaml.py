"""A topology's YAML (or JSON) text as dicts, lists and plain values: PyYAML's safe loader, made stricter."""

from __future__ import annotations

from collections.abc import Hashable

import yaml

from scenario.topology_field import TopologyError


def parse(text: str, source: str) -> object:
    """The document in a YAML text; `source` is what errors call the file."""
    try:
        # A subclass of SafeLoader, so that no tag in the file can make an object of any other kind.
        return yaml.load(text, _Loader)  # noqa: S506
    except Exception as error:
        # Not all that PyYAML raises is a YAMLError: `!!int ""` ends as an IndexError, `2001-99-99` as a ValueError,
        # and a thousand brackets as a RecursionError.
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or _in_words(error)
        raise TopologyError(source, f"line {mark.line + 1}" if mark else "", f"not YAML: {problem}") from error


def _in_words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, yaml.YAMLError | ValueError):
        return str(error).partition(";")[0][:120]
    return "a value that its tag does not allow"


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuses aliases: with merge keys a few lines of them stand for billions of values."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            problem = f"aliases are not allowed, write out the value of *{event.anchor}"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Refuses a repeated key, of which PyYAML would silently take the last value."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
