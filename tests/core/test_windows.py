"""Heads, rules, settling, holding, and lines."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from functions.core.events import Event, UnreadableEvent, parse
from functions.core.routes import Hold, Route, Settle
from functions.core.values import digest
from functions.core.windows import (
    EMPTY_WINDOW_CHECK,
    HOLD_CHECK,
    MARKER_QUIET,
    SIZE_CHECK,
    Head,
    Line,
    Rule,
    Segment,
    Wait,
    WindowState,
    alarm,
    held,
    settled,
    split_appends,
)

from .strategies import NOW, any_text, blob_event, blob_events, durations, times

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
SETTLE = Settle(quiet=MINUTE, max_wait=15 * MINUTE)
HEAD = Head("train", "digits", "epoch", number=3, segment=2, is_open=True, version="v")

settles = st.builds(Settle, durations, durations, st.integers(0), any_text)
rules = st.builds(
    lambda door, *values, **more: Rule(*values, **more, workflow=door[0], ref=door[1]),
    st.just(("", "")) | st.tuples(any_text.filter(bool), any_text),
    any_text,
    any_text,
    any_text,
    any_text,
    settles,
    st.none() | st.builds(Hold, durations),
    template=st.none() | any_text,
)


def an_event(path: str = "d/a.csv", **changes: object) -> Event:
    """A parsed BlobCreated."""
    return parse(blob_event(path, **changes))


def window(*, opened: timedelta, touched: timedelta, size: int = 100) -> WindowState:
    """A window that was opened and touched so long ago."""
    return WindowState(NOW - opened, NOW - touched, size, NOW)


class TestHead:
    """A head only moves forward."""

    def test_names_its_segment(self) -> None:
        """Blob names sort in the order of windows and segments."""
        key = digest("train", "digits")
        assert HEAD.key_digest == key
        assert HEAD.current.name == f"train/{key}/0000000003/00002"
        assert HEAD.current.sibling(11).name == f"train/{key}/0000000003/00011"
        assert HEAD.current.name.startswith(HEAD.current.window_name)
        assert Segment("r", "k", 9, 0).name < Segment("r", "k", 10, 0).name

    def test_moves_from_segment_to_segment(self) -> None:
        """A full segment is followed by the next one of the same window."""
        assert HEAD.next_segment() == Head("train", "digits", "epoch", 3, 3, is_open=True, version="v")

    def test_moves_from_window_to_window(self) -> None:
        """The settled window is noted as unfinished, and the next one is not open yet."""
        moved = HEAD.next_window()
        assert (moved.number, moved.segment, moved.is_open) == (4, 0, False)
        assert (moved.unfinished, moved.last_segment) == (3, 2)
        assert (moved.finished().unfinished, moved.finished().last_segment) == (0, 0)
        assert moved.opened("token").is_open

    def test_waits_for_the_window_before(self) -> None:
        """Manifests of a key are made in order: no window settles while an earlier one is unfinished."""
        with pytest.raises(ValueError, match="window 3 of 'train' must be finished before 4"):
            HEAD.next_window().opened("token").next_window()

    def test_ids_never_repeat(self) -> None:
        """Another window, key, route or epoch has another id."""
        others = [Head("train", "digits", "other"), Head("train", "iris", "epoch"), Head("x", "digits", "epoch")]
        ids = {head.dispatch_id(1) for head in [HEAD, *others]} | {HEAD.dispatch_id(2)}
        assert len(ids) == 5
        assert all(len(one) == 23 and one.startswith("sb-") for one in ids)

    def test_alarm_names_the_window(self) -> None:
        """An alarm carries the token by which its head knows it; a closed window knows none."""
        armed = HEAD.opened("one").rearmed("two", marked=True)
        assert alarm(armed, armed.alarm) == {"kind": "window", "route": "train", "key": "digits", "alarm": "two"}
        assert armed.rearmed("three").marked
        assert (armed.next_window().alarm, armed.next_window().marked) == ("", False)

    def test_row_is_read_back(self) -> None:
        """A head survives its way through a table, and keys of a later version are left out."""
        written = HEAD.opened("one").to_text()
        later = json.dumps({**json.loads(written), "colour": "red"})
        assert Head.from_text(later, "7") == replace(HEAD.opened("one"), version="7")


class TestRule:
    """A rule travels in a blob's metadata."""

    @given(rules)
    def test_is_read_back(self, rule: Rule) -> None:
        """Whatever it holds, what comes back is the same, and the text is ASCII."""
        assert Rule.from_text(rule.to_text()) == rule
        assert rule.to_text().isascii()

    def test_is_made_of_a_route(self) -> None:
        """It holds what finishing a window needs, and a route without a window has none."""
        hold = Hold(MINUTE)
        route = Route("train", ("x",), "event", settle=SETTLE, hold=hold, repository="o/r")
        assert Rule.of(route, "key") == Rule("train", "key", "event", "o/r", SETTLE, hold, template="all")
        to_workflow = replace(route, workflow="train.yml", ref="v1", key="folder")
        rule = Rule("train", "key", "event", "o/r", SETTLE, hold, "train.yml", "v1", "folder")
        assert Rule.of(to_workflow, "key") == rule
        with pytest.raises(ValueError, match="route 'train' has no window"):
            Rule.of(Route("train", ("x",), "event"), "key")

    def test_of_an_earlier_version(self) -> None:
        """It goes out as repository_dispatch, does not say how keys are made, and may set no bound to the size."""
        rule = Rule("train", "key", "event", "o/r", SETTLE, None)
        kept = json.loads(rule.to_text())
        del kept["template"]
        kept["max_bytes"] = None
        assert Rule.from_text(json.dumps(kept)) == rule

    def test_another_door_is_closed_to_an_earlier_version(self) -> None:
        """What goes to one workflow has no event type where that version looks for it, so it cannot misread it."""
        rule = Rule("train", "key", "event", "o/r", SETTLE, None, "train.yml", "main", "all")
        assert "event_type" not in json.loads(rule.to_text())


