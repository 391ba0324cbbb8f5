"""What ends a run before its time, and with which exit status."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend: one line that names the cause and the cure. Exit status 2."""


class Stopped(SystemExit):
    """Whoever operates the run wants no more of it. It ends as by itself."""


class Terminated(SystemExit):
    """SIGTERM came. Exit status 143, as a shell would report it."""

    def __init__(self) -> None:
        super().__init__(143)
