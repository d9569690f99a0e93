"""What the flow's tests have in common: routes, uploads, runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

from functions.core.dispatch import Dispatch
from functions.core.github import Answer, NoAnswer
from functions.core.routes import Hold, Route, Settle, Where

from .simulation import ACCOUNT, World

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
BLOB_CREATED = "Microsoft.Storage.BlobCreated"
RUN_COMPLETED = "Microsoft.MachineLearningServices.RunCompleted"

TRAIN = Route(
    "train",
    (BLOB_CREATED,),
    "storage-blobcreated",
    Where(container=("training-data",), suffix=(".csv",)),
    key="folder",
    settle=Settle(quiet=MINUTE, max_wait=15 * MINUTE, marker="_SUCCESS"),
)
HELD = replace(TRAIN, hold=Hold(at_most=HOUR))
DEPLOY = Route("deploy", (RUN_COMPLETED,), "machinelearningservices-runcompleted", Where(root_run=True))


def upload(world: World, path: str, sequencer: str = "01", **changes: Any) -> dict[str, Any]:
    """The event that says that a blob of container `training-data` was written just now."""
    data = {
        "api": "PutBlob",
        "eTag": f"0x{sequencer}",
        "contentLength": 9,
        "url": f"https://{changes.pop('account', ACCOUNT)}.blob.core.windows.net/training-data/{path}",
        "sequencer": sequencer,
    }
    return {
        "id": f"{path}-{sequencer}",
        "eventType": BLOB_CREATED,
        "topic": "/s/storageAccounts/acme",
        "subject": f"/blobServices/default/containers/training-data/blobs/{path}",
        "eventTime": world.now.isoformat(),
        "data": data,
        **changes,
    }


def burst(world: World, count: int, folder: str = "digits") -> list[dict[str, Any]]:
    """So many uploads to one folder."""
    return [upload(world, f"{folder}/{number:03}.csv") for number in range(count)]


def run_completed(run: str = "train-1") -> dict[str, Any]:
    """The event that says that an Azure ML run ended."""
    return {
        "id": f"id-{run}",
        "eventType": RUN_COMPLETED,
        "topic": "/s/workspaces/lab",
        "subject": f"experiments/e/runs/{run}",
        "eventTime": "2026-11-20T11:59:00Z",
        "data": {"runId": run, "runTags": {"signalbox_origin": "sb-1"}, "experimentName": "digits"},
    }


async def dispatched(world: World, *answers: Answer | NoAnswer, within: timedelta = HOUR) -> Dispatch:
    """One dispatch, for whose requests GitHub has these answers, after so long."""
    world.github.answers.extend(answers)
    await world.deliver(run_completed())
    await world.finish(within=within)
    (row,) = world.ledger()
    return row


def pauses(world: World) -> list[timedelta]:
    """The times between the requests to GitHub."""
    moments = [moment for moment, _ in world.github.requests]
    return [later - earlier for earlier, later in pairwise(moments)]
