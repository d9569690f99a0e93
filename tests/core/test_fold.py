"""What a fold keeps of a window's lines, and of what earlier manifests list."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from functions.core.events import Event, parse
from functions.core.fold import Fold
from functions.core.manifest import Listed
from functions.core.rescan import StoredBlob
from functions.core.windows import Line

from .folds import an_event, entries, events_of, folded, listed
from .strategies import NOW, any_event, as_cloud_event, blob_event

events = st.builds(
    lambda path, version, event_id, kind, moment, size: parse(
        blob_event(
            path,
            id=event_id,
            eventType=f"Microsoft.Storage.{kind}",
            sequencer=version[0],
            eTag=version[1],
            eventTime=moment,
            contentLength=size,
        )
    ),
    st.sampled_from(["d/a.csv", "d/b.csv"]),
    st.sampled_from([("01", "0x1"), ("02", "0x2"), ("03", None), (None, "0x1"), (None, '"0x2"'), (None, None)]),
    st.sampled_from(["i", "j", "k"]),
    st.sampled_from(["BlobCreated", "BlobDeleted"]),
    st.sampled_from(["2026-11-20T11:00:00Z", "2026-11-20T11:30:00Z"]),
    st.sampled_from([1, 2]),
)
"""Few blobs and few versions, each told with sequencer and etag, with one of them, or with none."""

shuffled = st.lists(events, max_size=8).flatmap(lambda found: st.tuples(st.just(found), st.permutations(found)))


def made_up(event: Event) -> Event:
    """What `signalbox rescan` makes of the event's blob: without sequencer, with the etag as a listing has it."""
    assert event.blob is not None
    blob, etag = event.blob, event.blob.etag
    stored = StoredBlob(blob.account, blob.container, blob.path, blob.url, etag, 12, NOW - timedelta(seconds=30))
    return parse(stored.event("PutBlob").to_json())


def is_same(one: Event, other: Event) -> bool:
    """Whether two events are one by the rules of design.md and of the rescan, told apart from the app's identities."""
    a, b = one.blob, other.blob
    assert a is not None
    assert b is not None
    if (a.path, one.type) != (b.path, other.type):
        return False
    if a.sequencer and b.sequencer:
        return a.sequencer == b.sequencer
    if a.etag and b.etag:
        return a.etag == b.etag
    return not (a.sequencer or b.sequencer or a.etag or b.etag) and one.id == other.id


class TestWithin:
    """What one window keeps."""

    @given(shuffled)
    def test_order_of_the_lines_means_nothing(self, both: tuple[list[Event], list[Event]]) -> None:
        """Appends of several instances interleave in any order; the manifest is the same."""
        one, other = folded(both[0]), folded(both[1])
        assert one.entries() == other.entries()
        assert (one.lines, one.duplicates, one.superseded) == (other.lines, other.duplicates, other.superseded)
        assert one.repeated_ids == other.repeated_ids
        assert one.since == other.since

    @given(st.lists(events, max_size=8))
    def test_every_line_is_accounted_for(self, found: list[Event]) -> None:
        """Each line is listed, a duplicate, or replaced by a newer one; asked again, the fold says the same."""
        fold = folded(found)
        kept = fold.entries()
        assert len(kept) + fold.duplicates + fold.superseded == fold.lines == len(found)
        assert fold.entries() == kept

    @given(st.lists(events, max_size=8))
    def test_no_event_is_kept_twice_and_none_is_lost(self, found: list[Event]) -> None:
        """Whoever knew its sequencer and whoever knew its etag only: kept once, or the blob's last operation is."""
        kept = events_of(folded(found), found)
        for number, event in enumerate(kept):
            assert not any(is_same(event, other) for other in kept[number + 1 :])
        for event in found:
            assert event.blob is not None
            same = [other for other in found if is_same(event, other)]
            newest = max(other.blob.sequencer for other in same if other.blob)
            paths = [other.blob for other in kept if other.blob and other.blob.path == event.blob.path]
            assert any(is_same(event, other) for other in kept) or any(newest <= blob.sequencer for blob in paths)

    def test_highest_sequencer_of_each_blob_remains(self) -> None:
        """Of a blob's versions the last one, in whatever order they came."""
        versions = [an_event(sequencer=number, eTag=f"0x{number}") for number in ("02", "03", "01")]
        fold = folded([*versions, an_event("d/b.csv")])
        assert fold.entries() == entries(versions[1], an_event("d/b.csv"))
        assert fold.superseded == 2

    def test_oldest_is_listed_first(self) -> None:
        """In the order of their times; those without a time come before all."""
        late, early = an_event("d/a", eventTime="2026-11-20T11:00:00Z"), an_event("d/b", eventTime="2026-11-20T10:00Z")
        timeless = an_event("d/c", eventTime=None)
        assert folded([late, timeless, early]).entries() == entries(timeless, early, late)

    @given(st.permutations([1, 2, 3]))
    def test_content_decides_between_deliveries_that_differ_in_nothing_else(self, sizes: list[int]) -> None:
        """Of one event in two forms the same one is listed, whichever came first."""
        fold = folded([an_event(contentLength=size) for size in sizes])
        assert fold.entries() == entries(an_event(contentLength=1))

    def test_empty_fold_looks_nowhere(self) -> None:
        """Nothing kept, nothing to drop."""
        fold = Fold(NOW)
        assert (fold.lines, fold.duplicates, fold.superseded) == (0, 0, 0)
        assert fold.since is None
        assert fold.entries() == []


