"""What each part of a local run is told: commands, addresses, environments, the runner's variables."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from functions import settings
from local.azurite import ACCOUNT, connection_string
from local.sockets import HOST

PROJECT = Path(__file__).resolve().parent.parent
PARTS = ("storage", "eventgrid", "endpoints", "steps", "functions", "github")
REPOSITORY = "local/signalbox"
TEMPLATE = PROJECT / "infra" / "deploy_event_grid.json"
RUNNER_FILE = "runner.json"
PARAMETERS_FILE = "params.deploy_event_grid.json"
WORKSPACE_ID = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/local"
    "/providers/Microsoft.MachineLearningServices/workspaces/local"
)


class ConfigError(ValueError):
    """What was asked for cannot be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that follows from a state folder, its ports and the user's environment.

    Attributes:
        folder: keeps the state of all parts.
        ports: by the names of `local.ports`.
        parts: which to start, in the order of `PARTS`.
        environment: the user's, from which settings are taken.
        token: what the GitHub stand-in accepts.
    """

    folder: Path
    ports: Mapping[str, int]
    parts: tuple[str, ...]
    environment: Mapping[str, str]
    token: str

    def url(self, part: str) -> str:
        """Address of a part without a slash at its end."""
        return f"http://{HOST}:{self.ports[part]}"

    @property
    def names_github(self) -> bool:
        """True where the user names a GitHub of their own."""
        return bool(self.environment.get(settings.GITHUB_API_URL))

    @property
    def has_credentials(self) -> bool:
        """True where the user gives a token or any setting of a GitHub App."""
        return any(self.environment.get(name) for name in settings.CREDENTIALS)

    @property
    def github_url(self) -> str:
        """GitHub as the function app sees it: the user's, or the stand-in."""
        return self.environment.get(settings.GITHUB_API_URL) or self.url("github")

    @property
    def repository(self) -> str:
        """OWNER/NAME."""
        return self.environment.get(settings.GITHUB_REPOSITORY) or REPOSITORY

    @property
    def storage(self) -> str:
        """Connection string of the local account, or the user's where no storage is started here."""
        if "storage" not in self.parts and self.environment.get(settings.STATE_ACCOUNT):
            return self.environment[settings.STATE_ACCOUNT]
        return connection_string(self.ports["storage"], self.ports["queue"], self.ports["table"])

    @property
    def mlflow_uri(self) -> str:
        """Tracking store and model registry."""
        return f"sqlite:///{self.folder / 'mlflow' / 'mlflow.db'}"

    def state(self, part: str) -> Path:
        """Folder of one part's state."""
        return self.folder / part

    def log(self, part: str) -> Path:
        """Log file of one part."""
        return self.folder / "logs" / f"{part}.log"

    def command(self, part: str) -> list[str]:
        """What starts the part."""
        python = [sys.executable, "-m", f"local.{_PACKAGES[part]}.server", "--dir", str(self.state(part))]
        if part != "steps":
            python += ["--port", str(self.ports[part])]
        return python + self._options(part)

    def _options(self, part: str) -> list[str]:
        match part:
            case "storage":
                ports = ["--queue-port", str(self.ports["queue"]), "--table-port", str(self.ports["table"])]
                return ports + (["--eventgrid", self.url("eventgrid")] if "eventgrid" in self.parts else [])
            case "eventgrid":
                functions = ["--functions", self.url("functions")]
                parameters = ["--parameters", str(self.folder / PARAMETERS_FILE)]
                return ["--template", str(TEMPLATE), *parameters, *functions, "--storage", self.storage]
            case "functions":
                return ["--app", str(PROJECT)]
            case "github":
                runner = str(self.folder / RUNNER_FILE)
                return ["--repository", self.repository, "--project", str(PROJECT), "--runner", runner]
            case _:
                return []

    def part_environment(self, part: str) -> dict[str, str]:
        """The environment in which the part runs."""
        environment = {**self.environment, "PYTHONUNBUFFERED": "1"}
        if part == "functions":
            environment |= self.app_settings()
        if part == "github":
            environment["SIGNALBOX_GITHUB_TOKEN"] = self.token
        return environment

    def app_settings(self) -> dict[str, str]:
        """The function app's settings: the user's where they are given, else those of one machine.

        The user's token or GitHub App goes to the user's GitHub only; the stand-in takes its own token and no other.
        Settings that are not to be used are "", so that they stand in no environment that this one is laid over.
        """
        given = {name: self.environment[name] for name in settings.NAMES if self.environment.get(name)}
        if not self.names_github or not self.has_credentials:
            given |= {**dict.fromkeys(settings.CREDENTIALS, ""), settings.PAT_TOKEN: self.token}
        if routes := given.get(settings.ROUTES):
            given[settings.ROUTES] = str(PROJECT / routes)
        return {
            settings.DATA_ACCOUNTS: ACCOUNT,
            **given,
            settings.STATE_ACCOUNT: self.storage,
            settings.GITHUB_API_URL: self.github_url,
            settings.GITHUB_REPOSITORY: self.repository,
        }

    def template_parameters(self) -> dict[str, object]:
        """The parameters with which the local Event Grid evaluates infra/deploy_event_grid.json."""
        values = {
            "workspaceName": "local",
            "dataAccountName": ACCOUNT,
            "stateAccountName": ACCOUNT,
            "FunctionName": "local",
        }
        return {"parameters": {name: {"value": value} for name, value in values.items()}}

    def runner(self) -> dict[str, object]:
        """What the GitHub stand-in gives to workflows: variables, secrets, and the runner machine's PATH."""
        return {
            "vars": {
                "TRAINING_COMPUTE": "local",
                "MLFLOW_TRACKING_URI": self.mlflow_uri,
                "STORAGE_ACCOUNT": ACCOUNT,
                "STATE_ACCOUNT": ACCOUNT,
                "RUN_EVENTS_ENDPOINT": f"{self.url('eventgrid')}/workspace/api/events",
                "DRIFT_EVENTS_ENDPOINT": f"{self.url('eventgrid')}/signalbox/api/events",
                "ENDPOINTS_URL": self.url("endpoints"),
                "WORKSPACE_ID": WORKSPACE_ID,
            },
            "secrets": {
                "STORAGE_CONNECTION_STRING": self.storage,
                "RUN_EVENTS_KEY": self.token,
                "DRIFT_EVENTS_KEY": self.token,
            },
            "env": {},
            "path": [str(self.state("steps") / "bin"), str(Path(sys.executable).parent)],
        }


