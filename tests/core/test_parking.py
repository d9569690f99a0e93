"""Which parked dispatches go on, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import given, strategies as st

from functions.core.dispatch import Dispatch, State
from functions.core.parking import LONGEST_PROBE, MOST_UNHEARD_PROBES, at_todays_door, doors_of, wake
from functions.core.routes import Route

from .strategies import NOW, a_dispatch, dispatches

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def refused(name: str = "a", age: timedelta = HOUR, **changes: object) -> Dispatch:
    """A dispatch that GitHub refused so long ago."""
    return a_dispatch(id=f"sb-{name}", created=NOW - age, parked=NOW - age, state=State.PARKED, reason="401", **changes)


@pytest.mark.parametrize(("probes", "minutes"), [(0, 15), (1, 30), (2, 60), (4, 240), (5, 360), (9, 360), (99, 360)])
def test_the_pause_doubles_up_to_six_hours(probes: int, minutes: int) -> None:
    """15 minutes at first; each probe is counted and is sent at once."""
    row = refused(age=minutes * MINUTE, probes=probes)
    assert wake([row], NOW - SECOND) == []
    assert wake([row], NOW) == [replace(row, state=State.READY, probes=probes + 1)]


def test_only_the_oldest_of_a_repository_probes() -> None:
    """Each repository by itself: another one's token may be good."""
    rows = [refused("b", HOUR), refused("a", 2 * HOUR), refused("c", HOUR, repository="octo/other")]
    assert {row.id for row in wake(rows, NOW)} == {"sb-a", "sb-c"}


def test_each_door_probes_by_itself() -> None:
    """The token may start workflows and not dispatch to the repository, or the other way round."""
    doors: list[dict[str, object]] = [{}, {"workflow": "a.yml", "ref": "main"}, {"workflow": "b.yml", "ref": "main"}]
    rows = [refused(f"{n}{m}", (2 - m) * HOUR, **door) for n, door in enumerate(doors) for m in (0, 1)]
    assert {row.id for row in wake(rows, NOW)} == {"sb-00", "sb-10", "sb-20"}
    passed = a_dispatch(id="sb-z", state=State.CONFIRMED, sent=NOW, **doors[1])
    assert {row.id for row in wake([*rows, passed], NOW)} == {"sb-00", "sb-10", "sb-11", "sb-20"}


@pytest.mark.parametrize("state", [State.READY, State.SENDING])
def test_one_probe_at_a_time(state: State) -> None:
    """While a probe is under way no other one starts; an ordinary dispatch does not stop it."""
    under_way = a_dispatch(id="sb-z", state=state, probes=1)
    assert wake([refused(), under_way], NOW) == []
    assert wake([refused(), replace(under_way, probes=0)], NOW)


def test_all_follow_what_was_accepted() -> None:
    """Whatever GitHub accepted after they were parked shows that the cause is gone: all go, a second apart."""
    rows = [refused("b", MINUTE), refused("a", HOUR, probes=3), a_dispatch(id="sb-z", state=State.SENT, sent=NOW)]
    first, second = wake(rows, NOW)
    assert (first.id, first.state, first.not_before, first.probes) == ("sb-a", State.READY, NOW, 3)
    assert (second.id, second.state, second.not_before) == ("sb-b", State.READY, NOW + SECOND)


def test_what_was_accepted_before_says_nothing() -> None:
    """The token was good earlier; it is not now."""
    accepted = a_dispatch(id="sb-z", state=State.CONFIRMED, sent=NOW - HOUR)
    assert wake([refused(age=MINUTE), accepted], NOW) == []


def test_a_row_of_an_older_version() -> None:
    """It does not say when it was parked: its creation stands for that."""
    assert wake([replace(refused(), parked=None)], NOW)


def test_unheard_is_looked_for_first() -> None:
    """It goes back to where its outcome was unknown; after three times it waits for a person."""
    sent = NOW - HOUR
    for times in range(MOST_UNHEARD_PROBES):
        row = refused(sent=sent, unheard=times, probes=99)
        assert wake([row], NOW) == [replace(row, state=State.SENDING, sending_since=sent, unheard=times + 1)]
        assert wake([row], NOW - HOUR) == []
    assert wake([refused(sent=sent, unheard=MOST_UNHEARD_PROBES)], NOW + LONGEST_PROBE) == []


class TestDoor:
    """What was mended may be the door itself."""

    ROUTES = (Route("train", (), "t", repository="octo/new", workflow="train.yml", ref="v2"), Route("other", (), "o"))
    DOORS: ClassVar = {"train": ("octo/new", "train.yml", "v2"), "other": ("octo/models", "", "")}

    def test_doors_of_the_routes(self) -> None:
        """A route that names no repository has the setting's."""
        assert doors_of(self.ROUTES, "octo/models") == self.DOORS

    @pytest.mark.parametrize("state", State)
    def test_only_what_was_refused_goes_to_the_new_one(self, state: State) -> None:
        """GitHub did nothing with it; whatever it accepted, or may have, stays at its door."""
        row = a_dispatch(state=state)
        moved = at_todays_door(row, self.DOORS).door == self.DOORS["train"]
        assert moved is (state in {State.PARKED, State.DEAD})
        assert at_todays_door(replace(row, sent=NOW), self.DOORS) == replace(row, sent=NOW)

    def test_a_route_that_is_gone(self) -> None:
        """Its dispatches keep what they have."""
        assert at_todays_door(refused(), {}) == refused()


@given(st.lists(dispatches, max_size=6))
def test_nothing_but_parked_rows_goes_on(rows: list[Dispatch]) -> None:
    """Whatever the ledger holds, each that goes on was parked, and at most one probe of a door starts."""
    rows = [replace(row, id=f"sb-{number}") for number, row in enumerate(rows)]
    parked = {row.id: row for row in rows if row.state is State.PARKED}
    woken = wake(rows, NOW)
    assert {row.id for row in woken} <= set(parked)
    probes = [row.door for row in woken if row.state is State.READY and row.probes > parked[row.id].probes]
    assert len(probes) == len(set(probes))
