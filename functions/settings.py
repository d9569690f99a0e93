"""Every setting of the function app, read from the environment once. docs/settings.md explains each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent

STATE_ACCOUNT = "AzureWebJobsStorage"
STATE_ACCOUNT_NAME = "AzureWebJobsStorage__accountName"
STATE_CLIENT_ID = "AzureWebJobsStorage__clientId"
GITHUB_API_URL = "GITHUB_API_URL"
GITHUB_REPOSITORY = "GITHUB_REPOSITORY"
PAT_TOKEN = "PAT_TOKEN"  # noqa: S105 - the setting's name, no token
ROUTES = "SIGNALBOX_ROUTES"
DATA_ACCOUNTS = "SIGNALBOX_DATA_ACCOUNTS"

NAMES = (
    STATE_ACCOUNT,
    STATE_ACCOUNT_NAME,
    STATE_CLIENT_ID,
    GITHUB_API_URL,
    GITHUB_REPOSITORY,
    PAT_TOKEN,
    ROUTES,
    DATA_ACCOUNTS,
)

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/(?!\.\.?$)[A-Za-z0-9._-]+")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what RFC 6750 allows in a Bearer header


class SettingsError(ValueError):
    """One or more settings are missing or wrong; a sentence for each."""


@dataclass(frozen=True, slots=True)
class StateAccount:
    """The storage account that holds Signalbox's state.

    Either `connection_string`, or `name` with the identity of `client_id` ("" means the system-assigned one).
    """

    connection_string: str = ""
    name: str = ""
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says, checked."""

    state: StateAccount
    github_api_url: str
    repository: str
    pat_token: str
    routes: Path
    data_accounts: frozenset[str]


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Check and collect the settings. Raises SettingsError that names every setting to mend."""
    wrong: list[str] = []

    def get(name: str) -> str:
        return environment.get(name, "").strip()

    state = StateAccount(get(STATE_ACCOUNT), get(STATE_ACCOUNT_NAME), get(STATE_CLIENT_ID))
    if not state.connection_string and not state.name:
        wrong.append(f"{STATE_ACCOUNT_NAME} is not set: name the storage account that holds Signalbox's state")
    url = (get(GITHUB_API_URL) or "https://api.github.com").rstrip("/")
    if not _is_safe_address(url):
        wrong.append(f"{GITHUB_API_URL} is '{url}': it must be https, or http on loopback")
    repository = get(GITHUB_REPOSITORY)
    if not _REPOSITORY.fullmatch(repository):
        wrong.append(f"{GITHUB_REPOSITORY} is '{repository}': write the repository as OWNER/NAME")
    token = get(PAT_TOKEN)
    if not token:
        wrong.append(f"{PAT_TOKEN} is not set: give a token with 'Contents: write' on the repository")
    elif token.startswith("@Microsoft.KeyVault"):
        wrong.append(f"{PAT_TOKEN} is an unresolved Key Vault reference: let the app's identity read that secret")
    elif not _TOKEN.fullmatch(token):
        wrong.append(f"{PAT_TOKEN} holds characters that no token has, such as quotes or blanks: copy it anew")
    accounts = frozenset(name.strip().lower() for name in get(DATA_ACCOUNTS).split(",") if name.strip())
    wrong.extend(
        f"{DATA_ACCOUNTS} holds '{name}', which is no storage account name (3 to 24 lowercase letters and digits)"
        for name in sorted(accounts)
        if not _ACCOUNT.fullmatch(name)
    )
    if not accounts:
        wrong.append(f"{DATA_ACCOUNTS} is not set: name the storage accounts whose blobs may be dispatched, by comma")
    routes = ROOT / (get(ROUTES) or "routes.yml")
    if not routes.is_file():
        wrong.append(f"{ROUTES} is '{routes}': there is no such file")
    if wrong:
        raise SettingsError("\n".join(wrong))
    return Settings(state, url, repository, token, routes, accounts)


def _is_safe_address(url: str) -> bool:
    """The token travels to this address: https, or http that does not leave the machine."""
    try:
        address = urlsplit(url)
        host = address.hostname
    except ValueError:
        return False
    return bool(host) and (address.scheme == "https" or (address.scheme == "http" and host in _LOOPBACK))