class TestMadeUp:
    """A blob's event that `signalbox rescan` made up, and the real one."""

    @pytest.mark.parametrize("etag", ["0x8D1", '"0x8D1"', 'W/"0x8D1"'])
    def test_both_in_one_window_are_one(self, etag: str) -> None:
        """The real one stays, because it knows the sequencer; quotes around the etag mean nothing."""
        real = an_event(eTag=etag)
        for order in ([real, made_up(real), made_up(real)], [made_up(real), real, made_up(real)]):
            fold = folded(order)
            assert fold.entries() == entries(real)
            assert fold.duplicates == 2

    @pytest.mark.parametrize("cloud", [False, True])
    def test_whichever_was_dispatched_the_other_is_dropped(self, cloud: bool) -> None:
        """The real event after the rescan, in either schema, and the rescan after the real event."""
        plain = blob_event(eTag='"0x8D1"')
        real = parse(as_cloud_event(plain) if cloud else plain)
        for first, second in ((made_up(real), real), (real, made_up(real))):
            fold = folded([second])
            fold.drop(listed(first))
            assert fold.entries() == []
            assert fold.duplicates == 1

    def test_another_version_is_another_event(self) -> None:
        """The blob was written again after the rescan: its next event has another etag and is dispatched."""
        real, newer = an_event(), an_event(sequencer="0002", eTag="0x8D2")
        fold = folded([newer])
        fold.drop(listed(made_up(real)))
        assert fold.entries() == entries(newer)

    @pytest.mark.parametrize("changes", [{"path": "d/b.csv"}, {"eventType": "Microsoft.Storage.BlobRenamed"}])
    def test_same_etag_elsewhere_says_nothing(self, changes: dict[str, Any]) -> None:
        """Etags are compared within one blob, and between events of one kind."""
        real, other = an_event(), an_event(**changes)
        fold = folded([other])
        fold.drop(listed(made_up(real)))
        assert fold.entries() == entries(other)

    def test_two_sequencers_are_two_events(self) -> None:
        """Where both know the sequencer, the etag is not asked."""
        one, other = an_event(sequencer="01"), an_event(sequencer="02")
        fold = folded([other])
        fold.drop(listed(one))
        assert fold.entries() == entries(other)

    def test_deleted_blob_has_no_etag(self) -> None:
        """BlobDeleted is known by its sequencer, and without that by its id; another one of the blob is kept."""
        bare: dict[str, Any] = {"eventType": "Microsoft.Storage.BlobDeleted", "eTag": None, "sequencer": None}
        first, again, other = (an_event(id=name, **bare) for name in ("1", "1", "2"))
        fold = folded([again, other])
        fold.drop(listed(first))
        assert fold.entries() == entries(other)

    @given(st.lists(events, min_size=1, max_size=8), st.data())
    def test_each_happening_is_dispatched_once_over_all_windows(self, found: list[Event], data: st.DataObject) -> None:
        """However the lines fall into windows, no event stands in two manifests, whoever told of it."""
        cuts = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
        manifests: list[list[Event]] = []
        window: list[Event] = []
        for event, is_last in zip(found, [*cuts[1:], True], strict=True):
            window.append(event)
            if is_last:
                fold = folded(window)
                for earlier in reversed(manifests):
                    fold.drop(listed(*earlier))
                manifests.append(events_of(fold, window))
                assert len(manifests[-1]) + fold.duplicates + fold.superseded == len(window)
                window = []
        dispatched = [event for manifest in manifests for event in manifest]
        for number, event in enumerate(dispatched):
            assert not any(is_same(event, other) for other in dispatched[number + 1 :])