_PACKAGES = {part: "functions_host" if part == "functions" else part for part in PARTS}


def choose_parts(only: str | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The parts to start: those of `only` (by comma), else all; no GitHub stand-in where the user names a GitHub."""
    if only is None:
        foreign = bool(environment.get(settings.GITHUB_API_URL))
        return tuple(part for part in PARTS if not (foreign and part == "github"))
    asked = [part.strip() for part in only.split(",") if part.strip()]
    unknown = [part for part in asked if part not in PARTS]
    if unknown or not asked:
        raise ConfigError(f"--only names {', '.join(unknown) or 'nothing'}; the parts are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in asked)


def new_token() -> str:
    """A token for one local run."""
    return f"local-{secrets.token_hex(16)}"


def check(config: RunConfig) -> None:
    """Raise ConfigError or SettingsError where the function app would refuse these settings."""
    if "functions" not in config.parts:
        return
    if config.names_github and not config.has_credentials:
        address = config.environment[settings.GITHUB_API_URL]
        if not address.startswith(("http://127.0.0.1", "http://localhost", "http://[::1]")):
            raise ConfigError(
                f"GITHUB_API_URL is {address}, so PAT_TOKEN is needed: set it to a token of that GitHub, or set "
                f"{', '.join(settings.GITHUB_APP)}"
            )
    settings.read_settings({**os.environ, **config.app_settings()})
