"""Why something was refused or failed, in plain words: one sentence, and what one can do about it. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]

# cause -> what happened, what helps. Facts that are missing read "?".
_REFUSALS = {
    "refused": (
        "{qc} cannot carry it: needs {needed_bytes} bytes, {available_bytes} are to spare.",
        "End a session over it, raise its rate, or change the admission policy.",
    ),
    "no_path": ("No chain of QCs that generate leads from one to the other.", "Heal a link or switch a QC on."),
    "unknown_node": ("The controller does not reach {node}.", "Wait until it is back."),
    "agent_unreachable": ("{node} did not take over the configuration.", "Heal what is broken there, then try again."),
    "exists": ("The two have a key session already.", "Close that one first."),
    "same_node": ("Both are at the same node.", "They need no quantum key."),
    "foreign": ("Another node has registered this application.", "Look which node it belongs to."),
    "opening": ("A session of the two is being opened.", "Try again."),
    "too_many_sessions": ("Of {who} there are {most} key sessions, and can be no more.", "End some there first."),
}
_FAILURES = {
    "short_of_material": (
        "{qc} has too little key material: {short_bytes} bytes short. Nothing was used up.",
        "Raise its rate, or have fewer keys over it.",
    ),
    "relay_broken": ("The relay broke at {hop}; what it had taken is lost.", "Heal the link or node there."),
    "relay_altered": (
        "The key was altered on the way {path}; no application has got it.", "Distrust the nodes between.",
    ),
    "over_bandwidth": (
        "The application has taken more than its maximum of {max_bandwidth} bit/s allows. Nothing was used up.",
        "Ask less often, or have the controller allow it more.",
    ),
    "path_down": ("The session's path is down, and there is no other. Nothing was used up.", "Heal what is broken."),
    "database_unreachable": ("The shared database did not answer in time.", "Look at the links to its datacenter."),
    "busy": ("What came before it took all the time that there was. Nothing was used up.", "Ask less often."),
    "machine_refused": ("The node's machine has no room on its disk, or lacks something else.", "Make room there."),
    "internal_error": ("The node met a bug of ours.", "Its log says where; please report it."),
    "database_changed": (
        "The shared database has begun anew, and waits for the reports of nodes. Nothing was used up.", "Try again.",
    ),
    "database_refused": ("The shared database refused what a node asked for.", "Look into the log of that node."),
    "expired": ("What was allocated on {qc} was too old when it was needed.", "Raise the TTL, or shorten delays."),
    "no_session": ("The two have no key session open.", "Open one first."),
    "controller_unreachable": ("The node does not reach the controller.", "Look at the links to its datacenter."),
}


def why_refused(facts: Facts) -> tuple[str, str]:
    """Of a key session that was refused: why, and what helps."""
    return _say(_REFUSALS, facts)


def why_failed(facts: Facts) -> tuple[str, str]:
    """Of a request for keys that failed: why, and what helps."""
    return _say(_FAILURES | _REFUSALS, facts)


def _say(words: Mapping[str, tuple[str, str]], facts: Facts) -> tuple[str, str]:
    cause = str(facts.get("cause", "unknown"))
    why, helps = words.get(cause, (f"{facts.get('message', cause)}.", ""))
    return why.format_map(_Known(facts)), helps


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"
