"""The rules of a rollout that need no server: when a deployment is unfit, and which settings make sense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from mlops import settings
from mlops.deployment import watch
from mlops.deployment.deploy_settings import STAGES, Limits
from mlops.deployment.endpoints import Observed
from mlops.report import Fault

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(error_share=0.1, p95_ms=100.0, requests=20)

counts = st.integers(0, 500)
times = st.none() | st.floats(0, 1000)


def observed() -> st.SearchStrategy[Observed]:
    """Draw what users got: never more failures than requests."""
    return st.tuples(counts, st.floats(0, 1), times).map(
        lambda drawn: Observed(drawn[0], int(drawn[0] * drawn[1]), drawn[2])
    )


@given(observed(), st.lists(st.floats(0, 99), min_size=1), st.integers(0, 9))
def test_enough_users_or_any_probe_can_stop_a_rollout(users: Observed, answered: list[float], failed: int) -> None:
    """A broken limit is told if, and only if, enough users met it or too many failed, or our own probes did."""
    probes = watch.Probes(len(answered) + failed, failed, answered, "why")
    bad = 10 * users.failed > max(users.requests, LIMITS.requests)
    bad = bad or (users.requests >= LIMITS.requests and (users.p95_ms or 0) > 100)
    bad = bad or 10 * failed > probes.asked
    assert (watch.objection(users, probes, LIMITS) is not None) == bad


@given(st.lists(st.floats(101, 999), min_size=1))
def test_slow_probes_alone_stop_a_rollout(slow: list[float]) -> None:
    """Without any user, the probes' own time counts."""
    said = watch.objection(Observed(0, 0, None), watch.Probes(len(slow), 0, slow), LIMITS)
    assert said is not None
    assert "maximum_p95_ms is 100" in said


@pytest.mark.parametrize("percent", [7, 14, 28, 29, 55, 57, 58])
def test_the_share_itself_is_still_good(percent: int) -> None:
    """maximum_error_share must not be exceeded; as a product of floats, 29 of 100 would be more than 0.29."""
    limits, fine = Limits(percent / 100, 100.0, 20), watch.Probes(3, 0, [5.0])
    assert watch.objection(Observed(100, percent, None), fine, limits) is None
    assert watch.objection(Observed(100, percent + 1, None), fine, limits) is not None
    assert watch.objection(Observed(0, 0, None), watch.Probes(100, percent, [5.0]), limits) is None


def test_failures_that_no_further_request_could_make_good_count_at_once() -> None:
    """Nineteen failures of nineteen are too many, however the twentieth request ends; two of twenty would be good."""
    fine = watch.Probes(3, 0, [5.0])
    said = watch.objection(Observed(19, 19, None), fine, LIMITS)
    assert said == ("19 of 19 users' requests failed, and maximum_error_share is 0.1 of at least 20 (minimum_requests)")
    assert watch.objection(Observed(2, 2, None), fine, LIMITS) is None
    assert watch.objection(Observed(3, 3, None), fine, LIMITS) is not None


def test_few_users_prove_nothing() -> None:
    """Two failed requests of nineteen, and slow ones, do not decide; the line in the summary says that they did not."""
    few, fine = Observed(19, 2, 900.0), watch.Probes(3, 0, [5.0])
    assert watch.objection(few, fine, LIMITS) is None
    assert "too few to judge by" in str(watch.Watched(few, fine, LIMITS))
    assert "no user asked" in str(watch.Watched(Observed(0, 0, None), fine, LIMITS))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the settings that a test may spoil."""
    shutil.copytree(ROOT / ".cloud", tmp_path / ".cloud")
    return tmp_path


def write(project: Path, file: str, **values: object) -> None:
    """Change keys of a settings file, or make it."""
    path = project / ".cloud/.azure" / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **values}))


def test_a_stage_holds_only_what_differs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """deploy.json is everybody's; a stage's file changes that stage; deploy.local.json changes one machine."""
    monkeypatch.delenv("ENDPOINTS_URL", raising=False)
    write(project, "deploy.json", instance_type="Standard_F2s_v2", instance_count=3, soak_seconds=60)
    write(project, "deploy.test.json", instance_count=1, tags={"cost": "test"}, test_enabled=False)
    write(project, "deploy.local.json", soak_seconds=0)
    stages = settings.load(project).deploy
    assert {name: stages[name].options["instance_count"] for name in STAGES} == {"dev": 3, "test": 1, "production": 3}
    assert {stage.options["instance_type"] for stage in stages.values()} == {"Standard_F2s_v2"}
    assert "gpu_cores" not in stages["dev"].options
    assert stages["test"].tags == {"cost": "test"}
    assert stages["test"].user_test is None
    assert {name: stages[name].endpoint("iris") for name in STAGES} == {
        "dev": "signalbox-iris-dev",
        "test": "signalbox-iris-test",
        "production": "signalbox-iris",
    }
    assert {stage.soak_seconds for stage in stages.values()} == {60}
    monkeypatch.setenv("ENDPOINTS_URL", "http://127.0.0.1:1")
    assert {stage.soak_seconds for stage in settings.load(project).deploy.values()} == {0}


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("deploy.json", {"traffic_steps": [10, 50]}, "must be rising whole percents that end with 100"),
        ("deploy.json", {"traffic_steps": [50, 10, 100]}, "must be rising"),
        ("deploy.json", {"traffic_steps": []}, "must be rising"),
        ("deploy.json", {"traffic_steps": [True, 100]}, "must be rising"),
        ("deploy.test.json", {"mirror_percent": 60}, "mirror_percent must lie between 0 and 50"),
        ("deploy.json", {"mirror_percent": 5, "deployment_compute_target": "aks"}, "needs a managed endpoint"),
        ("deploy.json", {"soak_seconds": 99999}, "soak_seconds must lie between"),
        ("deploy.json", {"maximum_error_share": 5}, "is a share"),
        ("deploy.json", {"minimum_requests": 0}, "minimum_requests must be a number above 0"),
        ("deploy.json", {"name": "signalbox"}, "name must hold {dataset} once"),
        ("deploy.json", {"auth_mode": "none"}, "must be one of: key, aml_token, aad_token"),
        ("deploy.json", {"delete_service_after_deployment": True}, "is for deploy.dev.json and deploy.test.json"),
        ("deploy.dev.json", {"num_replicas": 2}, "'num_replicas' is not a setting any more: write instance_count"),
        ("deploy.dev.json", {"soak_second": 2}, "'soak_seconds' was probably meant"),
        ("deploy.local.json", {"soak_seconds": "1"}, "'soak_seconds' must be a JSON value of type number"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, file: str, values: dict[str, Any], words: str
) -> None:
    """Each is refused with its file, its key and the mend, for whatever stage it was written."""
    monkeypatch.setenv("ENDPOINTS_URL", "http://127.0.0.1:1")
    write(project, file, **values)
    with pytest.raises(Fault) as fault:
        settings.load(project)
    assert words in str(fault.value)
    assert file in str(fault.value)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("signalbox-{dataset}", "breast_cancer"), ("signalbox-{dataset}", "customers-of-the-n"), ("{dataset}", "7days")],
)
def test_a_data_set_that_no_endpoint_can_be_named_after_is_refused(project: Path, name: str, folder: str) -> None:
    """Azure would say so only after the training; the sentence names the stage, the rule and what to rename."""
    write(project, "deploy.json", name=name)
    stages = settings.load(project).deploy
    with pytest.raises(Fault, match=f"The endpoint of data set '{folder}' for stage test would .* 3 to 32 letters"):
        stages["test"].endpoint(folder)
