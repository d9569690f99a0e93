"""The values that setup.yml is given: five that a person sets, all checked before anything is started."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.setup.faults import SetupFault

PROJECT = Path(__file__).resolve().parents[2]
PARAMETERS = "infra/params.deploy.core-infra.json"

IDS = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_SUBSCRIPTION_ID")
CREDENTIALS = "AZURE_CREDENTIALS"
TOKEN = "PATTOKEN"  # noqa: S105 - the secret's name
APP_KEY = "APP_PRIVATE_KEY"
GROUP = "RESOURCE_GROUP"
REPOSITORY = "GITHUB_REPOSITORY"

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_GROUP = re.compile(r"[-\w.()]{1,89}[-\w()]|[-\w()]")  # Azure's rule: up to 90, no full stop at the end
_TOKEN = re.compile(r"[A-Za-z0-9_]{20,}")
_IN_CREDENTIALS = ("clientId", "clientSecret", "tenantId", "subscriptionId")


@dataclass(frozen=True, slots=True)
class Values:
    """What the set-up works with.

    Attributes:
        group: the resource group.
        repository: OWNER/NAME that the function app dispatches to.
        token: the personal access token that it does so with; "" keeps the one that is in the key vault.
        app_key: the private key of the GitHub App that it does so with instead, as PEM; "" as for the token.
        oidc: True with OpenID Connect, False with the stored AZURE_CREDENTIALS.
    """

    group: str
    repository: str
    token: str = field(repr=False)
    oidc: bool
    app_key: str = field(default="", repr=False)


def is_untouched(environment: Mapping[str, str]) -> bool:
    """True where nobody has set anything yet, as in a repository that was just made from this one."""
    return not any(environment.get(name, "").strip() for name in (*IDS, CREDENTIALS, TOKEN, APP_KEY, GROUP))


def read(environment: Mapping[str, str], project: Path = PROJECT) -> Values:
    """Check and collect the values. Raises SetupFault with a sentence for each that is missing or wrong."""
    wrong: list[str] = []
    given = {name: environment.get(name, "").strip() for name in (*IDS, CREDENTIALS, TOKEN, APP_KEY, GROUP, REPOSITORY)}
    oidc = any(given[name] for name in IDS)
    if oidc:
        wrong += [_wrong_id(name, given[name]) for name in IDS if not _GUID.fullmatch(given[name])]
    elif given[CREDENTIALS]:
        wrong += _wrong_credentials(given[CREDENTIALS])
    else:
        wrong.append(
            f"{', '.join(IDS)} are not set: add them as repository variables, to sign in without a stored password "
            f"(or, as before, the secret {CREDENTIALS})."
        )
    app = _uses_app(project)
    wrong += _wrong_app_key(given[APP_KEY]) if app else _wrong_token(given[TOKEN])
    wrong += _wrong_group(given[GROUP], project)
    if "/" not in given[REPOSITORY]:
        wrong.append(f"{REPOSITORY} is '{given[REPOSITORY]}': it must be OWNER/NAME; on a runner GitHub sets it.")
    if wrong:
        raise SetupFault(*wrong)
    token, key = ("", given[APP_KEY]) if app else (given[TOKEN], "")
    return Values(given[GROUP], given[REPOSITORY], token, oidc, key)


def _uses_app(project: Path) -> bool:
    """Whether the parameters name a GitHub App; a file that cannot be read is told when it is deployed with."""
    try:
        document = json.loads((project / PARAMETERS).read_text(encoding="utf-8"))
        return bool(document["parameters"].get("gitHubAppId", {}).get("value"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _wrong_token(token: str) -> list[str]:
    if not token:
        return [
            f"{TOKEN} is not set: add a secret with a personal access token that has 'Contents: write' and "
            "'Actions: read' on this repository ('Actions: write' where a route says 'via: workflow_dispatch')."
        ]
    if not _TOKEN.fullmatch(token):
        return [f"{TOKEN} is no personal access token (blanks, quotes or too short): copy it anew."]
    return []


def _wrong_app_key(key: str) -> list[str]:
    if not key:
        return [f"{APP_KEY} is not set, but {PARAMETERS} names a GitHub App: add its private key as a secret."]
    if "PRIVATE KEY-----" not in key:
        return [f"{APP_KEY} is no private key: store the whole .pem file that GitHub gave."]
    return []


def _wrong_id(name: str, value: str) -> str:
    if not value:
        return f"{name} is not set, but another of {', '.join(IDS)} is: add it as a repository variable."
    return f"{name} is '{value}': it must be a GUID such as 00000000-0000-0000-0000-000000000000."


def _wrong_credentials(text: str) -> list[str]:
    mend = "store the whole JSON that 'az ad sp create-for-rbac --json-auth' prints"
    try:
        document = json.loads(text)
    except ValueError:
        return [f"{CREDENTIALS} is no JSON: {mend}."]
    if not isinstance(document, dict):
        return [f"{CREDENTIALS} is no JSON object: {mend}."]
    missing = [name for name in _IN_CREDENTIALS if not document.get(name)]
    return [f"{CREDENTIALS} lacks {', '.join(missing)}: {mend}."] if missing else []


def _wrong_group(group: str, project: Path) -> list[str]:
    """Variable and file name the same group, or training would look for its workspace elsewhere."""
    if not group:
        return [f"{GROUP} is not set: add it as a repository variable; it is the group that all goes into."]
    if not _GROUP.fullmatch(group):
        return [f"{GROUP} is '{group}': letters, digits, - _ . ( ) only, at most 90, no full stop at the end."]
    try:
        in_file = str(cloud_settings("workspace", project)["resource_group"])
    except SetupFault as fault:
        return list(fault.sentences)
    if in_file.lower() != group.lower():
        return [
            f"{GROUP} is '{group}', but .cloud/.azure/workspace.json says resource_group '{in_file}': training looks "
            "for its workspace there. Write the same name in both."
        ]
    return []


def cloud_settings(name: str, project: Path = PROJECT) -> dict[str, Any]:
    """A file of `.cloud/.azure`, which training reads as well; `workspace` has name and resource_group.

    Raises SetupFault.
    """
    path = Path(f".cloud/.azure/{name}.json")
    try:
        document = json.loads((project / path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SetupFault(f"{path} cannot be read: {error}.") from None
    needed = ("name", "resource_group") if name == "workspace" else ("name",)
    missing = [key for key in needed if not isinstance(document, dict) or not document.get(key)]
    if missing:
        raise SetupFault(f"{path} lacks {', '.join(missing)}.")
    found: dict[str, Any] = document
    return found
