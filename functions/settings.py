"""Every setting of the function app, read from the environment once. docs/settings.md explains each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent

STATE_ACCOUNT = "AzureWebJobsStorage"
STATE_ACCOUNT_NAME = "AzureWebJobsStorage__accountName"
STATE_CLIENT_ID = "AzureWebJobsStorage__clientId"
GITHUB_API_URL = "GITHUB_API_URL"
GITHUB_REPOSITORY = "GITHUB_REPOSITORY"
PAT_TOKEN = "PAT_TOKEN"  # noqa: S105 - the setting's name, no token
GITHUB_APP_ID = "GITHUB_APP_ID"
GITHUB_APP_INSTALLATION_ID = "GITHUB_APP_INSTALLATION_ID"
GITHUB_APP_PRIVATE_KEY = "GITHUB_APP_PRIVATE_KEY"
ROUTES = "SIGNALBOX_ROUTES"
DATA_ACCOUNTS = "SIGNALBOX_DATA_ACCOUNTS"

GITHUB_APP = (GITHUB_APP_ID, GITHUB_APP_INSTALLATION_ID, GITHUB_APP_PRIVATE_KEY)
CREDENTIALS = (PAT_TOKEN, *GITHUB_APP)
"""Either the first, or all of the others."""

NAMES = (
    STATE_ACCOUNT,
    STATE_ACCOUNT_NAME,
    STATE_CLIENT_ID,
    GITHUB_API_URL,
    GITHUB_REPOSITORY,
    *CREDENTIALS,
    ROUTES,
    DATA_ACCOUNTS,
)

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/(?!\.\.?$)[A-Za-z0-9._-]+")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what RFC 6750 allows in a Bearer header
_APP_ID = re.compile(r"[0-9]+|Iv[0-9A-Za-z.]+")  # GitHub takes an App's client id as well
_NUMBER = re.compile(r"[0-9]+")
_KEY_VAULT = "@Microsoft.KeyVault"


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
class GitHubApp:
    """A GitHub App, installed where the dispatches go. `app_id` may be its client id; `private_key` is PEM."""

    app_id: str
    installation_id: str
    private_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says, checked. `pat_token` is "" where there is a `github_app`."""

    state: StateAccount
    github_api_url: str
    repository: str
    pat_token: str = field(repr=False)
    github_app: GitHubApp | None
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
    token, app = _credentials(get, wrong)
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
    return Settings(state, url, repository, token, app, routes, accounts)


def _credentials(get: Callable[[str], str], wrong: list[str]) -> tuple[str, GitHubApp | None]:
    """Personal access token or GitHub App; sentences about either go to `wrong`."""
    given = {name: get(name) for name in CREDENTIALS}
    token = given[PAT_TOKEN]
    of_app = [name for name in GITHUB_APP if given[name]]
    if not token and not of_app:
        wrong.append(
            f"{PAT_TOKEN} is not set: give a token with 'Contents: write' on the repository, "
            f"or a GitHub App by {', '.join(GITHUB_APP)}"
        )
    elif token and of_app:
        wrong.append(
            f"{PAT_TOKEN} and {of_app[0]} are both set: take {PAT_TOKEN} away to use the GitHub App, "
            f"or {', '.join(of_app)} to use the token"
        )
    elif of_app:
        wrong.extend(
            f"{name} is not set, but {of_app[0]} is: a GitHub App needs all of {', '.join(GITHUB_APP)}"
            for name in GITHUB_APP
            if not given[name]
        )
    wrong.extend(
        f"{name} is an unresolved Key Vault reference: let the app's identity read that secret"
        if value.startswith(_KEY_VAULT)
        else f"{name} {_FAULTS[name]}"
        for name, value in given.items()
        if value and (value.startswith(_KEY_VAULT) or not _FORMS[name](value))
    )
    key = _pem(given[GITHUB_APP_PRIVATE_KEY])
    return token, GitHubApp(given[GITHUB_APP_ID], given[GITHUB_APP_INSTALLATION_ID], key) if of_app else None


def _pem(value: str) -> str:
    """The key with real line breaks; a setting of one line has a backslash and an n for each."""
    return value.replace("\\n", "\n")


def _is_rsa_key(value: str) -> bool:
    # Imported here, so that only those pay for it who use an App.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(_pem(value).encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        return False
    return isinstance(key, RSAPrivateKey)


_FORMS: dict[str, Callable[[str], object]] = {
    PAT_TOKEN: _TOKEN.fullmatch,
    GITHUB_APP_ID: _APP_ID.fullmatch,
    GITHUB_APP_INSTALLATION_ID: _NUMBER.fullmatch,
    GITHUB_APP_PRIVATE_KEY: _is_rsa_key,
}

_FAULTS = {
    PAT_TOKEN: "holds characters that no token has, such as quotes or blanks: copy it anew",
    GITHUB_APP_ID: "is neither a number nor a client id: copy the App ID from the App's settings page",
    GITHUB_APP_INSTALLATION_ID: "is no number: copy the one at the end of the installation's address",
    GITHUB_APP_PRIVATE_KEY: (
        "is no RSA private key in PEM form without a password: set the whole .pem file that GitHub gave, from "
        "-----BEGIN to END ... KEY-----, on one line with \\n for each line break"
    ),
}


def _is_safe_address(url: str) -> bool:
    """The token travels to this address: https, or http that does not leave the machine."""
    try:
        address = urlsplit(url)
        host = address.hostname
    except ValueError:
        return False
    return bool(host) and (address.scheme == "https" or (address.scheme == "http" and host in _LOOPBACK))
