"""Creates in a local state account what infra/deploy.core-infra.json creates in Azure."""

from __future__ import annotations

from collections.abc import Callable

from azure.core.exceptions import ResourceExistsError

from functions.adapters.account import CONTAINERS, QUEUES, TABLES, StateStorage
from functions.settings import StateAccount

DATA_CONTAINER = "training-data"
EVENT_GRID_DEAD_LETTERS = "eventgrid-dead-letters"


def provision(connection_string: str) -> None:
    """Create containers, tables and queues where they do not exist yet."""
    storage = StateStorage(StateAccount(connection_string=connection_string))
    for container in (*CONTAINERS, DATA_CONTAINER, EVENT_GRID_DEAD_LETTERS):
        _create(storage.blobs.get_container_client(container).create_container)
    for table in TABLES:
        _create(storage.tables.get_table_client(table).create_table)
    for queue in QUEUES:
        _create(storage.queues.get_queue_client(queue).create_queue)


def _create(create: Callable[[], object]) -> None:
    try:
        create()
    except ResourceExistsError:
        return
