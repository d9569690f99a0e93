"""Nothing is deployed without its own record, whatever was edited, swapped, marked or registered by hand.

Each test plants one of the ways in which gates are got round in practice, over MLflow's real store and registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlops import digest, settings
from mlops.evaluation import gate, rules
from mlops.models import admission, tracking
from mlops.report import Fault
from register import register as step

from tests.model.registry_world import SAME, World

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


def refused(world: World, job: str) -> str:
    """Return why a deployment is refused, and make sure that it changed nothing."""
    before = world.champion()
    with pytest.raises(Fault) as fault:
        world.deploy(job)
    assert world.champion() == before
    return str(fault.value)


def test_a_promoted_model_is_deployed_and_the_next_must_beat_it(world: World) -> None:
    """The ordinary way: a first model, then a better one, each with its own record."""
    first = world.train("a", 0.9)
    assert digest.of_folder(world.deploy("a")) == first["model_sha256"]
    second = world.train("b", 0.95)
    assert second["champion"]["sha256"] == first["model_sha256"]
    assert digest.of_folder(world.deploy("b")) == second["model_sha256"]
    assert world.champion() == "b"


def test_a_model_that_was_kept_back_has_no_version(world: World) -> None:
    """Below the floor, or not better: the job ends well, and there is nothing that could be deployed."""
    assert world.train("low", 0.5)["outcome"] == gate.REFUSED
    world.train("a", 0.9)
    world.deploy("a")
    assert world.train("same", 0.9, SAME)["outcome"] == gate.KEPT_CHAMPION
    assert world.version("low") is None
    assert world.version("same") is None


def test_an_edited_record_is_found_out_by_its_digest(world: World) -> None:
    """One changed number in the stored record, and it is not the one that the version was registered with."""
    world.train("a", 0.9)
    world.overwrite("a", {**world.record("a"), "challenger": 0.99}, sign=False)
    assert "not the one that it was registered with" in refused(world, "a")


@pytest.mark.parametrize(
    "change",
    [
        {"floor": 0.0},  # a constant zero to beat
        {"larger_is_better": False, "floor": 1.0},  # compared the wrong way round
        {"metric": "error_rate", "larger_is_better": False, "floor": 1.0},
        {"confidence": 0.01},
        {"floors": [["f1_macro", True, 0.1]]},
        {"floors": []},
    ],
)
def test_a_record_under_a_rule_of_its_own_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    """A record that fits itself, signed into the tags, was not made by today's rule of the settings."""
    today = replace(settings.load_data_set("iris"), floors={"f1_macro": 0.8})
    monkeypatch.setattr(settings, "load_data_set", lambda _: today)
    world.rule = rules.today(world.configuration, today)
    world.train("a", 0.9)
    record = world.record("a")
    assert not gate.outdated(record, world.rule)
    record["rule"] |= change
    rule = record["rule"]
    record["reason"] = f"First model: its {rule['metric']} 0.9000 passes the floor {rule['floor']:g}."
    world.overwrite("a", record, sign=True)
    assert "rule has changed" in refused(world, "a")


def test_a_settings_file_that_was_changed_after_the_evaluation_asks_for_a_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule of the day of the deployment decides, not that of the day of the training."""
    world.train("a", 0.9)
    stricter = replace(settings.load_data_set("iris"), floor=0.95)
    monkeypatch.setattr(settings, "load_data_set", lambda _: stricter)
    assert "rule has changed since it was evaluated" in refused(world, "a")


def test_the_word_promoted_opens_nothing(world: World) -> None:
    """A flag that is overwritten after the decision contradicts the numbers beside it."""
    world.train("low", 0.5)
    world.client.set_tag(world.runs["low"], "decision_outcome", gate.PROMOTED)
    edited = {**world.record("low"), "outcome": gate.PROMOTED}
    world.overwrite("low", edited, sign=True)
    with pytest.raises(Fault, match="own numbers say 'refused'"):
        world.register("low")
    assert world.version("low") is None


def test_a_version_registered_by_hand_is_refused(world: World) -> None:
    """Tags that say promoted are no record; nor is a run whose record was refused, or another job's."""
    world.by_hand("nobody", "anything")
    assert "without a decision record" in refused(world, "nobody")
    low = world.train("low", 0.5)
    world.by_hand("low", "the model of low", decision_sha256=digest.of_value(low))
    assert "ended with 'refused'" in refused(world, "low")
    good = world.train("good", 0.9)
    world.runs["thief"] = world.runs["good"]
    world.by_hand("thief", "the model of good", decision_sha256=digest.of_value(good))
    assert "made for the job good, not for thief" in refused(world, "thief")


