"""Rows of the state account's tables: how heads and dispatches stand in them, and how they are changed."""

from __future__ import annotations

from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import TableClient, UpdateMode

from functions.adapters.account import error_code
from functions.core.dispatch import Dispatch
from functions.core.windows import Head
from functions.flow.ports import Conflict

DISPATCHES, WATCHES, BUDGETS, OPEN = "dispatch", "watch", "budget", "open "
"""Partitions of the ledger's table, and what the row keys of its notes of unfinished rows begin with."""

_LONGEST_PROPERTY = 30_000  # a table's text property holds 32 K characters


def compare_and_set(table: TableClient, entity: dict[str, Any], version: str) -> str:
    """Insert (version "") or replace the row as it was read; gives its new version."""
    try:
        if version:
            result = table.update_entity(
                entity, mode=UpdateMode.REPLACE, etag=version, match_condition=MatchConditions.IfNotModified
            )
        else:
            result = table.create_entity(entity)
    except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError) as error:
        if error_code(error) == "TableNotFound":
            raise
        raise Conflict(f"row {entity['PartitionKey']}/{entity['RowKey']}") from error
    return str(result["etag"])


def head_entity(head: Head) -> dict[str, Any]:
    """The row of a head."""
    return {
        "PartitionKey": head.route,
        "RowKey": head.key_digest,
        "open": head.is_open,
        "unfinished": bool(head.unfinished),
        "head": head.to_text(),
    }


def head_of(entity: Any) -> Head:
    """The head in a row."""
    return Head.from_text(entity["head"], str(entity.metadata["etag"]))


def watch_key(repository: str) -> str:
    """The row key of a repository's watch: no slash may stand in it, and Azure reads percent signs twice."""
    return repository.replace("/", " ")


def dispatch_entity(dispatch: Dispatch) -> dict[str, Any]:
    """The row of a dispatch, its text in as many properties as it takes."""
    text = dispatch.to_text()
    parts = {
        f"body{start // _LONGEST_PROPERTY}": text[start : start + _LONGEST_PROPERTY]
        for start in range(0, len(text), _LONGEST_PROPERTY)
    }
    return {
        "PartitionKey": DISPATCHES,
        "RowKey": dispatch.id,
        "state": str(dispatch.state),
        "route": dispatch.route,
        "parts": len(parts),
        **parts,
    }


def open_entity(dispatch_id: str) -> dict[str, Any]:
    """The note that a dispatch is unfinished."""
    return {"PartitionKey": DISPATCHES, "RowKey": f"{OPEN}{dispatch_id}"}


def text_of(entity: Any) -> str:
    """The text in the row of a dispatch."""
    return "".join(entity[f"body{part}"] for part in range(entity["parts"]))
