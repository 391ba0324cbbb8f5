"""Every endpoint of every server names the roles that it serves; this table is the whole of it."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask

from controller.northbound import api, standby
from mtls.identity import Role
from node.http import agent_http, kme_http, restconf_http
from sae import sae_http
from sae.vpn import gateway_http

NODE, SAE, CONTROLLER, OPERATOR = Role.NODE, Role.SAE, Role.CONTROLLER, Role.OPERATOR
NOBODY: Any = Mock()  # what routes are made of is not called here

EXPECTED = {
    "kme": {
        "GET /api/v1/openapi.json": {SAE},
        "GET /api/v1/keys/<sae_id:slave>/status": {SAE},
        "GET /api/v1/keys/<sae_id:slave>/enc_keys": {SAE},
        "POST /api/v1/keys/<sae_id:slave>/enc_keys": {SAE},
        "GET /api/v1/keys/<sae_id:master>/dec_keys": {SAE},
        "POST /api/v1/keys/<sae_id:master>/dec_keys": {SAE},
        **{f"GET {path}": {SAE} for path in ("/capabilities", "/key", "/key/<said>", "/entropy")},
        "POST /qkd/v1/key_sessions": {SAE},
        "DELETE /qkd/v1/key_sessions": {SAE},
        "DELETE /qkd/v1/key_sessions/<ksid>": {SAE},
    },
    "agent": {
        **{
            f"{method} {path}": {CONTROLLER, OPERATOR}
            for path in ("/restconf", "/restconf/", "/restconf/<path:_>")
            for method in ("GET", "OPTIONS", "PUT", "POST", "PATCH", "DELETE")
        },
        **{
            f"GET {path}": {CONTROLLER, OPERATOR}
            for path in ("/.well-known/host-meta", "/restconf/streams/<name>/json")
        },
        "POST /restconf/operations/qkd-testbed:application_answer": {CONTROLLER},
        "POST /qkd/v1/applications": {NODE},
        "POST /qkd/v1/streams/<ksid>/<step>": {NODE},
        "GET /qkd/v1/virtual_links/<link_id>/neighbours": {NODE},
        "POST /qkd/v1/relay/<request_id>": {NODE},
        "POST /qkd/v1/relay/<request_id>/keys": {NODE},
        "POST /qkd/v1/relay/<request_id>/new_keys": {NODE},
        "POST /qkd/v1/relay/<request_id>/check": {NODE},
        "POST /qkd/v1/relay/<request_id>/pads": {NODE},
        "POST /qkd/v1/relay/<request_id>/difference": {NODE},
        "POST /qkd/v1/relay/<request_id>/sealed": {NODE},
        "POST /qkd/v1/devices/offers": {NODE},
        "GET /qkd/v1/status": {OPERATOR},
        "GET /metrics": {OPERATOR},
    },
    "controller": {
        **{
            call: {OPERATOR}
            for call in (
                "GET /qkd/v1/openapi.json", "GET /qkd/v1/topology", "DELETE /qkd/v1/key_sessions/<ksid>",
                "PUT /qkd/v1/qcs/<path:qc>/generation", "GET /qkd/v1/agents", "PUT /qkd/v1/agents/<name>",
                "DELETE /qkd/v1/agents/<name>", "GET /qkd/v1/leader",
            )
        },
        "GET /qkd/v1/status": {OPERATOR},
        "GET /metrics": {OPERATOR},
        "GET /qkd/v1/links": {OPERATOR},
        "GET /qkd/v1/qcs": {OPERATOR},
        "GET /qkd/v1/key_sessions": {OPERATOR},
        "GET /qkd/v1/refusals": {OPERATOR},
        "GET /qkd/v1/parameters": {OPERATOR},
        "PATCH /qkd/v1/parameters": {OPERATOR},
        "PUT /qkd/v1/qcs/<path:qc>/rate": {OPERATOR},
    },
    "standby": {
        "GET /qkd/v1/leader": {OPERATOR},
        "GET /metrics": {OPERATOR},
        **{
            f"{method} {path}": {OPERATOR}
            for path in ("/", "/<path:_>")
            for method in ("GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS")
        },
    },
    "sae": {
        "POST /sae/v1/connections": {SAE},
        "DELETE /sae/v1/connections": {SAE},
        "POST /sae/v1/keys": {SAE},
        "POST /sae/v1/messages": {SAE},
        "POST /sae/v1/sessions": {OPERATOR},
        "GET /sae/v1/sessions": {OPERATOR},
        "DELETE /sae/v1/sessions/<ksid>": {OPERATOR},
    },
    "gateway": {
        "PUT /vpn/v1/far_end": {SAE},
        "DELETE /vpn/v1/far_end": {SAE},
        "POST /vpn/v1/far_end/keys": {SAE},
        "POST /vpn/v1/far_end/turns": {SAE},
        "POST /vpn/v1/tunnels": {OPERATOR},
        "GET /vpn/v1/tunnels": {OPERATOR},
        "DELETE /vpn/v1/tunnels/<peer_id>": {OPERATOR},
    },
}
APPS = {
    "kme": lambda: kme_http.make_app(NOBODY, NOBODY, NOBODY, NOBODY),
    "agent": lambda: agent_http.make_app(
        NOBODY, restconf_http.make_blueprint(*[NOBODY] * 5), key_sessions=NOBODY, relay=NOBODY,
        routes=NOBODY, streams=NOBODY, devices=NOBODY, home_of=NOBODY, store=NOBODY, journal=NOBODY, metrics=NOBODY,
    ),
    "controller": lambda: api.make_app(
        *[NOBODY] * 4, book=NOBODY, choice=NOBODY, settings=NOBODY, switches=NOBODY, leadership=NOBODY
    ),
    "standby": lambda: standby.make_app(NOBODY),
    "sae": lambda: sae_http.make_app(NOBODY),
    "gateway": lambda: gateway_http.make_app(NOBODY),
}


def roles(app: Flask) -> dict[str, set[Role]]:
    """Method and path of every endpoint, and the roles that its view names."""
    return {
        f"{method} {rule.rule}": set(getattr(app.view_functions[rule.endpoint], "allowed_roles", ()))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }


@pytest.mark.parametrize("name", APPS)
def test_endpoints_serve_the_roles_in_the_table_and_no_others(name):
    """A new endpoint shows up here before anybody can call it."""
    assert roles(APPS[name]()) == EXPECTED[name]
