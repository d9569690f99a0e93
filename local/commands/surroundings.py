"""Where the commands find state: the running `signalbox up`, else the settings in the environment."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.storage.blob import BlobServiceClient

from functions import settings
from functions.adapters.account import MissingStorage, StateStorage
from functions.core.routes import Route
from functions.core.routes_file import load_routes
from functions.flow.ports import StorageUnavailable
from functions.settings import Settings, StateAccount

DEFAULT_FOLDER = Path(".signalbox")
RUN_FILE = "run.json"


class CommandError(RuntimeError):
    """The command cannot do what it was asked for; one sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A Signalbox that can be asked.

    Attributes:
        place: what it is, for a person.
        state: its state account.
        app_settings: the function app's settings, as far as they are known.
        mlflow: tracking store and model registry; "" where not known.
        endpoints: address of the endpoints of a local run; "" where there is none.
    """

    place: str
    state: StateAccount
    app_settings: Mapping[str, str]
    mlflow: str
    endpoints: str

    def storage(self) -> StateStorage:
        """The state account's clients. Raises CommandError."""
        try:
            return StateStorage(self.state, None if self.state.connection_string else _person())
        except ValueError as error:
            raise CommandError(f"{settings.STATE_ACCOUNT} cannot be read as a connection string: {error}") from error

    def settings(self) -> Settings:
        """The checked settings. Raises SettingsError."""
        # The commands leave GitHub to the function app, so its credentials are nothing that a person here must have.
        credentials = {**dict.fromkeys(settings.CREDENTIALS, ""), settings.PAT_TOKEN: "not-used-here"}
        return settings.read_settings({**self.app_settings, **credentials})

    def routes(self) -> tuple[Route, ...]:
        """The routes of its routes file. Raises SettingsError or RoutesError."""
        path = self.settings().routes
        return load_routes(path.read_bytes(), str(path))

    def data(self, account: str) -> BlobServiceClient:
        """The blobs of a data account."""
        storage = self.storage().blobs
        if storage.account_name == account and self.state.connection_string:
            return storage
        return BlobServiceClient(f"https://{account}.blob.core.windows.net", _person())


def _person() -> TokenCredential:
    """The identity of whoever runs the command: `az login`, an editor, or the environment."""
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - only for Azure, and slow to import

    return DefaultAzureCredential()


def find(folder: Path, environment: Mapping[str, str]) -> Surroundings:
    """The local run whose state is in `folder`, else what the environment names. Raises CommandError."""
    run = folder / RUN_FILE
    if run.is_file():
        return _local(folder, json.loads(run.read_text(encoding="utf-8")))
    state = StateAccount(
        environment.get(settings.STATE_ACCOUNT, "").strip(), environment.get(settings.STATE_ACCOUNT_NAME, "").strip()
    )
    if not state.connection_string and not state.name:
        raise CommandError(
            f"nothing runs in {folder}, and {settings.STATE_ACCOUNT_NAME} is not set: start 'signalbox up', name its "
            "folder with --dir, or set the function app's settings"
        )
    place = f"state account {state.name}" if state.name else f"the state account of {settings.STATE_ACCOUNT}"
    given = {name: environment[name] for name in settings.NAMES if name in environment}
    return Surroundings(
        place, state, given, environment.get("MLFLOW_TRACKING_URI", ""), environment.get("ENDPOINTS_URL", "")
    )


def _local(folder: Path, run: Mapping[str, object]) -> Surroundings:
    known = run.get("settings")
    if not isinstance(known, dict):
        raise CommandError(f"{folder / RUN_FILE} was written by an older version: start 'signalbox up' again")
    state = StateAccount(connection_string=str(run["storage"]))
    return Surroundings(f"'signalbox up' in {folder}", state, known, str(run["mlflow"]), str(run.get("endpoints", "")))


def add_folder(command: argparse.ArgumentParser) -> None:
    """The option that all commands share."""
    command.add_argument(
        "--dir",
        type=Path,
        default=DEFAULT_FOLDER / "up",
        help="as given to 'signalbox up'; where nothing was started there, the settings in the environment count",
    )


def of(options: argparse.Namespace) -> Surroundings:
    """The surroundings that a command's options name."""
    return find(options.dir.resolve(), os.environ)


@contextmanager
def asking(surroundings: Surroundings) -> Iterator[None]:
    """Faults of storage inside of this block come out as CommandError."""
    try:
        yield
    except (StorageUnavailable, ClientAuthenticationError) as error:
        if any(isinstance(one, ClientAuthenticationError) for one in (error, error.__cause__)):
            raise CommandError(
                f"no identity that {surroundings.place} knows: run 'az login' ({_first_line(error)})"
            ) from error
        raise CommandError(
            f"the storage of {surroundings.place} does not answer ({_first_line(error)}): is it running and in reach? "
            "The command can be given again"
        ) from error
    except MissingStorage as error:
        raise CommandError(str(error)) from error
    except AzureError as error:
        status = getattr(error, "status_code", None)
        mend = ": you need the data roles for its blobs, tables and queues" if status == 403 else ""
        raise CommandError(f"the storage of {surroundings.place} refused{mend} ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
