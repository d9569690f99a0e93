"""Many events at once, with duplicates and in no order."""

from __future__ import annotations

import random
from collections.abc import Callable

from .delivery import Sender, event, in_parallel
from .github import BadGitHub
from .machine import Machine, check_promises, until_finished

SEED = 5
UNIQUE = 5_000
FOLDERS = ["digits", "iris", "wine", "cancer"]


def test_five_thousand_events_with_duplicates_are_all_there_once(start: Callable[[BadGitHub], Machine]) -> None:
    """5,000 events, a fifth of them again, shuffled, posted at once: each in one manifest, one dispatch a window."""
    chance = random.Random(SEED)
    unique = [event(number, chance.choice(FOLDERS)) for number in range(UNIQUE)]
    posted = [*unique, *chance.sample(unique, UNIQUE // 5)]
    chance.shuffle(posted)
    batches, rest = [], posted
    while rest:
        size = chance.randint(1, 200)
        batches.append(rest[:size])
        rest = rest[size:]
    github = BadGitHub()
    machine = start(github)
    sender = Sender(machine.door)
    in_parallel(sender.deliver, batches, threads=8)
    until_finished(machine, github, sender, seconds=120, reconcile=False)
    check_promises(machine, github, sender)
    assert {line["event_id"] for manifest in machine.manifests().values() for line in manifest.lines} == {
        one["id"] for one in unique
    }
    assert {post.key for post in github.posts} == set(FOLDERS)
