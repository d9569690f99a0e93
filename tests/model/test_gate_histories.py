"""Whatever happens in whatever order, no model is deployed without its own passed or forced record.

Histories of jobs, registrations, replays, forced calls, edits, swaps and marks by hand run over the real code of gate,
registry, forcing and admission. The store is in memory; test_admission.py and test_forced_promotion.py hold it against
MLflow's own. What may be deployed is kept beside it, by simple means of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from mlops import digest
from mlops.evaluation import gate
from mlops.models import admission, tracking
from mlops.report import Fault

from tests.model import memory_tracking
from tests.model.registry_world import BETTER, SAME, World

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

FEW = settings(
    max_examples=150,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=(Phase.generate,),
)
numbers = itertools.count()
pick = st.integers(0, 3)


@dataclass
class Evaluated:
    """What the oracle remembers of a job: set down when it was evaluated, before anyone could touch anything."""

    content: str
    against: str
    passed: bool
    forced_against: str | None = None

    def may_replace(self, champion: str) -> bool:
        """Tell whether this job's model may follow the champion of this content (empty: none)."""
        return (self.passed and self.against == champion) or self.forced_against == champion


class Histories(RuleBasedStateMachine):
    """A team, its careless hands, and the gate between them."""

    client: Any
    folder: Path

    @initialize()
    def begin(self) -> None:
        """A new model name in the store."""
        self.world = World(self.client, self.folder, f"h{next(numbers)}")
        self.known: dict[str, Evaluated] = {}
        self.jobs: list[str] = []
        self.champion = ""
        self.touched = False

    def job(self, number: int) -> str:
        """Return one of the jobs so far."""
        return self.jobs[number % len(self.jobs)]

    def attempt(self, action: str, *arguments: object) -> object | None:
        """Do something that the code may refuse with a sentence."""
        try:
            return getattr(self.world, action)(*arguments)  # type: ignore[no-any-return]
        except Fault as fault:
            note(f"{action}{arguments}: {fault}")
            return None

    @rule(
        value=st.sampled_from([0.3, 0.85, 0.95]),
        interval=st.sampled_from([BETTER, SAME]),
        own_rule=st.sampled_from([None, None, {"floor": 0.1}, {"larger_is_better": False, "floor": 1.0}]),
        same_files=st.booleans(),
    )
    def train(
        self, value: float, interval: tuple[float, float], own_rule: dict[str, object] | None, same_files: bool
    ) -> None:
        """A job runs, now and then under a rule of its own, or with files that an earlier job made too."""
        name = f"j{len(self.jobs)}"
        today = self.world.rule
        made_by = replace(today, **own_rule) if own_rule else today  # type: ignore[arg-type]
        content = "the same files" if same_files else f"the files of {name}"
        try:
            record = self.world.evaluate(name, value, interval, rule=made_by, content=content)
        except Fault:
            assert self.touched, "an untouched champion could not be compared with"
            return
        better = not self.champion or interval == BETTER
        passed = made_by == today and value >= today.floor and better
        self.jobs.append(name)
        self.known[name] = Evaluated(content, self.champion, passed)
        if record["outcome"] == gate.PROMOTED:
            self.attempt("register", name)

    @precondition(lambda self: self.jobs)
    @rule(number=pick)
    def replay(self, number: int) -> None:
        """The registering step is run again."""
        self.attempt("register", self.job(number))

    @precondition(lambda self: self.jobs)
    @rule(number=pick, by=st.sampled_from(["Ada", " "]), reason=st.sampled_from(["because", ""]))
    def force(self, number: int, by: str, reason: str) -> None:
        """Somebody forces a job's model, perhaps without a name or a reason."""
        name = self.job(number)
        before = self.world.version(name)
        version = self.attempt("force", name, by, reason)
        if version is not None:
            assert by.strip()
            assert reason
            if before is None:
                self.known[name].forced_against = self.champion

    @precondition(lambda self: self.jobs)
    @rule(number=pick, times=st.integers(1, 2))
    def deploy(self, number: int, times: int) -> None:
        """A RunCompleted comes, perhaps twice: what goes out is held against what the oracle knows."""
        for _ in range(times):
            name = self.job(number)
            if self.world.version(name) is None:
                continue
            before, went = self.champion, self.attempt("deploy", name)
            if went is not None:
                assert isinstance(went, Path)
                known, self.champion = self.known[name], (went / "MLmodel").read_text()
                assert self.champion == known.content, "files went out that were never evaluated for this job"
                assert known.may_replace(before), f"{name} replaced {before!r} without a record that allows it"

    @precondition(lambda self: self.jobs)
    @rule(
        number=pick,
        sign=st.booleans(),
        edit=st.sampled_from(
            [
                {"outcome": gate.PROMOTED},
                {"outcome": gate.FORCED},
                {"outcome": gate.FORCED, "forced": {"by": "Eve", "reason": "x", "at": "2026-11-21T00:00:00+00:00"}},
                {"champion": None, "difference_interval": None},
                {"model_sha256": "0" * 64},
                {"job": "j0"},
                {},
            ]
        ),
    )
    def edit_the_record(self, number: int, sign: bool, edit: dict[str, object]) -> None:
        """A hand changes the stored record, and perhaps the tag with its digest as well."""
        name = self.job(number)
        record = self.world.record(name) | edit
        if edit == {"champion": None, "difference_interval": None}:  # as if there had been nobody to beat
            metric, floor = record["rule"]["metric"], record["rule"]["floor"]
            said = f"First model: its {metric} {record['challenger']:.4f} passes the floor {floor:g}."
            record |= {"outcome": gate.PROMOTED, "reason": said}
            if not self.champion and record["challenger"] >= self.world.rule.floor:
                return  # there really is nobody: then this is no edit but the truth
        self.world.overwrite(name, record, sign=sign)
        self.touched = True

    @precondition(lambda self: self.jobs)
    @rule(number=pick)
    def lower_the_floor(self, number: int) -> None:
        """A hand lets the record's own rule ask for less, all of a piece with its numbers and its digest."""
        name = self.job(number)
        record = self.world.record(name)
        if record["outcome"] == gate.REFUSED and record["champion"] is None:
            rule = {**record["rule"], "floor": 0.1, "larger_is_better": True}
            said = f"First model: its {rule['metric']} {record['challenger']:.4f} passes the floor 0.1."
            edited = {**record, "rule": rule, "outcome": gate.PROMOTED, "reason": said}
            self.world.overwrite(name, edited, sign=True)
            self.touched = True
            self.attempt("register", name)

    @precondition(lambda self: self.jobs)
    @rule(number=pick, where=st.sampled_from(["handed over", "stored"]))
    def swap_the_files(self, number: int, where: str) -> None:
        """The model's files become others, before or after they were registered."""
        name = self.job(number)
        version, self.touched = self.world.version(name), True
        if where == "stored" and version is not None:
            (tracking.model_folder(version) / "MLmodel").write_text("swapped")
        else:
            self.world.files(name, "swapped")

    @precondition(lambda self: self.jobs)
    @rule(number=pick, other=pick, content=st.sampled_from(["swapped", "the same files", "somebody's"]))
    def register_by_hand(self, number: int, other: int, content: str) -> None:
        """A version appears under a job's name, with another job's record and digest."""
        name, run = self.job(number), self.world.runs[self.job(other)]
        own = self.world.runs[name]
        self.world.runs[name] = run
        sha256 = digest.of_value(tracking.read_json(run, gate.RECORD))
        self.world.by_hand(name, content, decision_sha256=sha256)
        self.world.runs[name] = own

    @precondition(lambda self: self.jobs)
    @rule(number=pick)
    def mark_a_champion_by_hand(self, number: int) -> None:
        """A tag says that some version serves, although it was never deployed."""
        version = self.world.version(self.job(number))
        if version is not None:
            self.world.client.set_model_version_tag(version.name, version.version, tracking.CHAMPION_ORDER, "999")
            self.touched = True
            self.champion = (tracking.model_folder(version) / "MLmodel").read_text()

    @invariant()
    def a_job_has_one_version_of_ours(self) -> None:
        """Parent, child and replayed runs collapse: registration makes one version for a job."""
        made = [
            version.tags[tracking.JOB_TAG]
            for version in tracking.versions(self.world.client, self.world.model)
            if version.tags.get(tracking.ORIGIN_TAG)
        ]
        assert len(made) == len(set(made))