def test_a_record_of_another_model_is_refused(world: World) -> None:
    """The record names the digest of the files it was made for, and no other files pass with it."""
    good = world.train("good", 0.9)
    version = world.by_hand("copy", "other files")
    stolen = {**good, "job": "copy"}
    run = world.client.create_run(world.experiment).info.run_id
    tracking.store_json(world.client, run, gate.RECORD, stolen)
    folder = world.files("copied", "other files")
    world.client.delete_model_version(version.name, version.version)
    world.client.create_model_version(
        world.model,
        source=folder.as_uri(),
        run_id=run,
        tags={tracking.JOB_TAG: "copy", "data_set": "iris", "decision_sha256": digest.of_value(stolen)},
    )
    assert "was evaluated" in refused(world, "copy")


def test_files_swapped_after_the_evaluation_are_refused(world: World) -> None:
    """Before the registration and after it, the digest is computed from what is there now."""
    world.evaluate("early", 0.9)
    world.files("early", "swapped")
    with pytest.raises(Fault, match="was evaluated"):
        world.register("early")
    world.train("late", 0.9)
    version = world.version("late")
    assert version is not None
    (tracking.model_folder(version) / "MLmodel").write_text("swapped")
    assert "was evaluated" in refused(world, "late")


def test_files_swapped_after_the_admission_do_not_go_out(world: World, tmp_path: Path) -> None:
    """What was asked about is a copy: a swap in the store a moment later reaches no deployment."""
    world.train("a", 0.9)
    version = world.version("a")
    assert version is not None
    admitted = admission.admit(world.client, world.configuration, version, "a", tmp_path)
    (tracking.model_folder(version) / "MLmodel").write_text("swapped")
    assert (admitted / "MLmodel").read_text() == "the model of a"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("registered_model_meta", "a model of another kind"),
        ("data/registered_model_meta", "model_name: m\nmodel_version: 1\n"),
        ("linked/model.skops", "swapped"),
    ],
)
def test_no_file_is_left_out_of_the_digest(tmp_path: Path, path: str, content: str) -> None:
    """Neither one with the name of MLflow's own note, nor one behind a link; only that note itself is."""
    model, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    for folder in (model / "data", elsewhere):
        folder.mkdir(parents=True)
    (model / "linked").symlink_to(elsewhere)
    (model / "MLmodel").write_text("flavors: {}\n")
    before = digest.of_folder(model)
    (model / "registered_model_meta").write_text("model_name: signalbox-iris\nmodel_version: '3'\n")
    assert digest.of_folder(model) == before
    (model / path).write_text(content)
    assert digest.of_folder(model) != before


def test_a_version_of_another_name_or_data_set_is_refused(world: World) -> None:
    """A tag that points a model at another endpoint contradicts its record."""
    world.train("a", 0.9)
    version = world.version("a")
    assert version is not None
    world.client.set_model_version_tag(version.name, version.version, "data_set", "digits")
    assert "made for a model of the data set 'iris'" in refused(world, "a")


def test_a_champion_marked_by_hand_is_no_champion_to_beat(world: World) -> None:
    """A weak version that somebody marks lowers the bar for nobody: evaluation and deployment both stop."""
    world.train("a", 0.9)
    world.deploy("a")
    world.train("b", 0.95)
    weak = world.by_hand("weak", "guesses")
    world.client.set_model_version_tag(weak.name, weak.version, tracking.CHAMPION_ORDER, "99")
    with pytest.raises(Fault, match="marked as the champion, but cannot be compared with"):
        world.evaluate("c", 0.9)
    assert "marked as the champion" in refused(world, "b")
    world.client.delete_model_version_tag(weak.name, weak.version, tracking.CHAMPION_ORDER)
    world.deploy("b")


