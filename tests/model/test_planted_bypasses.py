"""Each way round the gate, built into the code on purpose, is noticed by a test.

The list is that of what goes wrong in practice: a constant to beat, everything promoted "for now", no metric named, a
minimum compared the wrong way round, a flag that is read instead of the record, a record that is not held against
its model. Every entry says which test fails where somebody builds that in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlops import digest
from mlops.evaluation import gate, metrics, rules
from mlops.models import admission, registry, tracking
from mlops.settings import Settings

from tests.model import (
    memory_tracking,
    test_admission as admissions,
    test_forced_promotion as forcing,
    test_gate as gates,
    test_rules as todays,
    test_slices as slicing,
)
from tests.model.registry_world import World

# SQLAlchemy 2.1 warns of what MLflow still uses; MLflow's own business.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")

OUTCOME, OBJECTION, CHAMPION = gate.outcome, gate.objection, tracking.champion


def always(value: object) -> Callable[..., Any]:
    """Return a function that gives `value` whatever it is asked."""
    return lambda *_, **__: value


def believe_the_word(record: dict[str, Any], _job: str, _sha256: str) -> str | None:
    """Read the outcome that stands in the record, and nothing else."""
    return None if record["outcome"] in {gate.PROMOTED, gate.FORCED} else "no"


def any_job(record: dict[str, Any], _job: str, sha256: str) -> str | None:
    """Ask everything but whose record it is."""
    return OBJECTION(record, record["job"], sha256)


def any_files(record: dict[str, Any], job: str, _sha256: str) -> str | None:
    """Ask everything but for which files the record was made."""
    return OBJECTION(record, job, record["model_sha256"])


def compared_the_wrong_way(floor: gate.Floor, measured: float) -> bool:
    """Take a minimum for a maximum."""
    return measured <= floor.value if floor.larger_is_better else measured >= floor.value


def promote_all(*arguments: Any, **more: Any) -> tuple[str, str]:
    """Promote all for now."""
    return gate.PROMOTED, OUTCOME(*arguments, **more)[1]


def without_slices(*arguments: Any, **more: Any) -> tuple[str, str]:
    """Decide by the whole only."""
    return OUTCOME(*arguments, **{**more, "slices": ()})


def without_further_floors(rule: gate.Rule, *arguments: Any, **more: Any) -> tuple[str, str]:
    """Decide by the first floor only."""
    return OUTCOME(gate.Rule(rule.metric, rule.larger_is_better, rule.floor, rule.confidence), *arguments, **more)


def any_metric(configuration: Settings) -> tuple[str, bool]:
    """Take the first metric that there is, and accuracy where none is named."""
    named = [*configuration.model["metrics_max"], *configuration.model["metrics_min"], "accuracy"]
    return named[0], named[0] not in configuration.model["metrics_min"]


def by_the_tag(_client: object, _settings: object, version: Any, _job: str) -> Any:
    """Read the version's tag in the place of its record."""
    if version.tags.get("decision_outcome") not in {gate.PROMOTED, gate.FORCED}:
        raise admission.Fault("no")
    return tracking.model_folder(version)


def plain_floor(_file: str, _key: str, metric: metrics.Metric, value: Any) -> gate.Floor:
    """Take any floor."""
    return gate.Floor(metric.name, metric.larger_is_better, value)


PLANTED: dict[str, tuple[object, str, object, Callable[..., None], dict[str, Any]]] = {
    "promote all for now": (gate, "outcome", promote_all, gates.test_equal_models_keep_the_champion, {}),
    "a constant zero to beat": (
        rules,
        "_floor",
        plain_floor,
        todays.test_a_floor_that_every_model_passes_is_refused,
        {"larger": ["accuracy"], "smaller": [], "changes": {"floor": 0}, "words": "passes"},
    ),
    "no metric named": (
        Settings,
        "metric",
        any_metric,
        todays.test_a_metric_on_the_wrong_side_is_refused,
        {"larger": [], "smaller": [], "words": "exactly one"},
    ),
    "a minimum compared the wrong way": (
        gate.Floor,
        "passed_by",
        compared_the_wrong_way,
        gates.test_a_missed_floor_is_named,
        {},
    ),
    "further floors are not looked at": (
        gate,
        "outcome",
        without_further_floors,
        gates.test_a_missed_floor_is_named,
        {},
    ),
    "slices are not looked at": (gate, "outcome", without_slices, gates.test_a_kept_back_model_is_told_why, {}),
    "slices are never judged": (gate, "judged", always(False), slicing.test_small_slices_are_named_and_not_judged, {}),
    "the record's word is believed": (
        gate,
        "objection",
        believe_the_word,
        gates.test_an_edited_outcome_opens_nothing,
        {},
    ),
    "the flag that was read before is believed": (
        admission,
        "admit",
        by_the_tag,
        admissions.test_a_version_registered_by_hand_is_refused,
        {},
    ),
    "another job's record will do": (
        gate,
        "objection",
        any_job,
        admissions.test_a_version_registered_by_hand_is_refused,
        {},
    ),
    "another model's record will do": (
        gate,
        "objection",
        any_files,
        admissions.test_a_record_of_another_model_is_refused,
        {},
    ),
    "files may change after the evaluation": (
        digest,
        "of_folder",
        always("0" * 64),
        admissions.test_files_swapped_after_the_evaluation_are_refused,
        {},
    ),
    "records may change after the registration": (
        digest,
        "of_value",
        always("0" * 64),
        admissions.test_an_edited_record_is_found_out_by_its_digest,
        {},
    ),
    "the record's own rule will do": (
        gate,
        "outdated",
        always(False),
        admissions.test_a_record_under_a_rule_of_its_own_is_refused,
        {"change": {"floor": 0.0}},
    ),
    "yesterday's comparison will do": (
        gate,
        "stale",
        always(False),
        admissions.test_a_comparison_with_yesterdays_champion_is_stale,
        {},
    ),
    "whoever is marked is the champion": (
        admission,
        "champion",
        CHAMPION,
        admissions.test_a_champion_marked_by_hand_is_no_champion_to_beat,
        {},
    ),
    "every registration is a new version": (
        tracking,
        "version_of_job",
        always(None),
        admissions.test_registering_twice_makes_one_version,
        {},
    ),
    "registration does not ask": (
        registry.gate,
        "objection",
        always(None),
        admissions.test_the_word_promoted_opens_nothing,
        {},
    ),
    "a forced record needs nothing inside": (
        gate,
        "_gates_own",
        lambda record: {**record, "outcome": record["forced"]["outcome"], "reason": record["forced"]["outcome_reason"]},
        forcing.test_an_incomplete_or_edited_forced_record_is_damaged,
        {"record": forcing.forced(by="")},
    ),
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The store in memory is enough to see a test fail."""
    return World(memory_tracking.connect(tmp_path, monkeypatch), tmp_path, "m")


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bypass_fails_its_test(world: World, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """With the bug built in, the test that guards against it is red; without it, it is green."""
    module, name, replacement, guard, values = PLANTED[bug]
    wanted = set(guard.__code__.co_varnames[: guard.__code__.co_argcount])
    given = {
        **values,
        **{key: value for key, value in (("world", world), ("monkeypatch", monkeypatch)) if key in wanted},
    }
    monkeypatch.setattr(module, name, replacement)  # type: ignore[arg-type]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        guard(**given)
