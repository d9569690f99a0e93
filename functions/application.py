"""The running app: settings and routes checked when it loads, storage and GitHub opened at its first call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from functions.adapters.account import StateStorage
from functions.adapters.github import GitHubRest
from functions.adapters.github_tokens import InstallationToken, PersonalToken, Token
from functions.adapters.queues import AzureQueue
from functions.adapters.storage import AzureStore
from functions.adapters.system import SystemChance, SystemClock
from functions.core.routes_file import load_routes
from functions.flow.orchestrator import Orchestrator
from functions.flow.ports import Clock
from functions.settings import read_settings


class Application:
    """Holds the one orchestrator of this process.

    Raises SettingsError or RoutesError when made, so that a wrong setting is seen when the app starts and not when the
    first event comes.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` holds the app settings."""
        self._settings = read_settings(environment)
        self._routes = load_routes(self._settings.routes.read_bytes(), self._settings.routes.name)
        self._orchestrator: Orchestrator | None = None
        self._opening = asyncio.Lock()

    async def orchestrator(self) -> Orchestrator:
        """The orchestrator; the first call looks whether the state account can hold state. Raises MissingStorage."""
        if self._orchestrator is None:
            async with self._opening:
                if self._orchestrator is None:
                    self._orchestrator = await self._open()
        return self._orchestrator

    async def _open(self) -> Orchestrator:
        storage = StateStorage(self._settings.state)
        await storage.check()
        clock = SystemClock()
        return Orchestrator.build(
            routes=self._routes,
            store=AzureStore(storage),
            queue=AzureQueue(storage),
            github=GitHubRest(self._settings.github_api_url, self._token(clock)),
            clock=clock,
            chance=SystemChance(),
            repository=self._settings.repository,
            data_accounts=self._settings.data_accounts,
        )

    def _token(self, clock: Clock) -> Token:
        app = self._settings.github_app
        if app is None:
            return PersonalToken(self._settings.pat_token)
        return InstallationToken(self._settings.github_api_url, app, clock)
