"""Ten thousand histories from outside, as `make simulate` runs them; a replayed seed; what a failure prints."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from functions.core.routes import OVERFLOW_KEY

from .bugs import BUGS
from .history import FAULTS, History
from .invariants import violations
from .report import trace_of
from .script import script

SIMULATE = Path(__file__).resolve().parents[2] / "scripts/simulate"


def test_ten_thousand_histories() -> None:
    """Every promise holds after each of them, and the runner says how many there were and how fast."""
    done = subprocess.run([SIMULATE, "0", "10000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    assert re.search(r"^10000 histories, seeds 0 to 9999: 0 broken, \d+ histories/s$", done.stdout, re.MULTILINE)


def test_no_process_outlives_a_runner_that_was_killed() -> None:
    """Its helpers have nothing more to do, and nobody else would end them."""
    runner = subprocess.Popen(
        [SIMULATE, "0", "1000000", "--processes", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while len(helpers := psutil.Process(runner.pid).children(recursive=True)) < 3:
        assert runner.poll() is None
        time.sleep(0.05)
    runner.kill()
    runner.wait()
    assert psutil.wait_procs(helpers, timeout=60)[1] == []


@pytest.mark.parametrize("seed", range(30))
def test_a_seed_replays_the_same_history(seed: int) -> None:
    """Call by call, and with the same outcome: what failed once can be looked at again."""
    one, other = (History(script(seed)).run() for _ in range(2))
    assert list(trace_of(one)) == list(trace_of(other))
    assert one.ledger() == other.ledger()


def test_histories_meet_what_they_are_for() -> None:
    """The first seeds hold every fault, state and kind of window, day-late events and another version's lines."""
    histories = [History(script(seed)).run() for seed in range(700)]
    faults = {call[4] for history in histories for call in history.trace}
    assert faults == {"", *FAULTS}
    states = {str(row.state) for history in histories for row in history.ledger()}
    assert states == {"done", "empty", "dead"}
    assert any(row.parked is not None and row.sent is not None for history in histories for row in history.ledger())
    assert any(row.probes for history in histories for row in history.ledger())
    assert any(row.attempts > 1 for history in histories for row in history.ledger())
    assert any(head.number > 3 for history in histories for head in history.store.heads.values())
    assert any("window" in letter for history in histories for letter in history.store.dead_letters.values())
    assert any(history.loop.moment > 12 * 3600 for history in histories)
    dropped = {call[3][0].queue for history in histories for call in history.trace if call[2] == "drop_poison"}
    assert dropped == {"work", "events"}
    assert any(history.turns for history in histories)
    overflows = [head for history in histories for head in history.store.heads.values() if head.key == OVERFLOW_KEY]
    assert any(head.number > 2 for head in overflows)


def test_a_gateway_that_fails_after_github_accepted() -> None:
    """No dispatch is effective twice, even where a 502 hides that GitHub accepted it."""
    for seed in range(300):
        assert violations(History(replace(script(seed), gateway=True)).run()) == [], f"seed {seed}"


def test_a_broken_promise_is_told_with_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace names each event that came in, each call with its fault, and the ledger."""
    bug = next(one for one in BUGS if one.patch)
    assert bug.patch is not None
    bug.patch(monkeypatch)
    history = next(history for seed in range(50) if violations(history := History(script(seed)).run()))
    told = "\n".join(trace_of(history))
    assert told.startswith(f"seed {history.script.seed}: ")
    assert told.count("\ndelivery at ") == len(history.script.deliveries)
    assert f"{len(history.trace) - 1} " in told
    assert "\nledger sb-" in told
