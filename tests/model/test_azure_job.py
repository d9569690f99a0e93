"""The job that goes to Azure, as azure-ai-ml understands it offline: components, environment, pipeline, sizes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlops import environment, pipeline, settings
from mlops.deployment.endpoints import Candidate
from mlops.report import Fault

with warnings.catch_warnings():
    # azure-ai-ml warns of what marshmallow 4 will take away; its own business.
    warnings.simplefilter("ignore")
    from azure.ai.ml import (
        load_component,
        load_compute,
        load_environment,
        load_job,
        load_online_deployment,
        load_online_endpoint,
        load_workspace,
    )
    from azure.ai.ml.exceptions import ValidationException
    from mlops.azure import job as azure_job, serving as azure_serving, workspace as azure_workspace

pytestmark = pytest.mark.filterwarnings("ignore:The `context` parameter")

ENVIRONMENT = "azureml:signalbox-train:1"
SUBSCRIPTION = "00000000-0000-0000-0000-00000000000a"
JOB = environment.read(
    {
        "ORIGIN": "sb-aaaabbbbccccddddeeee",
        "FOLDER": "digits",
        "JOB_NAME": "train-sb-aaaabbbbccccddddeeee-1",
        "MANIFEST_SHA256": "a" * 64,
        "GITHUB_SHA": "c" * 40,
        "GITHUB_RUN_ID": "42",
    }
)
SWEEP = {
    "sampling": "random",
    "parameters": {
        "support_vectors__C": {"type": "loguniform", "min_value": -3, "max_value": 3},
        "support_vectors__kernel": {"type": "choice", "values": ["rbf", "linear"]},
    },
    "metric": "cv_accuracy",
    "goal": "maximize",
    "max_total_trials": 8,
    "early_termination": {"type": "bandit", "slack_factor": 0.1, "evaluation_interval": 2},
}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the files that go to Azure with a job."""
    return azure_job.stage(tmp_path_factory.mktemp("staged"))


def with_settings(part: str, **values: Any) -> settings.Settings:
    """Return the project's settings with other values in one file."""
    loaded = settings.load()
    return replace(loaded, **{part: {**getattr(loaded, part), **values}})


@pytest.fixture
def built(staged: Path) -> Callable[..., Any]:
    """Build the pipeline job from settings."""

    def build(configuration: settings.Settings | None = None) -> Any:
        wanted = configuration or settings.load()
        made = azure_job.components(staged, wanted, ENVIRONMENT)
        return azure_job.training_job(JOB, wanted, "cpu-cluster", made)

    return build


def node(job: Any, name: str) -> Mapping[str, Any]:
    """Return a node of the job as it is sent."""
    sent: Mapping[str, Any] = job._to_rest_object().properties.jobs[name]
    return sent


def test_the_pipeline_job_validates_and_carries_its_origin(built: Callable[..., Any]) -> None:
    """azure-ai-ml accepts the job; its name and tags hold the origin, which RunCompleted brings back."""
    job = built()
    assert job._validate().passed
    sent = job._to_rest_object()
    assert job.name == JOB.job
    assert sent.properties.tags["signalbox_origin"] == JOB.origin
    assert sent.properties.tags["signalbox_job"] == JOB.job
    assert all("." not in tag for tag in sent.properties.tags)
    assert sent.properties.experiment_name == "signalbox"
    assert sent.properties.job_type == "Pipeline"
    assert list(sent.properties.jobs) == [step.name for step in pipeline.STEPS]


def test_every_step_reads_what_earlier_steps_wrote(built: Callable[..., Any]) -> None:
    """The folders of the step list are wired from output to input, and the scripts exist."""
    job = built()
    for step in pipeline.STEPS:
        found = job.jobs[step.name]
        assert (Path(settings.ROOT) / step.script).is_file()
        assert set(found.inputs) == set(step.inputs)
        assert set(found.outputs) == set(step.outputs)
        assert found.environment_variables["ORIGIN"] == JOB.origin


