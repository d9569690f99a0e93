"""The job that goes to Azure loads and validates offline, and its names find their way back."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from mlops import environment, pipeline, settings
from mlops.report import Fault

with warnings.catch_warnings():
    # azure-ai-ml warns of what marshmallow 4 will take away; its own business.
    warnings.simplefilter("ignore")
    from mlops import azure_backend

pytestmark = pytest.mark.filterwarnings("ignore:The `context` parameter")

JOB = environment.read(
    {
        "ORIGIN": "sb-aaaabbbbccccddddeeee",
        "FOLDER": "digits",
        "JOB_NAME": "train-sb-aaaabbbbccccddddeeee-1",
        "MANIFEST_SHA256": "a" * 64,
        "GITHUB_SHA": "c" * 40,
    }
)


def test_the_pipeline_job_validates_and_carries_its_origin() -> None:
    """azure-ai-ml accepts the job; its name and tags hold the origin, which RunCompleted brings back."""
    job = azure_backend.training_job(JOB, settings.load(), "cpu-cluster")
    assert job._validate().passed
    sent = job._to_rest_object()
    assert job.name == JOB.job
    assert sent.properties.tags["signalbox_origin"] == JOB.origin
    assert sent.properties.experiment_name == "signalbox"
    assert sent.properties.job_type == "Pipeline"
    assert list(sent.properties.jobs) == [step.name for step in pipeline.STEPS]


def test_every_step_reads_what_earlier_steps_wrote() -> None:
    """The folders of the step list are wired from output to input, and the scripts exist."""
    job = azure_backend.training_job(JOB, settings.load(), "cpu-cluster")
    for step in pipeline.STEPS:
        node = job.jobs[step.name]
        assert (Path(settings.ROOT) / step.script).is_file()
        assert set(node.inputs) == set(step.inputs)
        assert set(node.outputs) == set(step.outputs)
        assert node.environment_variables["ORIGIN"] == JOB.origin


def test_the_cluster_comes_from_compute_json() -> None:
    """Size, priority and bounds of the cluster are the settings' own."""
    made = azure_backend.cluster(settings.load(), "cpu-cluster")
    assert (made.name, made.size, made.min_instances, made.max_instances) == (
        "cpu-cluster",
        "Standard_DS3_v2",
        0,
        2,
    )


def test_a_compute_that_cannot_train_is_refused() -> None:
    """An AKS cluster in compute.json is answered with what training needs."""
    loaded = settings.load()
    wrong = replace(loaded, compute={**loaded.compute, "compute_type": "akscluster"})
    with pytest.raises(Fault, match="amlcluster"):
        azure_backend.cluster(wrong, "x")
