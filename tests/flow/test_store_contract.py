"""One contract, two stores: the simulated one and the real adapter over Azurite answer alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import uuid4

import pytest

from functions.adapters.account import StateStorage
from functions.adapters.storage import AzureQueue, AzureStore
from functions.core.budget import Spending
from functions.core.dispatch import Dispatch, ManifestRef, State
from functions.core.manifest import Header
from functions.core.routes import LARGEST_BUDGET, LONGEST_KEY
from functions.core.routes_file import load_routes
from functions.core.windows import LARGEST_APPEND, Head, Rule, Segment
from functions.flow.ports import Append, Conflict, Store, Watch
from functions.settings import StateAccount
from local.provision import provision

from .memory import MemoryStore

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WIDE = "\N{STEAM LOCOMOTIVE}"
RULE = json.dumps({"key": "caf\\u00e9 %41 % = ; \\\\ {x}", "v": 1})


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


def header_of(dispatch_id: str, count: int = 1) -> Header:
    """A header."""
    return Header(dispatch_id, "0" * 64, count, 9, None, NOW, NOW, 1, 0, 0)


async def taken(lines: AsyncIterator[bytes]) -> list[bytes]:
    """All lines."""
    return [line async for line in lines]


class TestHeads:
    """Rows that move by compare-and-set."""

    async def test_insert_and_read(self, store: Store, head: Head) -> None:
        """What was written comes back, with a version; what was not is None."""
        assert await store.read_head(head.route, head.key_digest) is None
        written = await store.write_head(head)
        assert written.version
        assert replace(written, version="") == head
        assert await store.read_head(head.route, head.key_digest) == written

    async def test_insert_once(self, store: Store, head: Head) -> None:
        """A second insert is a conflict, and changes nothing."""
        written = await store.write_head(head)
        with pytest.raises(Conflict):
            await store.write_head(replace(head, epoch="other"))
        assert await store.read_head(head.route, head.key_digest) == written

    async def test_replace_by_version(self, store: Store, head: Head) -> None:
        """Whoever read an older version is refused; the others' change stands."""
        first = await store.write_head(head)
        second = await store.write_head(first.opened("token"))
        assert second.version != first.version
        with pytest.raises(Conflict):
            await store.write_head(first.next_segment())
        moved = await store.write_head(second.next_window())
        assert await store.read_head(head.route, head.key_digest) == moved
        assert (moved.unfinished, moved.number, moved.is_open) == (1, 2, False)

    async def test_replace_of_nothing(self, store: Store, head: Head) -> None:
        """A row that is gone is a conflict."""
        with pytest.raises(Conflict):
            await store.write_head(replace(head, version="W/\"datetime'2026-01-01T00%3A00%3A00.0000000Z'\""))

    async def test_only_one_of_many_wins(self, store: Store, head: Head) -> None:
        """Eight instances change a row at once."""
        first = await store.write_head(head)
        results = await asyncio.gather(
            *(store.write_head(replace(first, segment=number)) for number in range(8)), return_exceptions=True
        )
        won = [result for result in results if isinstance(result, Head)]
        assert len(won) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 7
        assert await store.read_head(head.route, head.key_digest) == won[0]

    async def test_count_and_list(self, store: Store, route: str) -> None:
        """Open ones are counted up to a limit; open and unfinished ones are to be looked at."""
        heads = [await store.write_head(Head(route, str(number), "e")) for number in range(5)]
        opened = [await store.write_head(head.opened("token")) for head in heads[:3]]
        moved = await store.write_head(opened[0].next_window())
        assert await store.count_open(route, 100) == 2
        assert await store.count_open(route, 1) == 1
        assert await store.count_open(f"{route}x", 100) == 0
        mine = [head for head in await store.heads_to_look_at() if head.route == route]
        assert sorted(mine, key=lambda head: head.key) == [replace(one, version="") for one in (moved, *opened[1:])]

    async def test_what_is_finished_is_looked_at_no_more(self, store: Store, head: Head) -> None:
        """From opening to finishing, also where the next window was opened meanwhile, and over many windows."""

        async def looked_at() -> list[Head]:
            return [one for one in await store.heads_to_look_at() if one.route == head.route]

        current = await store.write_head(head)
        for _ in range(2):
            assert await looked_at() == []
            current = await store.write_head(current.opened("token"))
            current = await store.write_head(current.next_segment())
            current = await store.write_head(current.next_window())
            current = await store.write_head(current.opened("token"))
            assert await looked_at() == [replace(current, version="")]
            current = await store.write_head(current.finished())
            assert await looked_at() == [replace(current, version="")]
            current = await store.write_head(current.next_window())
            assert await store.count_open(head.route, 9) == 0
            assert await looked_at() == [replace(current, version="")]
            current = await store.write_head(current.finished())
        assert await looked_at() == []

    async def test_routes_whose_names_begin_alike_are_counted_apart(self, store: Store, route: str) -> None:
        """One may be the beginning of another."""
        for name in (route, f"{route}-2", f"{route}2"):
            head = await store.write_head(Head(name, "key", "e"))
            await store.write_head(head.opened("token"))
        assert [await store.count_open(name, 9) for name in (route, f"{route}-2", f"{route}2", route[:-1])] == [
            1,
            1,
            1,
            0,
        ]