def test_a_component_for_each_step_loads_from_its_own_yaml(staged: Path, tmp_path: Path) -> None:
    """What is registered can be written to YAML and read again by azure-ai-ml's own schema."""
    for step, component in azure_job.components(staged, settings.load(), ENVIRONMENT).items():
        assert component._validate().passed
        assert step in component.command
        assert component.is_deterministic is False  # else Azure ML may answer with an earlier job's data
        component.dump(tmp_path / f"{step}.yml")
        again = load_component(tmp_path / f"{step}.yml")
        assert (again.name, again.version) == (component.name, component.version)


def test_every_definition_loads_from_its_own_yaml(built: Callable[..., Any], staged: Path, tmp_path: Path) -> None:
    """From job to deployment, each is written to YAML and read by azure-ai-ml's own loader; a bad one is refused."""
    loaded = settings.load()
    tags = {"model": "signalbox-digits:3"}
    candidate = Candidate("e", "model-v3", staged, staged, "score.py", tags, loaded.deploy["production"].options)
    cluster = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/k"
    definitions: list[tuple[Any, Any]] = [
        (built(), load_job),
        (azure_workspace.cluster(loaded.compute, "cpu", SUBSCRIPTION), load_compute),
        (azure_workspace.kubernetes({**loaded.compute, "resource_id": cluster}, "k8s"), load_compute),
        (azure_workspace.workspace({**loaded.workspace, "location": "westeurope"}), load_workspace),
        (azure_job.environment("e", settings.ROOT / "code/train/environment.yml"), load_environment),
        (azure_serving.endpoint("signalbox-digits", {}), load_online_endpoint),
        (azure_serving.deployment(candidate, ENVIRONMENT), load_online_deployment),
    ]
    for number, (made, load) in enumerate(definitions):
        file = tmp_path / f"{number}.yml"
        file.write_text(yaml.safe_dump(json.loads(json.dumps(made._to_dict()))))
        assert (type(load(file)), load(file).name) == (type(made), made.name)
    bad = tmp_path / "bad.yml"
    bad.write_text("name: model-v3\nendpoint_name: e\ninstance_count: many\n")
    with pytest.raises(Exception, match="instance_count"):
        load_online_deployment(bad)


def test_a_component_that_is_none_is_refused(tmp_path: Path) -> None:
    """azure-ai-ml's validation sees a command that uses an input which the component has not."""
    bad = tmp_path / "bad.yml"
    bad.write_text(
        "type: command\nname: bad\nversion: '1'\ncommand: python x.py ${{inputs.gone}}\nenvironment: azureml:e:1\n"
    )
    with pytest.raises(ValidationException, match=r"gone"):
        load_component(bad)._validate(raise_error=True)


def test_a_component_version_is_the_digest_of_what_is_in_it(staged: Path, tmp_path: Path) -> None:
    """The same code gives the same version, another byte another one, and so does another environment."""
    copied = azure_job.stage(tmp_path)

    def versions(folder: Path, used: str = ENVIRONMENT) -> dict[str, str]:
        made = azure_job.components(folder, settings.load(), used)
        return {name: str(component.version) for name, component in made.items()}

    first = versions(staged)
    assert versions(copied) == first
    assert len(set(first.values())) == len(first)
    assert not set(versions(staged, "azureml:signalbox-train:2").values()) & set(first.values())
    (copied / "code/train/train.py").write_text("pass\n")
    assert not set(versions(copied).values()) & set(first.values())


