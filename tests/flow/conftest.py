"""Fixtures of the contract that the simulated store and the real one share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from functions.adapters.account import StateStorage
from functions.adapters.storage import AzureStore
from functions.core.dispatch import Dispatch, ManifestRef
from functions.core.windows import Head
from functions.flow.ports import Store
from functions.settings import StateAccount
from local.provision import provision

from .memory import MemoryStore

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def storage(azurite: str) -> StateStorage:
    """The state account on Azurite."""
    provision(azurite)
    return StateStorage(StateAccount(connection_string=azurite))


@pytest.fixture(params=["simulated", "azurite"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each of the two stores."""
    if request.param == "simulated":
        return MemoryStore(lambda: datetime.now(UTC))
    return AzureStore(request.getfixturevalue("storage"))


@pytest.fixture
def route() -> str:
    """A route of this test alone: tests share the account."""
    return f"r-{uuid4().hex}"


@pytest.fixture
def head(route: str) -> Head:
    """A head that is not stored yet, with a key of every kind of character."""
    return Head(route, "a/b\\c#?%'\"é\n\N{STEAM LOCOMOTIVE}", epoch="epoch")


@pytest.fixture
def make(route: str) -> Callable[..., Dispatch]:
    """Makes dispatches of this test alone."""

    def dispatch(**changes: object) -> Dispatch:
        values: dict[str, object] = {
            "id": f"sb-{uuid4().hex[:20]}",
            "route": route,
            "key": "digits",
            "event_type": "storage-blobcreated",
            "repository": f"octo/{route}",
            "source": "Microsoft.Storage.BlobCreated",
            "subject": "é\n",
            "data": {"x": "é" * 6_000},
            "event_count": 2,
            "manifest": ManifestRef("u", "s", 2, 9),
            "created": NOW,
        }
        return Dispatch(**{**values, **changes})  # type: ignore[arg-type]

    return dispatch
