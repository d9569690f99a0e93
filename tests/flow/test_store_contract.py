"""One contract, two stores: the simulated one and the real adapter over Azurite answer alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from functions.core.dispatch import Dispatch
from functions.core.manifest import Header
from functions.core.routes import LONGEST_KEY
from functions.core.routes_file import load_routes
from functions.core.windows import LARGEST_APPEND, Head, Rule, Segment
from functions.flow.ports import Append, Conflict, Store

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WIDE = "\N{STEAM LOCOMOTIVE}"
RULE = json.dumps({"key": "caf\\u00e9 %41 % = ; \\\\ {x}", "v": 1})


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
