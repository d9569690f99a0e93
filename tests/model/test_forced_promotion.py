"""A person can overrule the gate: by name, with a reason, for exactly one model, and it is written down."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st
from mlops import digest
from mlops.evaluation import gate
from mlops.models import tracking
from mlops.report import Fault
from register import force as step

from tests.model.registry_world import SAME, World

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

RULE = gate.Rule("accuracy", True, 0.8, 0.95)
WHERE = gate.Circumstances("train-sb-a-1", "sb-a", "5" * 64, 100, "iris")
NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
KEPT_BACK = gate.decide(RULE, WHERE, gate.Measured("a" * 64, 0.1), None, None)


def forced(**changes: Any) -> dict[str, Any]:
    """Return a forced record, with changes to its part `forced`."""
    record = gate.force(KEPT_BACK, "Ada", "the old one is broken", NOW, None)
    return {**record, "forced": {**record["forced"], **changes}}


def test_a_forced_record_admits_its_own_model_only() -> None:
    """It says who, why, when and what the gate had said, and passes for this job and these files alone."""
    record = forced()
    assert gate.objection(record, WHERE.job, "a" * 64) is None
    assert "Ada: the old one is broken" in record["reason"]
    assert record["forced"]["outcome"] == gate.REFUSED
    assert record["forced"]["decision_sha256"] == digest.of_value(KEPT_BACK)
    assert "job" in (gate.objection(record, "train-sb-b-1", "a" * 64) or "")
    assert "digest" in (gate.objection(record, WHERE.job, "b" * 64) or "")


@pytest.mark.parametrize(
    "record",
    [
        forced(by=""),
        forced(by="  "),
        forced(reason=""),
        forced(at="yesterday"),
        forced(at="2026-11-21T08:30:00"),
        forced(by="Grace"),
        forced(outcome=gate.PROMOTED),
        forced(outcome_reason="It was fine."),
        forced(decision_sha256="0" * 64),
        {**forced(), "challenger": 0.9},
        {**forced(), "reason": "First model."},
        {name: value for name, value in forced().items() if name != "forced"},
        {**KEPT_BACK, "outcome": gate.FORCED},
    ],
)
def test_an_incomplete_or_edited_forced_record_is_damaged(record: dict[str, Any]) -> None:
    """Without a name, a reason, a time, or the gate's own record unchanged inside, nothing passes."""
    assert "damaged" in (gate.objection(record, WHERE.job, "a" * 64) or "")


@given(st.sampled_from(["by", "reason", "at", "outcome", "outcome_reason", "decision_sha256"]), st.data())
def test_no_edit_of_a_forced_record_passes(key: str, data: st.DataObject) -> None:
    """Whatever one of its words becomes, the record contradicts itself."""
    rubbish = data.draw(st.none() | st.text(max_size=5) | st.integers() | st.just(gate.PROMOTED))
    assert gate.objection(forced(**{key: rubbish}), WHERE.job, "a" * 64) is not None


def test_a_promoted_model_needs_no_force() -> None:
    """What the gate promoted goes its own way."""
    promoted = gate.decide(RULE, WHERE, gate.Measured("a" * 64, 0.9), None, None)
    with pytest.raises(ValueError, match="only a model it kept back"):
        gate.force(promoted, "Ada", "why not", NOW, None)


def test_a_kept_back_model_is_forced_registered_and_deployed(world: World) -> None:
    """From "kept the champion" to champion, with both the person and the gate's own words in the version's tags."""
    world.train("a", 0.9)
    world.deploy("a")
    kept = world.train("b", 0.9, SAME)
    version = world.force("b", "  Ada\n", "the old one\nis broken")
    assert version.tags["decision_outcome"] == gate.FORCED
    assert (version.tags["forced_by"], version.tags["forced_reason"]) == ("Ada", "the old one is broken")
    assert version.tags["git_commit"] == "c" * 40
    assert world.record("b") == kept  # the evaluation stays as it was
    assert digest.of_folder(world.deploy("b")) == kept["model_sha256"]
    assert world.champion() == "b"


def test_forcing_twice_makes_one_version(world: World) -> None:
    """A workflow that is started again finds what the first start did."""
    world.train("low", 0.1)
    assert world.force("low").version == world.force("low", "Grace", "me too").version
    assert len(tracking.versions(world.client, world.model)) == 1


def test_a_forced_promotion_replaces_the_champion_that_it_was_demanded_against(world: World) -> None:
    """Kept in a drawer until another model is the champion, it opens nothing any more."""
    world.train("a", 0.9)
    world.deploy("a")
    world.train("low", 0.1)
    world.force("low")
    world.train("b", 0.95)
    world.deploy("b")
    with pytest.raises(Fault, match="the champion has changed"):
        world.deploy("low")
    assert world.champion() == "b"


@pytest.mark.parametrize(
    ("job", "by", "reason", "words"),
    [
        ("low", " ", "because", "FORCED_BY and FORCE_REASON must say something"),
        ("low", "Ada", "\n", "FORCED_BY and FORCE_REASON must say something"),
        ("nobody", "Ada", "because", "no evaluated model .* check RUN_ID"),
        ("x' or '1' = '1", "Ada", "because", "a job's name has letters"),
        ("good", "Ada", "because", "registered already"),
        ("broken-off", "Ada", "because", "only a model that reached the gate can be forced"),
        ("edited", "Ada", "because", "not the one that the evaluation wrote"),
        ("swapped", "Ada", "because", "was evaluated"),
    ],
)
def test_what_cannot_be_forced_says_why(world: World, job: str, by: str, reason: str, words: str) -> None:
    """No name, no reason, no such job, no evaluated model, other files: refused, and nothing is registered."""
    world.train("low", 0.1)
    world.train("good", 0.9)
    world.client.create_run(world.experiment, tags={tracking.JOB_TAG: "broken-off"})
    world.train("edited", 0.1)
    world.overwrite("edited", {**world.record("edited"), "challenger": 0.7}, sign=False)
    world.train("swapped", 0.1)
    (tracking.artifact_folder(world.runs["swapped"], tracking.MODEL) / "MLmodel").write_text("another model")
    with pytest.raises(Fault, match=words):
        world.force(job, by, reason)
    assert [version.tags[tracking.JOB_TAG] for version in tracking.versions(world.client, world.model)] == ["good"]


@pytest.mark.parametrize("missing", ["RUN_ID", "FORCED_BY", "FORCE_REASON"])
def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """The script says which one and what belongs there."""
    for name in ("RUN_ID", "JOB", "FORCED_BY", "FORCE_REASON"):
        monkeypatch.setenv(name, "" if name in {missing, "JOB"} else "x")
    with pytest.raises(Fault, match="JOB is not set" if missing == "RUN_ID" else f"{missing} is not set"):
        step.main()


def test_the_script_registers_and_summarizes(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the workflow calls reads its environment and writes who forced what into the summary."""
    world.train("low", 0.1)
    monkeypatch.setattr(step.settings, "load", lambda: world.configuration)
    summary = tmp_path / "summary.md"
    for name, value in (("RUN_ID", "low"), ("FORCED_BY", "ada"), ("FORCE_REASON", "the | old one")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    step.main()
    assert "Forced by ada: the | old one" in capsys.readouterr().out
    assert "the &#124; old one" in summary.read_text()
