"""`signalbox doctor --planned`: what can be told from the files alone, before there is any account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from functions import settings
from functions.core.routes_file import RoutesError, load_routes
from local.commands import doctor_workflows
from local.commands.doctor_findings import Finding, fault, ok, unknown
from local.github.workflows import read_workflows

TEMPLATE = "infra/deploy.core-infra.json"
HANDS_OVER = {settings.STATE_ACCOUNT_NAME, settings.GITHUB_REPOSITORY, settings.DATA_ACCOUNTS}
"""App settings without which no app starts; a token or an App comes to them."""

_KEY_VAULT = "@Microsoft.KeyVault"
_SECRETS = (settings.PAT_TOKEN, settings.GITHUB_APP_PRIVATE_KEY)


def check(project: Path, routes_file: Path) -> Iterator[Finding]:
    """Look at routes, workflows and templates."""
    yield from _routes(project, routes_file)
    yield from _template(project)
    yield from _workspace(project)


def _routes(project: Path, routes_file: Path) -> Iterator[Finding]:
    try:
        routes = load_routes(routes_file.read_bytes(), routes_file.name)
    except OSError as error:
        yield fault("routes", routes_file.name, f"it cannot be read: {error}", f"mend {settings.ROUTES}")
        return
    except RoutesError as error:
        for line in str(error).splitlines():
            yield fault("routes", routes_file.name, line, "see docs/routes.md")
        return
    yield ok("routes", routes_file.name, f"{len(routes)} routes, all readable")
    workflows, unreadable = read_workflows(project)
    for broken in unreadable:
        yield fault(
            doctor_workflows.CHECK, ".github/workflows", str(broken), "mend the file; GitHub ignores it as well"
        )
    # What another repository must have cannot be seen from here.
    yield from doctor_workflows.check([r for r in routes if not r.repository], workflows, "in .github/workflows")
    for name in sorted({route.repository for route in routes if route.repository}):
        yield unknown("repository", name, "its workflows are not among these files", "signalbox doctor asks GitHub")


def _template(project: Path) -> Iterator[Finding]:
    path = project / TEMPLATE
    if not path.is_file():
        yield unknown("template", TEMPLATE, "it is not there, so nothing says how the app is set up")
        return
    try:
        given = _app_settings(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        yield fault("template", TEMPLATE, f"it is no JSON: {error}", "mend the file")
        return
    missing = sorted(HANDS_OVER - set(given))
    if not any(given.get(name) for name in settings.CREDENTIALS):
        missing.append(settings.PAT_TOKEN)
    for name in missing:
        yield fault("app settings", name, f"{TEMPLATE} does not set it, and the app does not start without", "add it")
    for name in _SECRETS:
        if given.get(name) and _KEY_VAULT not in given[name]:
            yield fault(
                "app settings", name, "it is no Key Vault reference: whoever may read the app can read it", "use one"
            )
    if not missing:
        yield ok("app settings", TEMPLATE, "it sets all that the app needs, secrets by Key Vault reference")


def _app_settings(template: dict[str, Any]) -> dict[str, str]:
    """The settings that the template gives to the function app, as their expressions."""
    found: dict[str, str] = {}
    for resource in template.get("resources", []):
        if resource.get("type") == "Microsoft.Web/sites/config" and "/appsettings" in str(resource.get("name")):
            found |= {name: str(value) for name, value in resource.get("properties", {}).items()}
    return found


def _workspace(project: Path) -> Iterator[Finding]:
    path = Path(".cloud/.azure/workspace.json")
    try:
        document = json.loads((project / path).read_text(encoding="utf-8"))
        missing = [name for name in ("name", "resource_group") if not document.get(name)]
    except (OSError, ValueError, AttributeError) as error:
        yield fault("workspace", str(path), f"it cannot be read: {error}", "give it name and resource_group")
        return
    if missing:
        yield fault("workspace", str(path), f"it lacks {', '.join(missing)}", "add what is missing")
    else:
        yield ok("workspace", str(path), f"{document['name']} in resource group {document['resource_group']}")
