"""Whole histories in which publishers' clocks are ahead by minutes to days, and events come again up to a day late."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from functions.core.manifest import Header

from .history import History
from .invariants import violations
from .script import START, Delivery, Script, Sent, again, script

DAY = 24 * 3600.0
HISTORIES = 400


def skewed(seed: int) -> Script:
    """The script of a seed; the clocks of its publishers are ahead, and each blob's event comes twice more, late."""
    usual, chance = script(seed), random.Random(seed)
    times: dict[tuple[str, str], str] = {}
    deliveries: list[Delivery] = []
    for delivery in usual.deliveries:
        events = tuple(_ahead(event, delivery.moment, times, chance) for event in delivery.events)
        body = [event.value for event in events]
        raw = delivery.raw if delivery.raw is None or not events else json.dumps(body).encode()
        deliveries.append(replace(delivery, events=events, raw=raw))
    for event, first in _first(deliveries).items():
        moments = (first + chance.random() * 600, first + chance.random() * 0.9 * DAY)
        deliveries += [Delivery(moment, (again(event) if chance.random() < 0.3 else event,)) for moment in moments]
    return replace(usual, deliveries=deliveries)


class _Known(Sent):
    """An event as a key: one for each blob's version."""

    def __hash__(self) -> int:
        return hash((self.name, self.version))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sent) and (self.name, self.version) == (other.name, other.version)


def _ahead(event: Sent, moment: float, times: dict[tuple[str, str], str], chance: random.Random) -> Sent:
    """The event with the time of a clock that is ahead: the same each time that it comes."""
    if event.kind != "blob":
        return event
    ahead = chance.choice((60.0, 600.0, 3600.0, DAY / 2, DAY, 1.2 * DAY, 3 * DAY)) * (0.5 + chance.random())
    time = times.setdefault((event.name, event.version), (START + timedelta(seconds=moment + ahead)).isoformat())
    name = "time" if "specversion" in event.value else "eventTime"
    return replace(event, value={**event.value, name: time})


def _first(deliveries: list[Delivery]) -> dict[Sent, float]:
    """When each blob's event came first."""
    found: dict[Sent, float] = {}
    for delivery in sorted(deliveries, key=lambda one: one.moment):
        for event in delivery.events:
            if event.kind == "blob":
                plain = event.value
                if "specversion" in plain:
                    continue
                found.setdefault(_Known(plain, event.kind, event.name, event.version), delivery.moment)
    return found


def test_no_clock_ahead_lists_an_event_twice() -> None:
    """Every promise holds, whatever the publishers' clocks say and however late an event comes again."""
    later = 0
    for seed in range(HISTORIES):
        history = History(skewed(seed)).run()
        assert violations(history) == [], f"seed {seed}"
        later += any(header.reach is not None for header, _ in history.store.manifests.values())
    assert later > HISTORIES / 4


def test_it_takes_what_headers_say_of_such_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: a walk that ends at the first manifest sealed before the event's own time lists some twice."""
    monkeypatch.setattr(Header, "reaches", lambda self, since: self.sealed >= since)
    broken = next((found for seed in range(HISTORIES) if (found := violations(History(skewed(seed)).run()))), [])
    assert broken
    assert all(one.startswith("twice") for one in broken)
