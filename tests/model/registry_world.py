"""A tracking store and registry of real MLflow, with jobs whose models are a file and whose numbers a test chooses."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlops import digest, settings
from mlops.evaluation import gate, rules
from mlops.models import admission, registry, tracking
from register import force

DATA_SET = "iris"
BETTER, SAME = (0.02, 0.08), (-0.03, 0.04)
"""Intervals of the gain: one that shows a better challenger, and one that shows nothing."""


@dataclass
class World:
    """One model name and one experiment of the store, so that tests share its start and nothing else."""

    client: MlflowClient
    folder: Path
    name: str

    def __post_init__(self) -> None:
        loaded = settings.load()
        self.configuration = replace(
            loaded,
            model={**loaded.model, "model_name": f"{self.name}-{{dataset}}"},
            run={**loaded.run, "experiment_name": self.name},
        )
        self.model = self.configuration.model_name(DATA_SET)
        self.rule = rules.today(self.configuration, settings.load_data_set(DATA_SET))
        self.experiment = tracking.experiment_id(self.client, self.name)
        self.runs: dict[str, str] = {}

    def files(self, job: str, content: str) -> Path:
        """Write a model folder."""
        folder = self.folder / f"{self.name}-{job}" / "model"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "MLmodel").write_text(content)
        return folder

    def evaluate(
        self,
        job: str,
        value: float,
        interval: tuple[float, float] = BETTER,
        *,
        rule: gate.Rule | None = None,
        content: str = "",
    ) -> dict[str, Any]:
        """Log what the steps before registration log: a model, its record, and the tags of both."""
        rule, folder = rule or self.rule, self.files(job, content or f"the model of {job}")
        serving = admission.champion(self.client, self.model)
        champion = None
        if serving is not None:
            sha256 = digest.of_folder(tracking.model_folder(serving))
            champion = gate.Measured(sha256, value - 0.05, str(serving.version), {rule.metric: value - 0.05})
        metrics = {rule.metric: value, **{floor.metric: floor.value for floor in rule.floors}}
        record = gate.decide(
            rule,
            gate.Circumstances(job, f"sb-{job}", "5" * 64, 40, DATA_SET),
            gate.Measured(digest.of_folder(folder), value, metrics=metrics),
            champion,
            interval if champion else None,
        )
        tags = {tracking.JOB_TAG: job, tracking.ORIGIN_TAG: f"sb-{job}", "data_set": DATA_SET, "git_commit": "c" * 40}
        tags["decision_sha256"] = digest.of_value(record)
        run = self.client.create_run(self.experiment, tags=tags, run_name=job).info.run_id
        tracking.log_model(self.client, run, folder)
        tracking.store_json(self.client, run, gate.RECORD, record)
        self.runs[job] = run
        return record

    def register(self, job: str) -> ModelVersion:
        """Do what the step register.py does with what the evaluation handed over."""
        record, lineage = self.record(job), {tracking.ORIGIN_TAG: f"sb-{job}"}
        model = self.folder / f"{self.name}-{job}" / "model"
        return registry.promote(
            self.client, self.configuration, record, model=model, run_id=self.runs[job], lineage=lineage
        )

    def register_folder(self, job: str, folder: Path) -> ModelVersion:
        """Register what the real steps wrote into `folder` (model/ and decision/)."""
        record = json.loads((folder / "decision" / gate.RECORD).read_text())
        model = folder / "model"
        return registry.promote(self.client, self.configuration, record, model=model, run_id=self.runs[job], lineage={})

    def train(self, job: str, value: float, interval: tuple[float, float] = BETTER, **more: Any) -> dict[str, Any]:
        """Evaluate, and register what was promoted."""
        record = self.evaluate(job, value, interval, **more)
        if record["outcome"] == gate.PROMOTED:
            self.register(job)
        return record

    def force(self, job: str, by: str = "Ada", reason: str = "the old one is broken") -> ModelVersion:
        """Force the job's model."""
        return force.force(self.client, self.configuration, job, by, reason)

    def version(self, job: str) -> ModelVersion | None:
        """Return the job's version, as a deployment chooses it."""
        found = tracking.version_of_job(self.client, self.model, job)
        return None if found is None else self.client.get_model_version(found.name, found.version)

    def deploy(self, job: str) -> Path:
        """Do what a deployment does without an endpoint: ask, then make it the champion. Returns what goes out."""
        version = self.version(job)
        assert version is not None
        folder = admission.admit(self.client, self.configuration, version, job)
        tracking.make_champion(self.client, version)
        return folder

    def champion(self) -> str:
        """Return the job of the champion, or an empty text."""
        serving = tracking.champion(self.client, self.model)
        return serving.tags.get(tracking.JOB_TAG, "by hand") if serving else ""

    def record(self, job: str) -> dict[str, Any]:
        """Read the record as it is stored with the job's run."""
        found: dict[str, Any] = tracking.read_json(self.runs[job], gate.RECORD)
        return found

    def overwrite(self, job: str, record: dict[str, Any], *, sign: bool) -> None:
        """Put another record in the place of the job's, and with `sign` its digest into every tag that holds one."""
        version = self.version(job)
        run = version.run_id if version else self.runs[job]
        self.client.log_text(run, json.dumps(record), gate.RECORD)
        if sign and version:
            sha256 = digest.of_value(record)
            self.client.set_model_version_tag(version.name, version.version, registry.DECISION_TAG, sha256)

    def by_hand(self, job: str, content: str, **tags: str) -> ModelVersion:
        """Register a version by hand, as the registry's own page lets anyone do."""
        with contextlib.suppress(MlflowException):  # it may be there already
            self.client.create_registered_model(self.model)
        folder = self.files(f"hand-{job}", content)
        return self.client.create_model_version(
            self.model,
            source=folder.as_uri(),
            run_id=self.runs.get(job),
            tags={tracking.JOB_TAG: job, "data_set": DATA_SET, "decision_outcome": gate.PROMOTED, **tags},
        )
