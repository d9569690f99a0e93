"""One contract, two stores: the ledger, budgets, limits, dead letters and the queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from functions.adapters.account import StateStorage
from functions.adapters.queues import AzureQueue
from functions.adapters.storage import AzureStore
from functions.core.budget import Spending
from functions.core.dispatch import Dispatch, State
from functions.core.routes import LARGEST_BUDGET
from functions.flow.ports import Conflict, Store, Watch

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class TestLedger:
    """Rows that move by compare-and-set, and the list of the unfinished."""

    async def test_insert_once(self, store: Store, make: Callable[..., Dispatch]) -> None:
        """A second insert says False, and changes nothing."""
        row = make()
        assert await store.read_dispatch(row.id) is None
        assert await store.insert_dispatch(row) is True
        assert await store.insert_dispatch(replace(row, key="other")) is False
        read = await store.read_dispatch(row.id)
        assert read == row
        assert read is not None
        assert read.version

    async def test_a_large_row(self, store: Store, make: Callable[..., Dispatch]) -> None:
        """All that a payload can carry fits, and comes back whole."""
        row = make(data={"x": "y" * 39_000}, subject="\0" * 2_000, key="\N{STEAM LOCOMOTIVE}" * 220, reason="r" * 3_000)
        await store.insert_dispatch(row)
        assert await store.read_dispatch(row.id) == row

    async def test_replace_by_version(self, store: Store, make: Callable[..., Dispatch]) -> None:
        """Only who read the last version may replace it; a row may also become shorter."""
        row = make(data={"x": "y" * 39_000})
        await store.insert_dispatch(row)
        first = await store.read_dispatch(row.id)
        assert first is not None
        second = await store.replace_dispatch(replace(first, state=State.SENDING, data={}))
        with pytest.raises(Conflict):
            await store.replace_dispatch(replace(first, state=State.PARKED))
        third = await store.replace_dispatch(replace(second, state=State.SENT))
        read = await store.read_dispatch(row.id)
        assert read == third
        assert read is not None
        assert (read.version, read.state, read.data) == (third.version, State.SENT, {})

    async def test_replace_of_nothing(self, store: Store, make: Callable[..., Dispatch]) -> None:
        """A row that is not there is a conflict."""
        row = make(version="W/\"datetime'2026-01-01T00%3A00%3A00.0000000Z'\"")
        with pytest.raises(Conflict):
            await store.replace_dispatch(row)
        assert await store.read_dispatch(row.id) is None

    async def test_only_one_of_many_wins(self, store: Store, make: Callable[..., Dispatch]) -> None:
        """Eight instances want to send at once."""
        row = make()
        await store.insert_dispatch(row)
        read = await store.read_dispatch(row.id)
        assert read is not None
        results = await asyncio.gather(
            *(store.replace_dispatch(replace(read, state=State.SENDING, attempts=n)) for n in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Dispatch) for result in results) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 7

    async def test_unfinished(self, store: Store, make: Callable[..., Dispatch], route: str) -> None:
        """Every row that is not final is listed; one that becomes final no more, one inserted final never."""
        rows = {state: make(state=state) for state in State}
        for row in rows.values():
            await store.insert_dispatch(row)

        async def listed() -> set[State]:
            return {row.state for row in await store.unfinished_dispatches() if row.route == route}

        unfinished = {state for state in State if not rows[state].is_final}
        assert await listed() == unfinished
        read = await store.read_dispatch(rows[State.CONFIRMED].id)
        assert read is not None
        await store.replace_dispatch(replace(read, state=State.DONE))
        assert await listed() == unfinished - {State.CONFIRMED}
        await store.replace_dispatch(replace(await _read(store, rows[State.DONE].id), state=State.READY, replays=1))
        assert await listed() == unfinished - {State.CONFIRMED} | {State.READY}

    async def test_githubs_limit(self, store: Store) -> None:
        """The last note stands."""
        for moment in (NOW, NOW - timedelta(minutes=1)):
            await store.limit_until(moment)
            assert await store.limited_until() == moment

    async def test_watch_leader(self, store: Store, route: str) -> None:
        """The last token leads, for each repository by itself."""
        repository = f"octo/{route}"
        assert await store.watch_leader(repository) is None
        await store.lead_watch(repository, Watch("one", datetime(2026, 11, 20, 12, tzinfo=UTC)))
        assert await store.watch_leader(repository) == Watch("one", datetime(2026, 11, 20, 12, tzinfo=UTC))
        await store.lead_watch(f"{repository}.x", Watch("other"))
        await store.lead_watch(repository, Watch("two"))
        assert await store.watch_leader(repository) == Watch("two")
        assert await store.watch_leader(f"{repository}.x") == Watch("other")


class TestBudgets:
    """A row for each route that moves by compare-and-set."""

    async def test_insert_and_replace_by_version(self, store: Store, route: str) -> None:
        """None at first; whoever read an older version is refused, and so is a second insert."""
        assert await store.read_spending(route) is None
        first = await store.write_spending(Spending(route, (("sb-1", NOW),)))
        assert first.version
        assert await store.read_spending(route) == first
        second = await store.write_spending(replace(first, slots=()))
        for stale in (first, Spending(route)):
            with pytest.raises(Conflict):
                await store.write_spending(stale)
        assert await store.read_spending(route) == second

    async def test_the_largest_budget_fits(self, store: Store, route: str) -> None:
        """All the slots that a row may have to hold."""
        spending = Spending(route, tuple((f"sb-{n:020}", NOW) for n in range(LARGEST_BUDGET)))
        written = await store.write_spending(spending)
        assert await store.read_spending(route) == written
        assert written.slots == spending.slots


async def _read(store: Store, dispatch_id: str) -> Dispatch:
    found = await store.read_dispatch(dispatch_id)
    assert found is not None
    return found


async def test_dead_letters_can_be_written_again(store: Store, route: str) -> None:
    """The same letter under the same name is no fault."""
    for _ in range(2):
        await store.write_dead_letter(f"2026/11/20/{route}.json", {"reason": "é", "event": {}})


async def test_no_key_of_a_row_holds_a_percent_sign(storage: StateStorage) -> None:
    """Azure's tables read the percent signs of an address twice, which Azurite does not: such a row is not found.

    "PartitionKey or RowKey containing the percent '%' character causes some Windows Azure Tables APIs to fail".
    """
    await AzureStore(storage).lead_watch("octo/models.x-1", Watch("one"))
    keys = [
        row["RowKey"] for row in storage.tables.get_table_client("ledger").query_entities("PartitionKey eq 'watch'")
    ]
    assert keys
    assert not [key for key in keys if set(key) & set("%/\\#?")]


@pytest.mark.parametrize("name", ["work", "events"])
async def test_the_real_poison_is_taken_and_dropped(storage: StateStorage, name: str) -> None:
    """None where the host made no such queue; text and deliveries as they are; what was taken is hidden, then gone.

    Who comes with a receipt that another taking made void drops nothing. The host's copies end after seven days; what
    was taken once does not (https://github.com/Azure/azure-webjobs-sdk-extensions/issues/891).
    """
    queue = AzureQueue(storage)
    host = storage.queues.get_queue_client(f"signalbox-{name}-poison")
    assert await queue.take_poison(name) == []
    host.create_queue()
    host.send_message("bm8gSlNPTg==")
    (taken,) = await queue.take_poison(name)
    assert (taken.queue, taken.text, taken.deliveries) == (name, "bm8gSlNPTg==", 1)
    assert await queue.take_poison(name) == []
    host.update_message(taken.id, taken.receipt, visibility_timeout=0)
    (standing,) = host.peek_messages(max_messages=2)
    assert standing.expires_on is not None
    assert standing.expires_on.year == 9999
    (taken,) = await queue.take_poison(name)
    assert (taken.queue, taken.text, taken.deliveries) == (name, "bm8gSlNPTg==", 2)
    await queue.drop_poison(replace(taken, receipt=f"{taken.receipt[:-4]}AAAA"))
    assert host.get_queue_properties().approximate_message_count == 1
    for _ in range(2):
        await queue.drop_poison(taken)
    assert host.get_queue_properties().approximate_message_count == 0


async def test_the_real_queue_delays(storage: StateStorage) -> None:
    """A delayed message is not visible yet, one without delay is; both are in the encoding of host.json."""
    from azure.storage.queue import TextBase64DecodePolicy

    queue = AzureQueue(storage)
    reader = storage.queues.get_queue_client("signalbox-work", message_decode_policy=TextBase64DecodePolicy())
    reader.clear_messages()
    await queue.send({"kind": "send", "dispatch": "é"}, timedelta(days=30))
    await queue.send({"kind": "send", "dispatch": "now"})
    visible = [json.loads(message.content) for message in reader.receive_messages(max_messages=32)]
    assert visible == [{"kind": "send", "dispatch": "now"}]
    assert reader.get_queue_properties().approximate_message_count == 2


async def test_no_note_is_left_of_what_is_final(storage: StateStorage, make: Callable[..., Dispatch]) -> None:
    """Each run of the timer reads all notes: one that stayed would be read for ever."""
    store, ledger = AzureStore(storage), storage.tables.get_table_client("ledger")
    rows = [make(), make(state=State.EMPTY)]
    for row in rows:
        await store.insert_dispatch(row)

    def noted() -> list[bool]:
        names = {entity["RowKey"] for entity in ledger.query_entities("RowKey ge 'open ' and RowKey lt 'open ~'")}
        return [f"open {row.id}" in names for row in rows]

    assert noted() == [True, False]
    await store.replace_dispatch(replace(await _read(store, rows[0].id), state=State.DONE))
    assert noted() == [False, False]


async def test_a_strange_row_does_not_hide_the_others(storage: StateStorage, make: Callable[..., Dispatch]) -> None:
    """A note whose row is gone, and a row that only a later version can read, are left out of the unfinished."""
    store, ledger = AzureStore(storage), storage.tables.get_table_client("ledger")
    strange, mine = make(), make()
    await store.insert_dispatch(strange)
    await store.insert_dispatch(mine)
    row = {"PartitionKey": "dispatch", "RowKey": strange.id}
    ledger.upsert_entity({**row, "parts": 1, "body0": '{"state": "queued"}'})
    listed = {one.id for one in await store.unfinished_dispatches()}
    ledger.delete_entity(row)
    assert listed & {strange.id, mine.id} == {mine.id}
    assert mine.id in {one.id for one in await store.unfinished_dispatches()}
    ledger.delete_entity({**row, "RowKey": f"open {strange.id}"})
