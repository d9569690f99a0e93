"""deploy_model.yml and rollback.yml: the order of the stages, who may pass, and what a cancelled run leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def jobs(name: str) -> dict[str, Any]:
    """Return a workflow's jobs by id."""
    document = yaml.safe_load((ROOT / ".github/workflows" / name).read_text(encoding="utf-8"))
    found: dict[str, Any] = document["jobs"]
    return found


def test_no_stage_is_left_out() -> None:
    """Each stage waits for the one before, in its own environment, and calls deploy.py for itself."""
    stages = jobs("deploy_model.yml")
    assert list(stages) == ["force", "dev", "test", "production"]
    for name, before in (("dev", "force"), ("test", "dev"), ("production", "test")):
        job = stages[name]
        assert before in job["needs"]
        assert job["environment"] == name
        scripts = [step["run"] for step in job["steps"] if "deploy.py" in step.get("run", "")]
        # Without `exec` the shell gets GitHub's signal, and the traffic of a cancelled run stays where it is.
        assert scripts == [f"exec python code/deploy/deploy.py --stage {name}"]
        assert "!failure()" in job["if"]


def test_a_kept_champion_asks_nobody_for_approval() -> None:
    """Later stages start only where the first one had something to deploy."""
    stages = jobs("deploy_model.yml")
    for name in ("test", "production"):
        assert "needs.dev.outputs.deploy == 'true'" in stages[name]["if"]


def test_each_job_is_bounded_and_has_the_least_rights() -> None:
    """A time-out, reading the repository, and a token for Azure: nothing more."""
    for job in (*jobs("deploy_model.yml").values(), *jobs("rollback.yml").values()):
        assert 0 < job["timeout-minutes"] <= 180
        assert job["permissions"] == {"contents": "read", "id-token": "write"}


def test_one_rollout_at_a_time_and_a_rollback_at_any() -> None:
    """Production has a group per data set that ends nobody; the rollback waits for no rollout, and needs approval."""
    group = jobs("deploy_model.yml")["production"]["concurrency"]
    assert group == {"group": "production-${{ needs.dev.outputs.data_set }}", "cancel-in-progress": False}
    rollback = jobs("rollback.yml")["rollback"]
    assert rollback["environment"] == "production"
    assert "concurrency" not in rollback


def test_a_force_needs_a_reason_and_gives_the_actors_name() -> None:
    """Nobody is forced past the gate without a reason, and nobody forces under another's name."""
    force = jobs("deploy_model.yml")["force"]
    assert force["if"] == "inputs.force_reason != ''"
    environment = force["steps"][-1]["env"]
    assert environment["FORCED_BY"] == "${{ github.actor }}"
    assert environment["FORCE_REASON"] == "${{ inputs.force_reason }}"
