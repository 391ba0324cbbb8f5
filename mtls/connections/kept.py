"""A client's connections, which are kept for its next requests, but not for as long as their servers keep them."""

from __future__ import annotations

import time
from typing import Any

import urllib3

from mtls.liveness import USED_AGAIN_S


class _Kept(urllib3.connection.HTTPSConnection):
    """Counts as connected for USED_AGAIN_S from its last request on: for one that comes later it is opened anew.

    A request that crosses its server's farewell has no answer, and nobody can say whether it was heard.
    """

    _asked_at = 0.0

    def request(self, *args: Any, **options: Any) -> None:
        self._asked_at = time.monotonic()
        super().request(*args, **options)

    @property
    def is_connected(self) -> bool:
        return super().is_connected and time.monotonic() < self._asked_at + USED_AGAIN_S


class _Pool(urllib3.HTTPSConnectionPool):
    """Of one party, at one address."""

    ConnectionCls = _Kept


class Pools(urllib3.PoolManager):
    """As urllib3's, of such connections."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pool_classes_by_scheme = {"https": _Pool}
