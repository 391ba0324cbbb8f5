"""Routes of SKIP (draft-cisco-skip-02) beside GS QKD 014, for encryptors that speak it: the same keys.

A SKIP provider has an ID, and so has the one at the other end. Here each SAE sees a provider of its own: the local ID
is the SAE's own, as its certificate has it, and a remote ID is the SAE at the other end. So a key belongs to a pair of
SAEs, whichever protocol it leaves by, and leaves once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, Response, request

from documents.checks import Malformed
from etsi import gs014
from ietf import skip
from mtls.identity import Role
from mtls.serve import allow
from node.http.answers import as_json, local_sae, wiped
from node.serving.handing_out import HandingOut
from node.serving.kme import Kme


def add_routes(app: Flask, kme: Kme, keys: HandingOut) -> None:
    """Have the KME's application serve SKIP, too."""

    @app.get("/capabilities")
    @allow(Role.SAE)
    def capabilities() -> Response:
        return as_json(skip.capabilities(local_sae(kme), kme.saes_elsewhere()))

    @app.get("/key")
    @allow(Role.SAE)
    def new_key() -> Response:
        master = local_sae(kme)
        slave, size = skip.key_query(_query(), kme.limits.key_size)
        with _remote_as_it_is_called_here():
            given = keys.to_master(master, slave, gs014.key_request({"size": size}, kme.limits)).keys
        ((key_id, key),) = given
        return wiped(given, skip.key(key_id, key))

    @app.get("/key/<said>")
    @allow(Role.SAE)
    def key_of_id(said: str) -> Response:
        slave = local_sae(kme)
        master = skip.fetch_query(_query())
        with _remote_as_it_is_called_here():
            given = keys.to_slave(slave, master, [skip.key_id(said)])
        ((key_id, key),) = given
        return wiped(given, skip.key(key_id, key))

    @app.get("/entropy")
    @allow(Role.SAE)
    def entropy() -> Response:
        """Of the operating system, not of a QC: it is no key that anybody shares."""
        local_sae(kme)
        bits = skip.entropy_query(_query())
        return as_json(skip.entropy(secrets.token_bytes(-(-bits // 8)), bits))


@contextmanager
def _remote_as_it_is_called_here() -> Iterator[None]:
    """The SAE at the other end has two names in GS QKD 014, and one here."""
    try:
        yield
    except Malformed as wrong:
        if wrong.field not in ("slave_SAE_ID", "master_SAE_ID"):
            raise
        raise Malformed("remoteSystemID", wrong.expected) from None


def _query() -> skip.Query:
    return list(request.args.items(multi=True))
