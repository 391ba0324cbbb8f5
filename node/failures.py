"""Why a key could not be delivered: one tree, each with the cause's name that counters, logs and answers share."""

from __future__ import annotations

from typing import Any


class KeyFailure(Exception):
    """No key was delivered. `cause` is counted; `status` is the answer's; `facts` name the short or broken thing."""

    cause = "internal_error"
    status = 503

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts

    def details(self) -> dict[str, Any]:
        """Facts for the error body."""
        return {"cause": self.cause, **self.facts}


class NoSession(KeyFailure):
    """No key session is open for this pair of SAEs, or none of that KSID; it may be at the next try."""

    cause = "no_session"


class SessionRefused(KeyFailure):
    """No key session is open for this pair, and the controller opens none: `cause` says why."""

    def __init__(self, message: str, *, status: int = 503, cause: str, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.status = status
        self.cause = cause


class ShortOfMaterial(KeyFailure):
    """A QC on the path has too few bytes now; nothing was consumed, a later try may succeed."""

    cause = "short_of_material"


class TooLate(KeyFailure):
    """What came before it took all the time that there was for this request; nothing was consumed."""

    cause = "busy"

    def __init__(self) -> None:
        super().__init__("what came before this request took all the time there was for it: try again")


class OverBandwidth(KeyFailure):
    """The application has taken more than its maximum bandwidth allows until now; nothing was consumed."""

    cause = "over_bandwidth"


class PathDown(KeyFailure):
    """The controller says that the session's path is down and that there is no other; nothing was consumed."""

    cause = "path_down"


class TooFewPaths(KeyFailure):
    """The mode takes keys over several node-disjoint paths, and the session has fewer; nothing was consumed."""

    cause = "too_few_paths"


class RelayBroken(KeyFailure):
    """A node on the path could not be reached or refused; the material allocated for the key is lost."""

    cause = "relay_broken"


class RelayAltered(KeyFailure):
    """What reached the last node of `path` is not what the first one sent; neither end keeps a key of it."""

    cause = "relay_altered"

    def __init__(self, path: str) -> None:
        super().__init__(f"the key was altered on the way {path}; no SAE has got it, its material is lost", path=path)


class DatabaseUnreachable(KeyFailure):
    """The shared database did not answer in time; nothing was delivered."""

    cause = "database_unreachable"


class DatabaseChanged(KeyFailure):
    """Another server of the shared database answers than before: the ends of QCs report to it first. Nothing was given.
    """

    cause = "database_changed"


class DatabaseRefused(KeyFailure):
    """The shared database refused what was asked, as no node of ours should ask it. Nothing was given."""

    cause = "database_refused"


class MaterialExpired(KeyFailure):
    """The bytes allocated are not held here any more: too old, or lost in a crash."""

    cause = "expired"


class KeysGone(KeyFailure):
    """Keys asked for by their IDs cannot be returned (GS QKD 014, 6.4): their bytes are not held here (any more)."""

    cause = "expired"
    status = 400
