"""workspace.json, compute.json and run.json: what may stand there, what goes together, and what became of old keys."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlops import settings
from mlops.azure import settings as azure_settings
from mlops.report import Fault

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/k"
SWEEP = {"sampling": "grid", "parameters": {}, "metric": "m", "goal": "maximize", "max_total_trials": 4}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the settings that a test may spoil."""
    shutil.copytree(ROOT / ".cloud", tmp_path / ".cloud")
    return tmp_path


def load(project: Path, file: str, **values: Any) -> settings.Settings:
    """Write values into a settings file, and read all of them."""
    path = project / ".cloud/.azure" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return settings.load(project)


def test_what_is_left_out_has_its_default(project: Path) -> None:
    """A file with nothing but the required keys is complete."""
    for name, file in azure_settings.FILES.items():
        path = project / ".cloud/.azure" / name
        kept = {key: value for key, value in json.loads(path.read_text()).items() if key in file.required}
        path.write_text(json.dumps(kept))
    loaded = settings.load(project)
    assert loaded.run["wait_for_completion"] is False
    assert loaded.compute["max_nodes"] == 2
    assert loaded.workspace["create_workspace"] is False


@pytest.mark.parametrize(
    ("file", "key"), [(name, key) for name, file in azure_settings.FILES.items() for key in sorted(file.replaced)]
)
def test_a_key_of_an_older_project_is_answered_with_what_took_its_place(project: Path, file: str, key: str) -> None:
    """Users of SDK v1 find their key named, and what to do instead."""
    with pytest.raises(Fault, match=f"{file}: '{key}' is not a setting any more: .{{20,}}"):
        load(project, file, **{key: True})


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("compute.json", {"compute_type": "akscluster"}, "compute_type 'kubernetes'"),
        ("compute.json", {"compute_type": "cluster"}, "must be one of: amlcluster, kubernetes"),
        ("compute.json", {"compute_type": "kubernetes"}, "needs resource_id"),
        ("compute.json", {"vm_priority": "cheap"}, "vm_priority is 'cheap'"),
        ("compute.json", {"min_nodes": 3}, "min_nodes"),
        ("compute.json", {"vnet_name": "v"}, "vnet_name and subnet_name belong together"),
        ("compute.json", {"vnet_resource_group_name": "g"}, "vnet_name and subnet_name are not set"),
        ("compute.json", {"identity_type": "UserAssigned"}, "identity_id"),
        ("compute.json", {"identity_id": "/x"}, "identity_type 'UserAssigned'"),
        ("compute.json", {"identity_type": "Managed"}, "identity_type is 'Managed'"),
        ("workspace.json", {"create_workspace": True}, "create_workspace needs location"),
        ("workspace.json", {"cmk_key_vault": "/kv"}, "resource_cmk_uri"),
        ("run.json", {"wait_for_completion": "yes"}, "'wait_for_completion' must be a JSON value of type bool"),
        ("run.json", {"max_run_duration_seconds": -1}, "must not be negative"),
        ("run.json", {"sweep": {"sampling": "grid"}}, "sweep needs the setting 'parameters'"),
        ("run.json", {"sweep": {**SWEEP, "sampling": "luck"}}, "sampling is 'luck'"),
        ("run.json", {"sweep": {**SWEEP, "goal": "win"}}, "goal is 'win'"),
        ("run.json", {"sweep": {**SWEEP, "max_total_trials": True}}, "'max_total_trials' in sweep"),
        ("run.json", {"sweep": {**SWEEP, "trials": 3}}, "sweep has no setting 'trials'"),
        ("run.json", {"distribution": {"type": "gloo", "instances": 2}}, "type is 'gloo'"),
        ("run.json", {"distribution": {"type": "mpi"}}, "distribution needs the setting 'instances'"),
        ("run.json", {"sweep": SWEEP, "distribution": {"type": "mpi", "instances": 2}}, "exclude each other"),
    ],
)
def test_values_that_cannot_work_are_refused(project: Path, file: str, values: dict[str, Any], words: str) -> None:
    """A mistake is found when settings are read, on one machine too, with the file and the key."""
    with pytest.raises(Fault, match=words) as fault:
        load(project, file, **values)
    assert file in str(fault.value)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("compute.json", {"compute_type": "kubernetes", "resource_id": CLUSTER, "namespace": "ml"}),
        ("compute.json", {"vm_priority": "lowpriority", "identity_type": "SystemAssigned"}),
        ("compute.json", {"vnet_name": "v", "subnet_name": "s", "vnet_resource_group_name": "g"}),
        ("workspace.json", {"create_workspace": True, "location": "westeurope", "hbi_workspace": True}),
        ("run.json", {"sweep": {**SWEEP, "timeout_seconds": 60}}),
        ("run.json", {"distribution": {"type": "pytorch", "instances": 2, "processes_per_instance": 4}}),
    ],
)
def test_values_that_go_together_are_taken(project: Path, file: str, values: dict[str, Any]) -> None:
    """What the documentation offers loads."""
    assert load(project, file, **values)


def test_every_key_is_documented() -> None:
    """docs/model-settings.md names each key of these files, and each that was replaced."""
    text = (ROOT / "docs/model-settings.md").read_text(encoding="utf-8")
    for name, file in azure_settings.FILES.items():
        section = re.split(r"\n##+ ", text.split(f"\n### `{name}`\n")[1])[0]
        for key in (*file.kinds, *file.replaced):
            assert f"`{key}`" in section, f"{name}: {key}"