@pytest.mark.parametrize(
    ("variables", "identity"),
    [
        ({}, ""),
        ({"AZURE_CLIENT_ID": "own"}, "own"),
        ({"DEFAULT_IDENTITY_CLIENT_ID": "cluster"}, "cluster"),
        ({"DEFAULT_IDENTITY_CLIENT_ID": "cluster", "AZURE_CLIENT_ID": "own"}, "cluster"),
    ],
)
def test_a_step_is_the_clusters_identity(staged: Path, variables: dict[str, str], identity: str) -> None:
    """In a real shell the command hands the cluster's client id to azure-identity, and without one changes nothing."""
    command = azure_job.components(staged, settings.load(), ENVIRONMENT)["check"].command
    before, _, _ = command.partition("python ")
    done = subprocess.run(
        ["sh", "-c", before + "printenv AZURE_CLIENT_ID"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == identity


def test_only_code_and_settings_go_to_azure(staged: Path) -> None:
    """No cache, no local stand-in, nothing of the function app and no secret file is uploaded with a job."""
    assert sorted(path.name for path in staged.iterdir()) == [".cloud", "code"]
    assert not list(staged.rglob("__pycache__"))
    assert (staged / ".cloud/.azure/run.json").is_file()


def test_the_environment_is_versioned_by_its_content(tmp_path: Path) -> None:
    """The conda file decides the version; azure-ai-ml reads it."""
    file = tmp_path / "environment.yml"
    file.write_text("name: x\ndependencies: [python=3.11]\n")
    first = azure_job.environment("signalbox-train", file)
    assert first._to_rest_object().properties.image == azure_job.IMAGE
    file.write_text("name: x\ndependencies: [python=3.12]\n")
    assert azure_job.environment("signalbox-train", file).version != first.version


def test_a_sweep_searches_and_hands_on_the_best_trial(built: Callable[..., Any]) -> None:
    """run.json's sweep makes the train step a sweep node; evaluate reads the sweep's model."""
    job = built(with_settings("run", sweep=SWEEP))
    assert job._validate().passed
    sent = node(job, "train")
    assert sent["type"] == "sweep"
    assert sent["search_space"] == SWEEP["parameters"]
    assert sent["objective"] == {"goal": "maximize", "primary_metric": "cv_accuracy"}
    assert sent["limits"]["max_total_trials"] == 8
    assert dict(sent["early_termination"])["policy_type"] == "Bandit"
    assert node(job, "evaluate")["inputs"]["model"]["value"] == "${{parent.jobs.train.outputs.model}}"
    assert node(job, "check")["type"] == "command"


def test_the_train_step_takes_what_a_sweep_sends(staged: Path) -> None:
    """The component's inputs have the types of the search space, and its command is one that train.py reads."""
    from train import train

    component = azure_job.components(staged, with_settings("run", sweep=SWEEP), ENVIRONMENT)["train"]
    names = list(SWEEP["parameters"])
    assert [component.inputs[name].type for name in names] == ["number", "string"]
    written = re.findall(r'--parameter "([^"]*)"', component.command)
    trial = dict(zip(names, ["2.5", "linear"], strict=True))
    sent = [re.sub(r"\$\{\{inputs\.(\w+)\}\}", lambda found: trial[found[1]], one) for one in written]
    taken = train.parameters_of(sent, settings.load_data_set("digits"))
    assert taken == {"support_vectors": {"C": 2.5, "kernel": "linear"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": {"C": {"type": "guess"}}}, "sweep.parameters.C.type is 'guess'"),
        ({"parameters": {"C": {"type": "uniform", "lowest": 1}}}, "sweep.parameters.C is no uniform"),
        ({"early_termination": {"type": "luck"}}, "sweep.early_termination.type is 'luck'"),
    ],
)
def test_a_sweep_that_cannot_be_one_is_refused(built: Callable[..., Any], change: dict[str, Any], words: str) -> None:
    """A search space that azure-ai-ml does not know is answered with the key in run.json."""
    with pytest.raises(Fault, match=words):
        built(with_settings("run", sweep={**SWEEP, **change}))


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("pytorch", {"distribution_type": "PyTorch", "process_count_per_instance": 2}),
        ("mpi", {"distribution_type": "Mpi", "process_count_per_instance": 2}),
        ("tensorflow", {"distribution_type": "TensorFlow", "worker_count": 6}),
    ],
)
def test_training_can_be_distributed(built: Callable[..., Any], kind: str, sent: dict[str, Any]) -> None:
    """run.json's distribution gives the train step, and no other, its machines and processes."""
    wanted = {"type": kind, "instances": 3, "processes_per_instance": 2}
    job = built(with_settings("run", distribution=wanted))
    assert job._validate().passed
    train = node(job, "train")
    assert sent.items() <= dict(train["distribution"]).items()
    assert train["resources"]["instance_count"] == 3
    assert "distribution" not in node(job, "check")


