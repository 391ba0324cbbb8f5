"""YAML texts as plain dicts and lists; what a hostile or careless one could do to a reader is refused in one line."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import yaml

from scenario.topology_description import TopologyError


def read(path: Path) -> object:
    """The document in a YAML file; TopologyError, one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(str(path), getattr(error, "strerror", None) or "not UTF-8") from None
    return parse(text, path.name)


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
