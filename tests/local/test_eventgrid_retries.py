"""What Event Grid does with an event that was not taken: again by the schedule, or a dead letter."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from pathlib import Path
from typing import Any

from azure.storage.blob import ContainerClient
from eventgrid_scenes import Function, custom, event, eventually, from_template, running
from hypothesis import given, strategies as st

from local.eventgrid.retry import (
    ATTEMPTS_EXCEEDED,
    NOT_REACHED,
    SCHEDULE_SECONDS,
    TIMED_OUT,
    UNDELIVERABLE,
    Answer,
    Limits,
    Verdict,
    after_delivery,
)


async def test_retry(tmp_path: Path, function: Function) -> None:
    """A failing delivery is tried again, and counted in its header, until it succeeds."""
    function.answers = [500, 503, 404, 302]
    async with running(tmp_path, function.url, custom()) as grid:
        await grid.publish([event(1)])
        report = await grid.settled()
    assert [headers["aeg-delivery-count"] for headers, _ in function.deliveries] == ["0", "1", "2", "3", "4"]
    assert (report["delivered"], report["dead_lettered"]) == (1, 0)


async def test_documented_wait(tmp_path: Path, function: Function) -> None:
    """With the documented schedule a failed event is kept and not tried again at once, while others pass."""
    function.answers = [500]
    async with running(tmp_path, function.url, custom(), schedule=SCHEDULE_SECONDS) as grid:
        await grid.publish([event(1)])
        await eventually(lambda: function.numbers == [1])
        await grid.publish([event(2)])
        await eventually(lambda: function.numbers == [1, 2])
        assert (await grid.report())["pending"] >= 1
    assert function.numbers == [1, 2]


async def blobs(connection: str, container: str) -> dict[str, Any]:
    """Names and contents of a container's blobs."""

    def read() -> dict[str, Any]:
        with ContainerClient.from_connection_string(connection, container) as client:
            return {name: json.loads(client.download_blob(name).readall()) for name in client.list_blob_names()}

    return await asyncio.to_thread(read)


async def test_dead_letter(tmp_path: Path, function: Function, azurite: str) -> None:
    """An event answered 400 is not tried again; it stands in the container, in the documented place and form."""
    container = f"letters-{uuid.uuid4().hex[:8]}"
    function.answers = [400]
    async with running(tmp_path, function.url, custom(dead_letter_container=container), storage=azurite) as grid:
        await grid.publish([event(7)])
        report = await grid.settled()
        assert (report["delivered"], report["dead_lettered"]) == (0, 1)
        ((name, letters),) = (await blobs(azurite, container)).items()
    assert re.fullmatch(r"CUSTOM/\d{4}/[1-9]\d?/[1-9]\d?/(\d|1\d|2[0-3])/[0-9a-f-]{36}\.json", name)
    (letter,) = letters
    assert letter.items() >= event(7).items()
    assert (letter["deadLetterReason"], letter["lastDeliveryOutcome"]) == (UNDELIVERABLE, "BadRequest")
    assert letter["deliveryAttempts"] == 1
    assert letter["publishTime"] <= letter["lastDeliveryAttemptTime"]
    assert len(function.deliveries) == 1


async def test_attempts_used_up(tmp_path: Path, function: Function, azurite: str) -> None:
    """The template's maxDeliveryAttempts bounds the attempts; a CloudEvent's letter has lower-case fields."""
    container = f"letters-{uuid.uuid4().hex[:8]}"
    _, _, wanted = from_template(maxDeliveryAttempts=3, deadLetterContainer=container)
    function.answers = [500] * 10
    cloud = {"specversion": "1.0", "id": "1", "type": "t", "source": "s", "data": {"number": 1}}
    async with running(tmp_path, function.url, wanted, storage=azurite) as grid:
        await grid.publish(cloud)
        await grid.settled()
        ((letter,),) = (await blobs(azurite, container)).values()
    assert len(function.deliveries) == 3
    assert (letter["deadletterreason"], letter["deliveryattempts"]) == (ATTEMPTS_EXCEEDED, 3)


async def test_expired(tmp_path: Path, function: Function, azurite: str) -> None:
    """An event past its time to live is not delivered any more, but becomes a dead letter."""
    container = f"letters-{uuid.uuid4().hex[:8]}"
    wanted = custom(dead_letter_container=container, limits=Limits(time_to_live_minutes=0))
    async with running(tmp_path, function.url, wanted, storage=azurite) as grid:
        await grid.publish([event(1)])
        report = await grid.settled()
        ((letter,),) = (await blobs(azurite, container)).values()
    assert (report["dead_lettered"], function.deliveries) == (1, [])
    assert letter["deadLetterReason"] == "TimeToLiveExceeded"


async def test_dead_letters_wait_for_storage(tmp_path: Path, function: Function, azurite: str) -> None:
    """Dead letters whose storage is away are kept, and written after a restart with storage back."""
    container = f"letters-{uuid.uuid4().hex[:8]}"
    wanted = custom(dead_letter_container=container)
    function.answers = [413] * 5
    async with running(tmp_path, function.url, wanted) as grid:
        await grid.publish([event(1)])
        await eventually(lambda: len(function.answers) < 5)
        assert (await grid.report())["pending"] == 1
    async with running(tmp_path, function.url, wanted, storage=azurite) as grid:
        assert (await grid.settled())["dead_lettered"] == 1
        ((letter,),) = (await blobs(azurite, container)).values()
    assert letter["id"] == "id-1"


async def test_no_dead_letter_target(tmp_path: Path, function: Function) -> None:
    """Without a dead-letter target an undeliverable event is dropped, as on Azure, and counted."""
    function.answers = [401]
    async with running(tmp_path, function.url, custom()) as grid:
        await grid.publish([event(1)])
        assert (await grid.settled())["dropped"] == 1


@given(st.integers(1, 29), st.floats(0, 1), st.sampled_from([Answer.of(500), Answer.of(404), TIMED_OUT, NOT_REACHED]))
def test_schedule(attempts: int, jitter: float, answer: Answer) -> None:
    """A failed delivery waits at least as long as documented, at most a tenth longer, and never past its time."""
    then = after_delivery(answer, Limits(), attempts=attempts, published=0.0, now=1000.0, jitter=jitter)
    wait = SCHEDULE_SECONDS[min(attempts, len(SCHEDULE_SECONDS)) - 1]
    assert then.verdict is Verdict.RETRY
    assert min(1000 + wait, 86400) <= then.due <= min(1000 + 1.1 * wait, 86400) + 1e-6


@given(st.integers(100, 599), st.integers(1, 40))
def test_verdicts(status: int, attempts: int) -> None:
    """Only 200 to 204 deliver; 400, 401, 403 and 413 are never retried; the last attempt ends the rest."""
    then = after_delivery(Answer.of(status), Limits(), attempts=attempts, published=0.0, now=0.0, jitter=0.0)
    if 200 <= status <= 204:
        assert then.verdict is Verdict.DELIVERED
    elif status in (400, 401, 403, 413):
        assert (then.verdict, then.reason) == (Verdict.DEAD, UNDELIVERABLE)
    else:
        assert then.verdict is (Verdict.DEAD if attempts >= 30 else Verdict.RETRY)