def test_a_step_runs_no_longer_than_settings_say(built: Callable[..., Any]) -> None:
    """max_run_duration_seconds limits every step; a Kubernetes instance type is asked for by name."""
    job = built(with_settings("run", max_run_duration_seconds=900))
    assert all(node(job, step.name)["limits"]["timeout"] == "PT15M" for step in pipeline.STEPS)
    sized = built(with_settings("compute", instance_type="cpu-small"))
    assert node(sized, "train")["resources"]["instance_type"] == "cpu-small"


def test_own_variables_reach_the_steps_but_hide_nothing(built: Callable[..., Any]) -> None:
    """environment_variables of run.json are handed on, except names that Signalbox sets itself."""
    job = built(with_settings("run", environment_variables={"OWN": 1, "ORIGIN": "somebody"}))
    assert job.jobs["train"].environment_variables["OWN"] == "1"
    assert job.jobs["train"].environment_variables["ORIGIN"] == JOB.origin


def test_git_properties_come_from_the_workflow() -> None:
    """A runner's detached checkout says little, so the workflow's own variables do."""
    source = {"GITHUB_REPOSITORY": "o/r", "GITHUB_REF_NAME": "main", "GITHUB_SERVER_URL": "https://ghe.example"}
    found = azure_job.git_variables(JOB, source)
    assert found["AZUREML_GIT_COMMIT"] == JOB.commit
    assert found["AZUREML_GIT_REPOSITORY_URI"] == "https://ghe.example/o/r"
    assert found["AZUREML_GIT_BUILD_URI"] == "https://ghe.example/o/r/actions/runs/42"
    assert "AZUREML_GIT_REPOSITORY_URI" not in azure_job.git_variables(JOB, {})


def test_the_cluster_comes_from_compute_json() -> None:
    """Size, priority, bounds, network and identity of the cluster are the settings' own."""
    identity = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"
    )
    wanted = with_settings(
        "compute",
        vm_priority="lowpriority",
        vnet_resource_group_name="net",
        vnet_name="v",
        subnet_name="s",
        identity_type="UserAssigned",
        identity_id=identity,
    )
    made = azure_workspace.cluster(wanted.compute, "cpu-cluster", SUBSCRIPTION)
    made.location = "westeurope"
    made._set_full_subnet_name(SUBSCRIPTION, "signalbox")
    sent = made._to_rest_object()
    inner = sent.properties.properties
    assert (inner.vm_size, inner.vm_priority) == ("Standard_DS3_v2", "LowPriority")
    assert (inner.scale_settings.min_node_count, inner.scale_settings.max_node_count) == (0, 2)
    assert inner.subnet.id.endswith("/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v/subnets/s")
    assert list(sent.identity.user_assigned_identities) == [identity]


def test_a_kubernetes_cluster_is_attached() -> None:
    """compute_type kubernetes attaches the AKS cluster that resource_id names."""
    cluster = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/k"
    wanted = with_settings("compute", compute_type="kubernetes", resource_id=cluster, namespace="ml")
    sent = azure_workspace.kubernetes(wanted.compute, "k8s")._to_rest_object()
    assert (sent.properties.compute_type, sent.properties.resource_id) == ("Kubernetes", cluster)
    assert sent.properties.properties.namespace == "ml"