def test_a_comparison_with_yesterdays_champion_is_stale(world: World) -> None:
    """Of two promotions against the same champion the first wins, and the other is judged again."""
    world.train("a", 0.9)
    world.deploy("a")
    world.train("b", 0.95)
    world.train("c", 0.96)
    world.deploy("c")
    assert "the champion has changed" in refused(world, "b")


def test_registering_twice_makes_one_version(world: World) -> None:
    """A step that is run again, also from a child run of its own, finds the version that is there."""
    record = world.train("a", 0.9)
    first = world.register("a")
    child = world.client.create_run(world.experiment, tags={"mlflow.parentRunId": world.runs["a"]}).info.run_id
    world.client.log_artifacts(child, str(world.files("a", "the model of a")), tracking.MODEL)
    world.runs["a"] = child
    tracking.store_json(world.client, child, gate.RECORD, record)
    assert world.register("a").version == first.version
    assert len(tracking.versions(world.client, world.model)) == 1


def test_two_registrations_at_the_same_moment_leave_one_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look, both find nothing, both register: the later one is taken away again."""
    world.evaluate("a", 0.9)
    looked = tracking.version_of_job
    blind: list[Callable[..., object]] = [lambda *_: None, lambda *_: None]

    def look(*arguments: object) -> object:
        return blind.pop()(*arguments) if blind else looked(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tracking, "version_of_job", look)
    first = world.register("a")
    blind.append(lambda *_: None)
    assert world.register("a").version == first.version
    assert [version.version for version in tracking.versions(world.client, world.model)] == [first.version]


def test_a_version_that_took_the_jobs_name_before_it_is_told(world: World) -> None:
    """Registration does not hand out a version of other files as the job's own."""
    world.evaluate("a", 0.9)
    world.by_hand("a", "somebody's")
    with pytest.raises(Fault, match="registered for another decision or other files: delete that version"):
        world.register("a")


def test_a_decision_of_another_job_registers_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The step itself refuses a decision folder that belongs to another job."""
    world.evaluate("a", 0.9)
    world.client.download_artifacts(world.runs["a"], gate.RECORD, str(tmp_path))
    monkeypatch.setattr("sys.argv", ["register.py", "--data", "d", "--model", "m", "--decision", str(tmp_path)])
    for name, value in (("ORIGIN", "sb-b"), ("FOLDER", "iris"), ("JOB_NAME", "b")):
        monkeypatch.setenv(name, value)
    with pytest.raises(Fault, match="made for the job a and the data set 'iris', not for b"):
        step.main()


def test_a_job_is_asked_of_its_own_run_and_not_of_a_steps(world: World) -> None:
    """Steps carry the job's name too; a step's id, or a stranger's run, is no job of ours."""
    parent = world.client.create_run(world.experiment, tags={tracking.ORIGIN_TAG: "sb-p"}).info.run_id
    child_tags = {tracking.JOB_TAG: parent, tracking.ORIGIN_TAG: "sb-p", "mlflow.parentRunId": parent}
    child = world.client.create_run(world.experiment, tags=child_tags).info.run_id
    stranger = world.client.create_run(world.experiment).info.run_id

    def found(job: str) -> str | None:
        run = tracking.job_run(world.client, world.experiment, job)
        return run.info.run_id if run else None

    assert found(parent) == parent
    assert found(child) is None
    assert found(stranger) is None
    assert found("no-such-run") is None


def test_a_record_that_cannot_be_read_is_refused(world: World) -> None:
    """A record that is gone or no JSON is no record."""
    world.train("a", 0.9)
    world.client.log_text(world.runs["a"], "{", gate.RECORD)
    assert "no readable artifact decision.json" in refused(world, "a")
    assert admission.champion(world.client, world.model) is None
