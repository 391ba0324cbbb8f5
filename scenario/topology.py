"""Topologies: the name of a network or a file in, a frozen and fully checked description of it out.

The description is data alone and knows nothing of Mininet, processes or certificates, so a network can be checked,
drawn and counted without root. On its way in, a file goes through three modules: its notation (`topology_yaml`,
`topology_graphml`) becomes plain dicts and lists, and `topology_document` makes the description of those, so that each
rule is enforced in one place for all notations. `topologies/README.md` documents the format.
"""

from __future__ import annotations

from pathlib import Path

from scenario import topology_graphml, topology_yaml
from scenario.topology_description import Link, Node, Qc, Sae, Topology
from scenario.topology_document import build
from scenario.topology_field import Field, TopologyError, choice

__all__ = ["Link", "Node", "Qc", "Sae", "Topology", "TopologyError", "load"]

# JSON is read as YAML, of which it is a part but for tabs, and those PyYAML refuses with a clear line.
_PARSERS = dict.fromkeys((".yaml", ".yml", ".json"), topology_yaml.parse) | {".graphml": topology_graphml.parse}
# Larger than any network that fits on one machine (NSFNET has 4 KiB); PyYAML takes seconds for this much already.
_MAX_FILE_BYTES = 1 << 20


def load(name_or_path: str, shipped: Path) -> Topology:
    """The topology called NAME in the folder `shipped`, or the one in a file.

    Whatever ends in .yaml, .yml, .json or .graphml is the path of a file, any other word is a name.

    Raises TopologyError, also for a file that cannot be read.
    """
    networks = {path.stem: path for path in sorted(shipped.glob("*.yaml"))}
    path = networks.get(name_or_path, Path(name_or_path))
    parse = _PARSERS.get(path.suffix.lower())
    try:
        if parse is None or not path.is_file():  # nor do we wait for ever on a pipe called x.yaml
            hint = choice(name_or_path, networks, "shipped")
            raise TopologyError(name_or_path, f"no such topology; {hint}; or a file that ends in {', '.join(_PARSERS)}")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise TopologyError(name_or_path, f"expected at most {_MAX_FILE_BYTES} bytes (1 MiB)")
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark first
    except UnicodeDecodeError as error:
        raise TopologyError(name_or_path, f"expected UTF-8 text, got another encoding at byte {error.start}") from error
    except OSError as error:
        raise TopologyError(name_or_path, f"cannot be read: {error.strerror}") from error
    return build(Field(str(path), "", parse(text, str(path))))
