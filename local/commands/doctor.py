"""`signalbox doctor`: looks at a deployment, or a planned one, and names each fault with its mend. Changes nothing."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from functions import settings
from functions.adapters.github_http import GitHubHttp
from functions.adapters.github_tokens import InstallationToken, PersonalToken, Token
from functions.adapters.system import SystemClock
from functions.core.github import Answer, NoAnswer
from functions.core.routes import Route
from functions.core.routes_file import RoutesError
from functions.settings import Settings, SettingsError
from local.commands import (
    doctor_azure,
    doctor_environments,
    doctor_files,
    doctor_github,
    doctor_storage,
    surroundings,
)
from local.commands.doctor_findings import FAULT, Finding, as_text, fault, ok, unknown
from local.commands.surroundings import CommandError, Surroundings
from local.github.workflows import read_workflows
from local.run_config import PROJECT, RUNNER_FILE

SUBSCRIPTION, GROUP = "AZURE_SUBSCRIPTION_ID", "RESOURCE_GROUP"
MANAGEMENT_URL = "https://management.azure.com"
_TIMEOUT = (5, 20)


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    doctor = commands.add_parser("doctor", help="look at a deployment, or a planned one, and name each fault's mend")
    doctor.add_argument("--planned", action="store_true", help="look at the files only; nothing has to be there yet")
    doctor.add_argument("--json", action="store_true", help="print the findings as a JSON array")
    surroundings.add_folder(doctor)
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the findings; status 1 where one is a fault."""
    if options.planned:
        routes = PROJECT / (os.environ.get(settings.ROUTES) or "routes.yml")
        findings = list(doctor_files.check(PROJECT, routes))
    else:
        findings = list(_deployed(options))
    print(json.dumps([one.to_json() for one in findings], indent=2) if options.json else as_text(findings))
    return 1 if any(one.state == FAULT for one in findings) else 0


def _deployed(options: argparse.Namespace) -> Iterator[Finding]:
    found = surroundings.of(options)
    now = datetime.now(UTC)
    yield from doctor_storage.check(found.storage(), now)
    try:
        checked, routes = found.settings(), found.routes()
    except (SettingsError, RoutesError) as error:
        for line in str(error).splitlines():
            says, _, mend = line.partition(": ")
            yield fault("app settings", found.place, says, mend or "see docs/settings.md and docs/routes.md")
        return
    yield ok("app settings", found.place, "all are there and well formed")
    own = _own_github(options.dir.resolve())
    token = PersonalToken(own) if own else _given_token(found)
    if token is None:
        yield unknown(
            "GitHub", checked.repository, "it was not asked: there is no token here",
            f"set {settings.PAT_TOKEN} to the one that the app uses",
        )  # fmt: skip
        subjects: list[str] = []
    else:
        api = GitHubApi(GitHubHttp(checked.github_api_url), token)
        findings, subjects = _github(api, checked, routes, now, bool(own))
        yield from findings
    yield from _azure(found, subjects)


def _github(
    api: GitHubApi, checked: Settings, routes: Sequence[Route], now: datetime, local: bool
) -> tuple[list[Finding], list[str]]:
    """What GitHub says of each repository that is dispatched to, and the subjects with which the first signs in."""
    here = read_workflows(PROJECT)[0] if local else None
    findings: list[Finding] = []
    subjects: list[str] = []
    for name in sorted({route.repository or checked.repository for route in routes}):
        sent = [route for route in routes if (route.repository or checked.repository) == name]
        seen = doctor_github.check(api, name, sent, now, here)
        findings += seen.findings
        if name == checked.repository and not local:
            findings += doctor_environments.check(api, name)
        if name == checked.repository and seen.subject_prefix:
            subjects.append(f"{seen.subject_prefix}:ref:refs/heads/{seen.branch}")
    return findings, subjects


def _own_github(folder: Path) -> str:
    """The token of a local run's own GitHub, whose workflows are the files of this project; "" where there is none."""
    run = folder / surroundings.RUN_FILE
    if not run.is_file() or "github" not in json.loads(run.read_text(encoding="utf-8"))["pids"]:
        return ""
    runner = json.loads((folder / RUNNER_FILE).read_text(encoding="utf-8"))
    return str(runner["secrets"]["RUN_EVENTS_KEY"])  # one token serves all parts of a local run


def _given_token(found: Surroundings) -> Token | None:
    """The credentials in the environment. Raises SettingsError."""
    given = {name: os.environ.get(name, "") for name in settings.CREDENTIALS}
    if not any(given.values()):
        return None
    full = settings.read_settings({**found.app_settings, **given})
    app = full.github_app
    return InstallationToken(full.github_api_url, app, SystemClock()) if app else PersonalToken(full.pat_token)


def _azure(found: Surroundings, subjects: Sequence[str]) -> Iterator[Finding]:
    subscription, name = os.environ.get(SUBSCRIPTION, ""), os.environ.get(GROUP, "")
    if found.state.connection_string:
        return  # one machine has no Azure
    if not subscription or not name:
        yield unknown(
            "Azure", found.place, "the resources were not looked at",
            f"set {SUBSCRIPTION} and {GROUP}, and 'az login'",
        )  # fmt: skip
        return
    group = doctor_azure.Group(ManagementRest(MANAGEMENT_URL), subscription, name)
    yield from doctor_azure.check(group, found.state.name, subjects)


@dataclass(frozen=True, slots=True)
class GitHubApi:
    """GET with the app's own adapters."""

    http: GitHubHttp
    token: Token

    def get(self, path: str) -> Answer | NoAnswer:
        """See doctor_github.Api."""
        bearer = self.token.get()
        return self.http.call("GET", path, bearer, timeout=_TIMEOUT) if isinstance(bearer, str) else bearer


class ManagementRest:
    """Azure Resource Manager with the identity of whoever runs the command."""

    def __init__(self, url: str, token: str = "") -> None:
        """`url` without a slash at its end; without a `token` one is asked for at the first call."""
        self._url = url
        self._bearer = token

    def get(self, path: str) -> Mapping[str, Any]:
        """See doctor_azure.Management."""
        for _ in range(3):
            try:
                answer = requests.get(
                    self._url + path,
                    headers={"Authorization": f"Bearer {self._token()}", "User-Agent": "signalbox"},
                    timeout=_TIMEOUT,
                )
            except requests.RequestException as error:
                raise doctor_azure.Refused(f"Azure cannot be reached: {error}") from error
            if answer.status_code != 429:
                break
            asked = answer.headers.get("Retry-After", "")
            time.sleep(min(int(asked), 10) if asked.isdecimal() else 1)
        try:
            document = answer.json()
        except ValueError:
            document = None
        if answer.status_code != 200 or not isinstance(document, dict):
            told = document.get("error", {}) if isinstance(document, dict) else {}
            raise doctor_azure.Refused(f"Azure answered {answer.status_code} {told.get('code', '')}".rstrip())
        return document

    def _token(self) -> str:
        if not self._bearer:
            from azure.core.exceptions import ClientAuthenticationError  # noqa: PLC0415 - as the import below
            from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - only for Azure, and slow to import

            try:
                self._bearer = DefaultAzureCredential().get_token(f"{MANAGEMENT_URL}/.default").token
            except ClientAuthenticationError as error:
                raise CommandError(f"no identity for Azure: run 'az login' ({str(error).splitlines()[0]})") from error
        return self._bearer
