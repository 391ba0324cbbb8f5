"""What the interfaces of a KME that speak HTTP have in common: who calls, and answers that hold keys."""

from __future__ import annotations

import json
from typing import Any

from flask import Response

from mtls.serve import caller
from node.serving.kme import Kme
from node.serving.pool import Keys


def local_sae(kme: Kme) -> str:
    """The calling SAE, which must be one of this node's; Unauthorized."""
    sae = caller().name
    kme.check_local(sae)
    return sae


def wiped(keys: Keys, document: dict[str, Any]) -> Response:
    """A document with these keys as the answer, after which nobody here needs them: they are wiped."""
    answer = as_json(document)
    for _, key in keys:
        key.wipe()
    return answer


def as_json(document: dict[str, Any]) -> Response:
    """Flask's own way looks for types that our documents do not have, and takes twice the time."""
    return Response(json.dumps(document, separators=(",", ":")), content_type="application/json")
