"""Resource providers: a subscription that never used a service refuses it (MissingSubscriptionRegistration)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.setup.azure_cli import AzureFault, az
from infra.setup.faults import SetupFault

LONGEST_SECONDS = 600.0
_PACE = 10.0
_ALWAYS_THERE = {"Microsoft.Resources", "Microsoft.Authorization"}


def namespaces(templates: Iterable[Path]) -> list[str]:
    """The providers of all resources of these templates, those of nested deployments included."""
    found: set[str] = set()
    for template in templates:
        found |= set(_namespaces(json.loads(template.read_text(encoding="utf-8"))))
    return sorted(found - _ALWAYS_THERE)


def _namespaces(template: Mapping[str, Any]) -> Iterable[str]:
    resources = template.get("resources", [])
    for resource in resources.values() if isinstance(resources, dict) else resources:
        yield str(resource["type"]).split("/", 1)[0]
        yield from _namespaces({"resources": resource.get("resources", [])})
        yield from _namespaces(resource.get("properties", {}).get("template", {}))


def register(wanted: Iterable[str], say: Callable[[str], None], pace: float = _PACE) -> list[str]:
    """Register what is missing and wait until it is there; gives the names. Raises SetupFault."""
    missing = [name for name in wanted if _state(name) != "Registered"]
    for name in missing:
        try:
            az("provider", "register", "--namespace", name)
        except AzureFault as fault:
            if fault.code != "AuthorizationFailed":
                raise
            raise SetupFault(
                f"The subscription does not know {', '.join(missing)} yet, and this identity may not register it: that "
                "needs a role on the subscription itself, for example Contributor. Its owner can do it once, with "
                "'python3 -m infra.setup first' or 'az provider register --namespace NAME'; then run setup.yml again."
            ) from fault
        say(f"registering {name}")
    deadline = time.monotonic() + LONGEST_SECONDS
    waiting = missing
    while waiting := [name for name in waiting if _state(name) != "Registered"]:
        if time.monotonic() > deadline:
            raise SetupFault(
                f"{', '.join(waiting)} did not get registered in {LONGEST_SECONDS:.0f} s: look at "
                "'az provider show --namespace NAME'; registering needs a role on the subscription itself, for example "
                "Contributor. Its owner can do it once, then run setup.yml again."
            )
        time.sleep(pace)
    return missing


def _state(name: str) -> str:
    return str(az("provider", "show", "--namespace", name)["registrationState"])
