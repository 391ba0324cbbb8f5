"""The stack of processes that service tests run against."""

from testbed.loopback import LOOPBACK, Stack, free_port

__all__ = ["LOOPBACK", "Stack", "free_port"]