class TestSettled:
    """A window is complete when it is quiet, old or large enough."""

    @pytest.mark.parametrize(
        ("state", "left"),
        [
            (window(opened=5 * MINUTE, touched=59 * SECOND), SECOND),
            (window(opened=5 * MINUTE, touched=MINUTE), None),
            (window(opened=15 * MINUTE, touched=timedelta()), None),
            (window(opened=15 * MINUTE - SECOND, touched=timedelta()), SECOND),
            (window(opened=-MINUTE, touched=-MINUTE), SIZE_CHECK),
        ],
    )
    def test_by_quiet_time_and_age(self, state: WindowState, left: timedelta | None) -> None:
        """What is left is told exactly, so that the alarm rings once; where it is long, the size comes before."""
        wait = settled(SETTLE, state, marker_seen=False)
        assert (wait.delay if wait else None) == left

    def test_never_while_empty(self) -> None:
        """However old, a window without a line is not sealed."""
        wait = settled(Settle(SECOND, SECOND, max_bytes=0), window(opened=DAY, touched=DAY, size=0), marker_seen=True)
        assert wait == Wait(EMPTY_WINDOW_CHECK, "nothing stands in it yet")

    @pytest.mark.parametrize(("size", "complete"), [(99, False), (100, True), (101, True)])
    def test_by_size(self, size: int, *, complete: bool) -> None:
        """At max_bytes it is complete, however busy."""
        state = window(opened=SECOND, touched=timedelta(), size=size)
        assert (settled(Settle(MINUTE, MINUTE, max_bytes=100), state, marker_seen=False) is None) == complete

    def test_sooner_after_a_marker(self) -> None:
        """A marker shortens the quiet time to ten seconds, and never makes it longer."""
        state = window(opened=MINUTE, touched=4 * SECOND)
        assert settled(SETTLE, state, marker_seen=True) == Wait(MARKER_QUIET - 4 * SECOND, "events still come in")
        brief = Settle(quiet=5 * SECOND, max_wait=MINUTE * 2)
        assert settled(brief, state, marker_seen=True) == Wait(SECOND, "events still come in")

    @given(settles, durations, durations, durations, st.booleans())
    def test_is_settled_once_it_waited(
        self, settle: Settle, age: timedelta, idle: timedelta, more: timedelta, marker_seen: bool
    ) -> None:
        """Without a further event, the wait that was told is exactly enough, and one second less is not."""
        idle = min(idle, age)
        state = window(opened=age, touched=idle, size=1)
        wait = settled(settle, state, marker_seen=marker_seen)
        if wait is None:
            return
        assert wait.delay > timedelta()
        later = window(opened=age + wait.delay, touched=idle + wait.delay, size=1)
        assert settled(settle, later, marker_seen=marker_seen) is None or wait.delay == SIZE_CHECK
        early = window(opened=age + wait.delay / 2, touched=idle + wait.delay / 2, size=1)
        assert settled(settle, early, marker_seen=marker_seen) is not None