class TestDrop:
    """What earlier manifests list."""

    @given(st.lists(events, max_size=8), st.permutations(range(8)))
    def test_order_of_the_manifest_means_nothing(self, found: list[Event], order: list[int]) -> None:
        """What remains follows from what is listed."""
        before = listed(*found[::2])
        one, other = folded(found), folded(found)
        one.drop(before)
        other.drop([before[number] for number in order if number < len(before)])
        assert one.entries() == other.entries()

    @given(st.lists(events, max_size=8))
    def test_listed_events_are_gone(self, found: list[Event]) -> None:
        """A redelivery that comes after its window was sealed is a duplicate; one manifest after another or at once."""
        at_once, in_turn = folded(found), folded(found)
        at_once.drop(listed(*found[::2]))
        for event in found[::2]:
            in_turn.drop(listed(event))
        kept = events_of(at_once, found)
        assert kept == events_of(in_turn, found)
        assert not any(is_same(event, other) for event in found[::2] for other in kept)
        assert len(kept) + at_once.duplicates + at_once.superseded == len(found)

    def test_older_versions_than_what_is_listed_are_gone(self) -> None:
        """Of a blob that was handed on in version 02, version 01 starts nothing any more, but 03 does."""
        first, second, third = (an_event(sequencer=number, eTag=f"0x{number}") for number in ("01", "02", "03"))
        old, new = folded([first]), folded([third])
        for fold in (old, new):
            fold.drop(listed(second))
        assert (old.entries(), old.superseded) == ([], 1)
        assert (new.entries(), new.superseded) == (entries(third), 0)

    def test_older_versions_stay_where_nothing_is_listed_yet(self) -> None:
        """What stands in a window that closes at once may turn out unreadable; only the same event gives way."""
        first, second = (an_event(sequencer=number, eTag=f"0x{number}") for number in ("01", "02"))
        fold = folded([first])
        fold.drop(listed(second), older=False)
        assert (fold.entries(), fold.superseded) == (entries(first), 0)
        fold.drop(listed(first), older=False)
        assert (fold.entries(), fold.duplicates) == ([], 1)

    def test_what_else_happened_at_the_same_point_is_no_older_version(self) -> None:
        """Only a lower sequencer is older."""
        renamed = an_event(eventType="Microsoft.Storage.BlobRenamed")
        fold = folded([renamed])
        fold.drop(listed(an_event()))
        assert fold.entries() == entries(renamed)

    def test_lines_taken_after_a_look_are_looked_at_too(self) -> None:
        """Nothing hangs on when a fold is asked."""
        fold = Fold(NOW)
        fold.drop(listed(an_event()))
        fold.add(Line(an_event(), NOW))
        fold.drop(listed(an_event()))
        assert fold.entries() == []

    def test_event_about_no_blob_is_known_by_its_identity(self) -> None:
        """It has neither version nor blob to compare."""
        one, other = any_event({"n": 1}, "s", "1"), any_event({"n": 2}, "s", "1")
        fold = folded([one, other])
        fold.drop(listed(one))
        assert fold.entries() == entries(other)

    @given(events)
    def test_manifest_says_of_an_event_what_the_event_says_itself(self, event: Event) -> None:
        """Windows that close at once are compared before there is a manifest."""
        assert listed(event) == [Listed.of(event)]
        assert listed(any_event({}, "s", "1")) == [Listed.of(any_event({}, "s", "1"))]


class TestRepeatedIds:
    """Publishers that use an id twice."""

    def test_id_with_other_content_is_kept_and_counted(self) -> None:
        """Every one of the events is listed, and their ids are named."""
        one, other, third = (any_event({"n": number}, "s", "7") for number in (1, 2, 3))
        fold = folded([one, other, third, one, any_event({}, "s", "8")])
        assert len(fold.entries()) == 4
        assert fold.repeated_ids == ["7"]

    def test_redelivery_and_other_sources_are_no_repetition(self) -> None:
        """An id is unique within its source only, and the same event may come twice."""
        event = any_event({"n": 1}, "s", "7")
        fold = folded([event, event, replace(event, source="elsewhere", data={"n": 2})])
        assert fold.repeated_ids == []

    @given(st.lists(events, max_size=8))
    def test_says_so_of_exactly_these_ids(self, found: list[Event]) -> None:
        """Those under which several identities came."""
        identities: dict[str, set[tuple[str, ...]]] = {}
        for event in found:
            identities.setdefault(event.id, set()).add(event.identity)
        assert folded(found).repeated_ids == sorted(one for one, several in identities.items() if len(several) > 1)
