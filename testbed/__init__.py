"""The emulation: Mininet network, QC emulators, load, measurements. Only this room knows the network is emulated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.api import Testbed, results

__all__ = ["Testbed", "results"]


def __getattr__(name: str) -> Any:
    """`from testbed import Testbed`, which parts of the testbed itself do without."""
    if name in __all__:
        from testbed import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
