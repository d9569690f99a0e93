"""kill -9 of the Functions host, again and again, while events pour in."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .conftest import ROUTES
from .delivery import Sender, Traffic
from .github import Answer, BadGitHub
from .machine import Machine, check_events, check_promises, until_finished

SEED = 20
KILLS = 20
AIMED = 8
"""So many kills come the moment GitHub took a dispatch and before it answers; the others at any time."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What twenty kills have left. `hits` counts the aimed kills that met a dispatch."""

    machine: Machine
    github: BadGitHub
    sender: Sender
    hits: int


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Twenty kills amid traffic; afterwards everything that was begun is acknowledged, and comes to rest.

    The slow timer rings at the end: it is what finds the work that a crash left without a message.
    """
    chance = random.Random(SEED)
    github = BadGitHub(lambda: Answer(takes=True, status=204, pause=0.3, run_after=chance.random()))
    machine = Machine(tmp_path_factory.mktemp("kills"), ROUTES, github.url)
    try:
        sender = Sender(machine.door)
        traffic = Traffic(sender, ["digits", "iris", "wine"], seed=SEED)
        hits = 0
        for number in range(KILLS):
            if number < AIMED:
                github.took.clear()
                hits += github.took.wait(2)
            else:
                time.sleep(chance.uniform(0.1, 0.8))
            machine.kill_functions()
            machine.start_functions()
        traffic.stop()
        until_finished(machine, github, sender, seconds=150, reconcile=True)
        yield Scene(machine, github, sender, hits)
    finally:
        machine.stop()
        github.close()


def test_kills_hit_where_it_hurts(scene: Scene) -> None:
    """Kills cut deliveries off, and met dispatches that GitHub had taken and not yet answered."""
    assert any(delivery.status == 0 for delivery in scene.sender.deliveries)
    assert scene.hits > 0


def test_no_event_is_lost_and_none_comes_twice(scene: Scene) -> None:
    """Every event was acknowledged at last, and is in exactly one manifest."""
    assert scene.sender.acknowledged == set(scene.sender.sent)
    check_events(scene.machine, scene.sender)


def test_each_dispatch_takes_effect_once(scene: Scene) -> None:
    """Also those whose sender was killed while GitHub answered."""
    check_promises(scene.machine, scene.github, scene.sender)
