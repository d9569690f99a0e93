"""Key Vault references in the function app's settings: read anew, and waited for, before the app is published.

Azure looks a reference up when the setting is written, and then once a day. The token comes into the vault, and the
app's identity to its role, after that: without this the app would start with the reference's text instead of the token.
Follows "Use Key Vault references as app settings" and "Web Apps - Get App Settings Key Vault References".
"""

from __future__ import annotations

import time
from collections.abc import Callable

from infra.setup.azure_cli import az
from infra.setup.faults import SetupFault
from infra.setup.patience import Patience

_VERSION = "2024-11-01"


def await_resolved(group: str, app: str, patience: Patience, say: Callable[[str], None]) -> list[str]:
    """Wait until every reference is resolved; gives the settings' names. Raises SetupFault."""
    site = f"/subscriptions/{{subscriptionId}}/resourceGroups/{group}/providers/Microsoft.Web/sites/{app}"
    address = f"{site}/config/configreferences/appsettings"
    deadline = time.monotonic() + patience.longest
    while True:
        az("rest", "--method", "post", "--url", f"{address}/refresh?api-version={_VERSION}")
        listed = az("rest", "--method", "get", "--url", f"{address}?api-version={_VERSION}")["value"]
        told = {str(one["name"]).rpartition("/")[2]: str(one.get("properties", {}).get("status")) for one in listed}
        said = ", ".join(f"{name} ({status})" for name, status in sorted(told.items()) if status != "Resolved")
        if not said:
            return sorted(told)
        if time.monotonic() > deadline:
            raise SetupFault(
                f"The function app cannot read from the key vault after {patience.longest:.0f} s: {said}. Is the "
                "secret there, and has the app's identity the role Key Vault Secrets User on it? A new role can take "
                "ten minutes to be known: then run setup.yml again."
            )
        say(f"waiting for {said}")
        time.sleep(patience.pace)