class TestWindows:
    """Append blobs that seal."""

    async def test_missing(self, store: Store, head: Head) -> None:
        """No blob: neither a state nor an append."""
        assert await store.segment_state(head.current) is None
        assert await store.append(head.current, b"x\n") is Append.MISSING

    async def test_append_and_read(self, store: Store, head: Head) -> None:
        """Lines come back in order, each with its newline, also where they span appends of 4 MiB and reads of 1 MiB."""
        await store.create_segment(head.current, RULE)
        large = b"x" * (LARGEST_APPEND - 1) + b"\n"
        for block in (b"a\nb\n", large, b"c\n"):
            assert await store.append(head.current, block) is Append.DONE
        assert await taken(store.read_segment(head.current)) == [b"a\n", b"b\n", large, b"c\n"]

    async def test_read_while_it_grows(self, store: Store, head: Head) -> None:
        """What stood there when the reading began comes whole, whatever is appended meanwhile."""
        await store.create_segment(head.current, RULE)
        block = b"x" * (LARGEST_APPEND // 4 - 1) + b"\n"
        for _ in range(4):
            await store.append(head.current, block)
        lines = store.read_segment(head.current)
        read = [await anext(lines)]
        await store.append(head.current, b"late\n")
        read += await taken(lines)
        assert read[:4] == [block] * 4
        assert read[4:] in ([], [b"late\n"])

    async def test_state(self, store: Store, head: Head) -> None:
        """Times and the Date are the service's, in whole seconds; the rule is the text it was created with."""
        await store.create_segment(head.current, RULE)
        await store.append(head.current, b"abc\n")
        state = await store.segment_state(head.current)
        assert state is not None
        assert (state.size, state.sealed, state.rule) == (4, False, RULE)
        assert state.created <= state.modified <= state.now + timedelta(seconds=1)
        assert abs(state.now - datetime.now(UTC)) < timedelta(minutes=5)
        assert state.now.microsecond == state.modified.microsecond == 0
        assert state.now.utcoffset() == state.created.utcoffset() == timedelta()

    async def test_when_it_was_created(self, store: Store, head: Head) -> None:
        """An append moves the last change, and not the creation, from which `max_wait` counts."""
        await store.create_segment(head.current, RULE)
        await asyncio.sleep(1.1)
        await store.append(head.current, b"abc\n")
        state = await store.segment_state(head.current)
        assert state is not None
        assert state.created < state.modified

    async def test_create_again_keeps_everything(self, store: Store, head: Head) -> None:
        """Creating never truncates, neither an open blob nor a sealed one; the first rule stays."""
        await store.create_segment(head.current, RULE)
        await store.append(head.current, b"abc\n")
        await store.create_segment(head.current, "{}")
        await store.seal_segment(head.current)
        await store.create_segment(head.current, "{}")
        state = await store.segment_state(head.current)
        assert state is not None
        assert (state.size, state.sealed, state.rule) == (4, True, RULE)
        assert await taken(store.read_segment(head.current)) == [b"abc\n"]

    async def test_sealed_takes_nothing(self, store: Store, head: Head) -> None:
        """A seal is for good, and sealing again changes nothing."""
        await store.create_segment(head.current, RULE)
        await store.append(head.current, b"a\n")
        await store.seal_segment(head.current)
        await store.seal_segment(head.current)
        assert await store.append(head.current, b"b\n") is Append.SEALED
        assert await taken(store.read_segment(head.current)) == [b"a\n"]

    async def test_sealed_empty(self, store: Store, head: Head) -> None:
        """An empty segment can be sealed and read."""
        await store.create_segment(head.current, "")
        await store.seal_segment(head.current)
        assert await taken(store.read_segment(head.current)) == []
        state = await store.segment_state(head.current)
        assert state is not None
        assert (state.size, state.sealed, state.rule) == (0, True, "")

    async def test_the_longest_rule_fits(self, store: Store, head: Head) -> None:
        """What a routes file allows at most, with the longest key in the widest characters, fits into its metadata."""
        (route,) = load_routes(
            f"""routes:
  - name: {"n" * 63}
    on: Microsoft.Storage.BlobCreated
    dispatch: "{WIDE * 100}"
    key: "{{path}}{" " * 94}"
    settle: {{quiet: 123456.123456s, max_wait: 7d, max_bytes: {"9" * 15}, marker: "{" " * 99}x"}}
    hold: {{while: running, at_most: 123456.123456s}}
    repository: {"o" * 39}/{"r" * 100}
    via: workflow_dispatch
    workflow: {"w" * 200}.yaml
    ref: {"f" * 244}
"""
        )
        rule = Rule.of(route, f"{WIDE * LONGEST_KEY}~{'d' * 20}").to_text()
        assert len("rule" + quote(rule, safe='{}[]":,/~')) <= 8 * 1024
        await store.create_segment(head.current, rule)
        state = await store.segment_state(head.current)
        assert state is not None
        assert state.rule == rule

    async def test_racing_appends_all_stand(self, store: Store, head: Head) -> None:
        """Sixteen instances append while one seals: what was answered DONE is in the blob, and nothing else."""
        await store.create_segment(head.current, RULE)

        async def seal() -> None:
            await asyncio.sleep(0.01)
            await store.seal_segment(head.current)

        blocks = [f"{number}\n".encode() for number in range(16)]
        *outcomes, _ = await asyncio.gather(*(store.append(head.current, block) for block in blocks), seal())
        done = {block for block, outcome in zip(blocks, outcomes, strict=True) if outcome is Append.DONE}
        assert set(await taken(store.read_segment(head.current))) == done
        assert set(outcomes) <= {Append.DONE, Append.SEALED}

    async def test_segments_are_apart(self, store: Store, head: Head) -> None:
        """Sealing one segment leaves its sibling alone."""
        second = head.current.sibling(1)
        for segment in (head.current, second):
            await store.create_segment(segment, RULE)
        await store.seal_segment(head.current)
        assert await store.append(second, b"a\n") is Append.DONE
        other = Segment(head.route, head.key_digest, 2, 0)
        assert await store.append(other, b"a\n") is Append.MISSING

    async def test_old_ones_are_found_and_deleted(self, store: Store, head: Head) -> None:
        """By their last change, sealed or not; what is deleted is missing, and deleting it again is no fault."""
        segments = [head.current, head.current.sibling(1)]
        for segment in segments:
            await store.create_segment(segment, RULE)
        await store.seal_segment(segments[0])

        async def found(moment: datetime) -> list[Segment]:
            return [one for one in await store.segments_unchanged_since(moment) if one.route == head.route]

        assert await found(datetime.now(UTC) - timedelta(minutes=5)) == []
        assert await found(datetime.now(UTC) + timedelta(minutes=5)) == segments
        for _ in range(2):
            await store.delete_segment(segments[0])
        assert await store.segment_state(segments[0]) is None
        assert await store.append(segments[0], b"a\n") is Append.MISSING
        assert await found(datetime.now(UTC) + timedelta(minutes=5)) == segments[1:]


class TestManifests:
    """Written once."""

    async def test_write_once(self, store: Store, make: Callable[..., Dispatch]) -> None:
        """The first stands, and whoever comes later is given its header."""
        name = make().id
        assert await store.manifest_header(name) is None
        assert await store.write_manifest(header_of(name), b"a\nb\n") == header_of(name)
        assert await store.write_manifest(header_of(name, 2), b"other\n") == header_of(name)
        assert await store.manifest_header(name) == header_of(name)
        assert await taken(store.read_manifest(name)) == [b"a\n", b"b\n"]
        assert name in store.manifest_url(name)

    async def test_an_empty_one(self, store: Store, make: Callable[..., Dispatch]) -> None:
        """A window of duplicates only has a manifest without lines."""
        name = make().id
        await store.write_manifest(header_of(name, 0), b"")
        assert await taken(store.read_manifest(name)) == []


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
