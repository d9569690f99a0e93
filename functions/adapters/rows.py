"""Rows of the state account's tables: how heads and dispatches stand in them, and how they are changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import TableClient, TableTransactionError, UpdateMode

from functions.adapters.account import QUERY, error_code
from functions.core.dispatch import Dispatch
from functions.core.windows import Head
from functions.flow.ports import Conflict

DISPATCHES, WATCHES, BUDGETS, LIMITS = "dispatch", "watch", "budget", "limit"
"""Partitions of the ledger's table."""

WINDOW_HEADS = "head"
"""The partition of the heads' table."""

OPEN = "open "
"""What the row keys of notes begin with. A note stands beside each row that is not finished, in its partition, so that
the unfinished ones are found without reading all there ever were; no other row key holds a space."""

_LONGEST_PROPERTY = 30_000  # a table's text property holds 32 K characters
_REFUSALS = {"EntityAlreadyExists", "UpdateConditionNotSatisfied", "ConditionNotMet", "ResourceNotFound"}


def compare_and_set(
    table: TableClient, entity: dict[str, Any], version: str, note: dict[str, Any] | None = None, *, noted: bool = False
) -> str:
    """Insert (version "") or replace the row as it was read; gives its new version. Raises Conflict.

    Its `note` is written in the same transaction where the row is `noted` from now on, and deleted where it is not.
    """
    condition = {"mode": UpdateMode.REPLACE, "etag": version, "match_condition": MatchConditions.IfNotModified}
    operations: list[Any] = [("update", entity, condition) if version else ("create", entity)]
    if note is not None and noted:
        operations.append(("upsert", note, {"mode": UpdateMode.REPLACE}))
    elif note is not None and version:
        operations.append(("delete", note))
    try:
        return str(table.submit_transaction(operations)[0]["etag"])
    except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError, TableTransactionError) as error:
        code = error_code(error)
        if code == "ResourceNotFound" and getattr(error, "index", 0) == 1:
            return compare_and_set(table, entity, version)  # the row had no note
        if code not in _REFUSALS:
            raise
        raise Conflict(f"row {entity['PartitionKey']}/{entity['RowKey']}") from error


def row_or_none(table: TableClient, partition: str, key: str) -> Any | None:
    """The row, or None where there is none; a missing table is an error."""
    try:
        return table.get_entity(partition, key)
    except ResourceNotFoundError as error:
        if error_code(error) == "TableNotFound":
            raise
        return None


def unfinished(table: TableClient, partition: str, prefix: str = "") -> Iterator[Any]:
    """The notes of a partition, or those whose names begin with `prefix`."""
    first = f"{OPEN}{prefix}"
    names = {"partition": partition, "first": first, "last": f"{first}~"}
    filters = "PartitionKey eq @partition and RowKey ge @first and RowKey lt @last"
    return iter(table.query_entities(filters, parameters=names, **QUERY))


def head_entity(head: Head) -> dict[str, Any]:
    """The row of a head."""
    return {"PartitionKey": WINDOW_HEADS, "RowKey": head.key_digest, "head": head.to_text()}


def head_note(head: Head) -> dict[str, Any]:
    """The note that a head has an open or an unfinished window; it says the same as the row."""
    return {**head_entity(head), "RowKey": f"{OPEN}{head.route} {head.key_digest}"}


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


def dispatch_note(dispatch_id: str) -> dict[str, Any]:
    """The note that a dispatch is unfinished."""
    return {"PartitionKey": DISPATCHES, "RowKey": f"{OPEN}{dispatch_id}"}


def text_of(entity: Any) -> str:
    """The text in the row of a dispatch."""
    return "".join(entity[f"body{part}"] for part in range(entity["parts"]))
