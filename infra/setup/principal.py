"""Who has signed in to Azure: the identity that the core template made, or one that people brought themselves."""

from __future__ import annotations

import base64
import json
from typing import Any

from infra.setup.azure_cli import az
from infra.setup.faults import SetupFault


def brought_along(group: str) -> str:
    """Object id of the signed-in identity where it is none of the group's own, else "".

    The template gives it the roles that training and rollout need. Raises SetupFault.
    """
    claims = _claims(str(az("account", "get-access-token")["accessToken"]))
    own = {str(identity["clientId"]).lower() for identity in az("identity", "list", "--resource-group", group) or []}
    return "" if str(claims.get("appid", "")).lower() in own else str(claims["oid"])


def _claims(token: str) -> dict[str, Any]:
    try:
        body = token.split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError) as error:
        raise SetupFault(f"Azure's access token cannot be read: {error}.") from None
    if "oid" not in claims:
        raise SetupFault("Azure's access token names no object id: sign in as a service principal or an identity.")
    return claims