@pytest.fixture
def histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Histories]:
    """Return the machine on a store in memory."""
    monkeypatch.setattr(Histories, "client", memory_tracking.connect(tmp_path, monkeypatch), raising=False)
    monkeypatch.setattr(Histories, "folder", tmp_path, raising=False)
    return Histories


def test_no_history_deploys_a_model_without_its_own_record(histories: type[Histories]) -> None:
    """The promise: passed or forced, for exactly these files, this job, today's rule and today's champion."""
    run_state_machine_as_test(histories, settings=FEW)


def _always(value: object) -> object:
    return lambda *_, **__: value


PLANTED: dict[str, tuple[object, str, object]] = {
    "the record is not asked": (gate, "objection", _always(None)),
    "the rule of the day is not asked": (gate, "outdated", _always(False)),
    "the champion of the day is not asked": (gate, "stale", _always(False)),
    "every folder has one digest": (digest, "of_folder", _always("0" * 64)),
    "every record has one digest": (digest, "of_value", _always("0" * 64)),
    "nothing is asked": (admission, "admit", lambda _client, _settings, version, _job: tracking.model_folder(version)),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_some_history_finds_a_question_that_is_not_asked(
    histories: type[Histories], monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    """Each question that admission asks is needed: without it some history breaks the promise."""
    monkeypatch.setattr(*PLANTED[bug])  # type: ignore[arg-type]
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(histories, settings=settings(FEW, max_examples=1_000, print_blob=False))
