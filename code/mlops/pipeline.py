"""The steps of a training job, once for both backends, and the names that let its events find their way back."""

from __future__ import annotations

from dataclasses import dataclass

from mlops.environment import JobEnvironment


@dataclass(frozen=True, slots=True)
class Step:
    """One script; it is called with `--<folder> PATH` for each folder that it reads or writes."""

    name: str
    script: str
    """Path from the project's root."""
    inputs: tuple[str, ...]
    """Folders that earlier steps wrote."""
    outputs: tuple[str, ...]
    """Folders that this step writes."""


STEPS = (
    Step("check", "code/check/check.py", (), ("data",)),
    Step("train", "code/train/train.py", ("data",), ("model",)),
    Step("evaluate", "code/evaluate/evaluate.py", ("data", "model"), ("decision",)),
    Step("register", "code/register/register.py", ("data", "model", "decision"), ()),
)


def job_name(origin: str, attempt: int) -> str:
    """Return the job's name; in Azure ML v2 a job's name is its runId, so every event carries the origin."""
    return f"train-{origin}-{attempt}"


def job_tags(job: JobEnvironment, extra: dict[str, object]) -> dict[str, str]:
    """Return the tags of a job. `signalbox_origin` is what the deploying route asks for."""
    return {
        **{str(key): str(value) for key, value in extra.items()},
        "signalbox_origin": job.origin,
        "signalbox_job": job.job,
        "data_set": job.folder,
        "manifest_sha256": job.manifest_sha256,
        "git_commit": job.commit,
        "workflow_run": job.workflow_run,
    }
