"""GitHub that is away, refuses, limits, or takes a dispatch and does not say so.

A limit holds for every dispatch, so the waits of the scripts add up. Both scenes mostly wait, so they run at the same
time, each on a machine of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from .conftest import ROUTES
from .delivery import Sender, event
from .github import Answer, BadGitHub
from .machine import Machine, check_events, check_payloads, check_promises, until, until_finished

OUTAGE = 60.0
"""Seconds for which GitHub refuses connections."""
HOUR = 3600.0

SCRIPTS: dict[str, list[Answer]] = {
    "plain": [],
    "503": [Answer(status=503)],
    "503-retry-after": [
        Answer(status=503, wait=2, asks="retry-after"),
        Answer(status=503, wait=3, asks="retry-after"),
    ],
    "429-retry-after": [Answer(status=429, wait=3, asks="retry-after"), Answer(status=429, wait=2, asks="retry-after")],
    "429-date": [Answer(status=429, wait=4, asks="date", clock=-HOUR)],
    "403-reset": [Answer(status=403, wait=4, asks="x-ratelimit-reset", clock=-HOUR)],
    "403-reset-ahead": [Answer(status=403, wait=4, asks="x-ratelimit-reset", clock=HOUR)],
    "403-secondary": [Answer(status=403, message="You have exceeded a secondary rate limit.")],
    "taken-time-out": [Answer(takes=True, pause=20)],
    "taken-hang-up": [Answer(takes=True)],
    "taken-run-late": [Answer(takes=True, run_after=20)],
    "taken-500": [Answer(takes=True, status=500, wait=2, asks="retry-after")],
    "taken-502": [Answer(takes=True, status=502, wait=2, asks="retry-after", run_after=5)],
    "lost-hang-up": [Answer()],
}
"""What the dispatch of each key meets before GitHub behaves."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A machine, its GitHub and its events."""

    machine: Machine
    github: BadGitHub
    sender: Sender

    @staticmethod
    def begin(folder: Path, github: BadGitHub) -> Scene:
        machine = Machine(folder, ROUTES, github.url)
        return Scene(machine, github, Sender(machine.door))

    def deliver(self, *keys: str) -> None:
        """Five events of each key."""
        for number, key in enumerate(keys):
            self.sender.deliver([event(10 * number + offset, key) for offset in range(5)])

    def finish(self) -> None:
        until_finished(self.machine, self.github, self.sender, seconds=150, reconcile=False)


def refuse_for_a_minute(scene: Scene) -> None:
    scene.deliver("away-0", "away-1", "away-2")
    time.sleep(OUTAGE)
    scene.github.open()
    scene.finish()


def misbehave(scene: Scene) -> None:
    for key, script in SCRIPTS.items():
        scene.github.scripts[key].extend(script)
    scene.github.listings.append(Answer(status=429, wait=8, asks="retry-after"))
    scene.deliver(*SCRIPTS)
    until(lambda: not any(scene.github.scripts.values()), scene.github.history, 150)
    scene.finish()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, Scene]]:
    """Both scenes, played at the same time."""
    with ExitStack() as stack:
        played = []
        for name, github in (("away", BadGitHub(opened=False)), ("scripts", BadGitHub())):
            stack.callback(github.close)
            played.append(Scene.begin(tmp_path_factory.mktemp(name), github))
            stack.callback(played[-1].machine.stop)
        outage, scripted = played
        with ThreadPoolExecutor(2) as pool:
            for playing in [pool.submit(refuse_for_a_minute, outage), pool.submit(misbehave, scripted)]:
                playing.result()
        yield outage, scripted


@pytest.fixture(scope="module")
def outage(scenes: tuple[Scene, Scene]) -> Scene:
    return scenes[0]


@pytest.fixture(scope="module")
def scripted(scenes: tuple[Scene, Scene]) -> Scene:
    return scenes[1]


@pytest.mark.parametrize("key", SCRIPTS)
def test_dispatch_takes_effect_exactly_once(scripted: Scene, key: str) -> None:
    """Sent until GitHub took it and never after, whatever GitHub answered, or did not."""
    posts = scripted.github.of_key(key)
    assert [post.answer.takes for post in posts].count(True) == 1, scripted.github.history()
    refusals = [answer for answer in SCRIPTS[key] if not answer.takes]
    assert len(posts) == len(refusals) + 1, scripted.github.history()


@pytest.mark.parametrize("key", [key for key, script in SCRIPTS.items() if any(answer.asks for answer in script)])
def test_dispatch_comes_no_earlier_than_github_asked(scripted: Scene, key: str) -> None:
    """Seconds, dates and resets are waited for, by GitHub's own clock where it is an hour off."""
    early = [
        f"{earlier.not_before - later.came:.2f} s too early"
        for earlier, later in pairwise(scripted.github.of_key(key))
        if later.came < earlier.not_before
    ]
    assert early == []


def test_no_event_is_lost_on_the_way_to_a_bad_github(scripted: Scene) -> None:
    """Each event is in one manifest, and each payload tells that manifest's count and sha256."""
    check_events(scripted.machine, scripted.sender)
    check_payloads(scripted.machine, scripted.github, scripted.sender)


def test_a_minute_without_github_delays_and_loses_nothing(outage: Scene) -> None:
    """Connections are refused for a minute: afterwards every dispatch takes effect, once."""
    check_promises(outage.machine, outage.github, outage.sender)
    assert sorted(post.key for post in outage.github.posts) == ["away-0", "away-1", "away-2"]


def test_listings_wait_as_github_asks(scripted: Scene) -> None:
    """GitHub limits a listing of runs: no other one comes before the time that it named, whatever is sent meanwhile."""
    looks = scripted.github.looks
    (limited,) = [look for look in looks if look.not_before]
    early = [limited.not_before - look.came for look in looks if limited.came < look.came < limited.not_before]
    assert early == []