class TestHeld:
    """The next window grows while the last run goes."""

    def test_without_rule_or_run_nothing_is_held(self) -> None:
        """No hold, or no unfinished dispatch."""
        assert held(None, NOW, NOW) is None
        assert held(Hold(MINUTE), None, NOW) is None

    @pytest.mark.parametrize(
        ("age", "left"), [(SECOND, HOLD_CHECK), (55 * SECOND, 5 * SECOND), (MINUTE, None), (DAY, None)]
    )
    def test_no_longer_than_at_most(self, age: timedelta, left: timedelta | None) -> None:
        """It is looked at often, and let go at the maximum."""
        wait = held(Hold(MINUTE), NOW - age, NOW)
        assert (wait.delay if wait else None) == left


class TestLine:
    """One event in a window."""

    @given(blob_events, times)
    def test_is_read_back(self, event: Event, received: datetime) -> None:
        """One line of ASCII that ends in its only newline."""
        raw = Line(event, received).to_bytes()
        assert Line.from_bytes(raw) == Line(event, received)
        assert raw.isascii()
        assert raw.endswith(b"\n")
        assert raw.count(b"\n") == 1

    @given(st.text())
    def test_any_name_stays_one_line(self, path: str) -> None:
        """Newlines and control characters of a blob's name do not break lines."""
        raw = Line(an_event(path), NOW).to_bytes()
        assert raw.count(b"\n") == 1
        assert Line.from_bytes(raw).event.subject.endswith(path)

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"\xff",
            b"[]",
            b"7",
            b"{}",
            b'{"v": 99, "received": "2026-01-01T00:00:00Z", "event": {}}',
            b'{"v": [], "received": "2026-01-01T00:00:00Z", "event": {}}',
            b'{"v": 1, "received": "2026-01-01T00:00:00Z"}',
            b'{"v": 1, "received": "2026-01-01T00:00:00Z", "event": {}}',
            b'{"v": 1, "received": 5, "event": {"id": "1", "eventType": "x", "data": {}}}',
            b'{"v": 1, "received": "never", "event": {"id": "1", "eventType": "x", "data": {}}}',
        ],
    )
    def test_what_no_version_wrote_is_unreadable(self, raw: bytes) -> None:
        """The closer keeps such a line as a dead letter, so it must be told from any other fault."""
        with pytest.raises(UnreadableEvent):
            Line.from_bytes(raw)

    def test_unknown_version_says_so(self) -> None:
        """A line of a later version is named as that."""
        line = json.loads(Line(an_event(), NOW).to_bytes())
        with pytest.raises(UnreadableEvent, match="line version 2 is not known"):
            Line.from_bytes(json.dumps({**line, "v": 2}).encode())


@given(st.lists(st.binary(min_size=1, max_size=12), max_size=12), st.integers(min_value=12, max_value=40))
def test_appends_are_few_and_fit(lines: list[bytes], largest: int) -> None:
    """No append exceeds the limit, no line is torn or lost, and two neighbours never fit into one."""
    blocks = list(split_appends(lines, largest))
    assert b"".join(blocks) == b"".join(lines)
    assert all(0 < len(block) <= largest for block in blocks)
    position = 0
    for block, following in pairwise(blocks):
        position += len(block)
        first_of_next = next(line for line in _from(lines, position))
        assert len(block) + len(first_of_next) > largest, following


def _from(lines: list[bytes], position: int) -> list[bytes]:
    """The lines from a byte position on."""
    taken = 0
    for index, line in enumerate(lines):
        if taken == position:
            return lines[index:]
        taken += len(line)
    return []
