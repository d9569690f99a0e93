"""How far a fold looks back for what was dispatched before, whatever the clocks say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from functions.core.events import Event
from functions.core.fold import CLOCK_SKEW, OLDEST_BELIEVED, REDELIVERY
from functions.core.manifest import Header, build
from functions.core.windows import Line

from .folds import an_event, folded
from .strategies import NOW, times

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def sealed_at(moment: datetime, found: list[Event], before: Header | None = None, came: datetime = NOW) -> Header:
    """The header of the manifest of these events, sealed at that moment, after `before`."""
    fold = folded(found, came, moment)
    _, header = build(
        "sb-1", fold.entries(), sealed=moment, lines=fold.lines, duplicates=0, superseded=0, repeated_ids=0,
        reach=fold.reach(before),
    )  # fmt: skip
    return Header.from_text(header.to_text())


class TestLookingBack:
    """How far back a manifest that lists an event already can lie."""

    @pytest.mark.parametrize(
        ("written", "since"),
        [
            ("2026-11-20T11:00:00Z", datetime(2026, 11, 20, 10, 55, tzinfo=UTC)),
            ("2026-11-20T12:05:00Z", NOW),
            ("2026-11-20T12:05:01Z", NOW - DAY - CLOCK_SKEW),
            ("9999-12-31T23:59:59Z", NOW - DAY - CLOCK_SKEW),
            (None, NOW - DAY - CLOCK_SKEW),
            ("2026-10-21T12:00:00Z", NOW - OLDEST_BELIEVED - CLOCK_SKEW),
            ("2026-10-21T11:59:59Z", NOW - DAY - CLOCK_SKEW),
            ("1601-01-01T00:00:00Z", NOW - DAY - CLOCK_SKEW),
            ("0001-01-01T00:00:00Z", NOW - DAY - CLOCK_SKEW),
        ],
    )
    def test_by_the_events_own_time_where_that_can_be_believed(self, written: str | None, since: datetime) -> None:
        """That time minus the skew; else a day before it came in, since Event Grid redelivers for no longer."""
        newest = an_event("d/z", eventTime="2026-11-20T12:05:00Z")
        assert folded([newest, an_event(eventTime=written)]).since == since

    def test_line_that_came_first_counts(self) -> None:
        """An event that came twice into a window that was long open is looked for from its first coming."""
        event = an_event(eventTime=None)
        fold = folded([event], NOW)
        fold.add(Line(event, NOW - HOUR))
        assert fold.since == NOW - HOUR - DAY - CLOCK_SKEW

    def test_nothing_comes_in_after_the_seal(self) -> None:
        """Where intake's clock is ahead, the seal's moment by storage's clock counts."""
        assert folded([an_event(eventTime=None)], NOW + 9 * DAY).since == NOW - DAY - CLOCK_SKEW

    @given(times, times, times)
    def test_no_clock_makes_it_fail_or_read_everything(
        self, written: datetime, received: datetime, sealed: datetime
    ) -> None:
        """Whatever the clocks say, it looks back from when the event came, and at most a month from there."""
        since = folded([an_event(eventTime=written.isoformat())], received, sealed).since
        assert since is not None
        came = min(received, sealed)
        first = datetime.min.replace(tzinfo=UTC)
        assert since == first or came - since <= OLDEST_BELIEVED + CLOCK_SKEW
        assert since <= came

    @given(
        ahead=st.timedeltas(-2 * DAY, 3 * DAY) | st.timedeltas(-20 * DAY, 20 * DAY),
        settling=st.timedeltas(timedelta(), 6 * HOUR),
        late=st.timedeltas(timedelta(), DAY),
        others=st.lists(st.tuples(st.timedeltas(SECOND, 8 * HOUR), st.timedeltas(-HOUR, DAY)), max_size=6),
    )
    def test_repetition_is_found_whatever_the_publishers_clock(
        self, ahead: timedelta, settling: timedelta, late: timedelta, others: list[tuple[timedelta, timedelta]]
    ) -> None:
        """Up to a day late, with a clock that is wrong by anything, and with other windows in between.

        The walk goes from the newest manifest down and ends at the first that does not reach back so far.
        """
        event = an_event(eventTime=(NOW + ahead).isoformat())
        moment = NOW + settling
        headers = [sealed_at(moment, [event])]
        again = NOW + late
        for pause, skew in others:
            moment += pause
            if moment <= again:
                other = an_event("d/other", eventTime=(moment + skew).isoformat())
                headers.append(sealed_at(moment, [other], headers[-1], moment))
        came = max(again, headers[-1].sealed)
        since = folded([event], came, came + MINUTE).since
        if again < headers[0].sealed:
            return  # it came into the same window
        assert since is not None
        assert all(header.reaches(since) for header in headers)


class TestReach:
    """What a header tells of clocks that are ahead."""

    @pytest.mark.parametrize(
        ("ahead", "told"),
        [
            (-HOUR, False),
            (timedelta(), False),
            (SECOND, True),
            (REDELIVERY + CLOCK_SKEW, True),
            (REDELIVERY + CLOCK_SKEW + SECOND, False),
        ],
    )
    def test_times_ahead_of_the_seal_are_told_within_a_day(self, ahead: timedelta, told: bool) -> None:
        """A time that cannot come to pass while Event Grid still delivers the event need not be told."""
        header = sealed_at(NOW, [an_event(eventTime=(NOW + ahead).isoformat()), an_event(eventTime=None)])
        assert header.reach == (NOW + ahead if told else None)
        assert header.reaches(header.reach or NOW)
        assert not header.reaches((header.reach or NOW) + SECOND)

    def test_it_is_handed_on_until_it_came_to_pass(self) -> None:
        """Manifests in between tell of it, so that the walk back does not end at them; later ones forget it."""
        plain = [an_event(eventTime=None)]
        first = sealed_at(NOW, [an_event(eventTime=(NOW + HOUR).isoformat())])
        second = sealed_at(NOW + MINUTE, plain, first)
        third = sealed_at(NOW + HOUR, plain, second)
        assert [header.reach for header in (second, third)] == [NOW + HOUR, None]
        assert sealed_at(NOW + 2 * HOUR, plain, third).reach is None

    def test_replaced_version_is_told_of_too(self) -> None:
        """It is listed nowhere, and coming again it must still meet the newer version that is."""
        old = an_event(sequencer="01", eTag="0x1", eventTime=(NOW + HOUR).isoformat())
        new = an_event(sequencer="02", eTag="0x2", eventTime=(NOW - SECOND).isoformat())
        assert sealed_at(NOW, [old, new]).reach == NOW + HOUR
