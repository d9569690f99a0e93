"""MLflow's tracking store and registry in memory, for the calls that the model side makes: fast, files on disk.

The tests of admission and of forced promotions run over this and over MLflow itself, which is what makes it a stand-in.
"""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS
from mlops.models import tracking

_TAG = re.compile(r"tags\.(\w+) = '([^']*)'")
_NAME = re.compile(r"name = '([^']*)'")


class Page(list[Any]):
    """A page of search results; there is never a second one."""

    token = ""


class MemoryTracking:
    """The part of `MlflowClient` that the model side uses."""

    def __init__(self, folder: Path) -> None:
        """Artifacts lie below `folder`."""
        self._folder, self._number = folder, itertools.count(1)
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, Any] = {}
        self._models: dict[str, dict[int, Any]] = {}
        self._made: dict[str, int] = {}

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self._experiments[name]) if name in self._experiments else None

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        del artifact_location
        return self._experiments.setdefault(name, str(len(self._experiments) + 1))

    def create_run(self, experiment: str, tags: dict[str, str] | None = None, run_name: str = "") -> Any:
        run_id = f"{next(self._number):032x}"
        where = (self._folder / "runs" / run_id).as_uri()
        info = SimpleNamespace(run_id=run_id, experiment_id=experiment, run_name=run_name, artifact_uri=where)
        Path(self._path(run_id)).mkdir(parents=True)
        self._runs[run_id] = SimpleNamespace(info=info, data=SimpleNamespace(tags=dict(tags or {})))
        return self._runs[run_id]

    def get_run(self, run_id: str) -> Any:
        if run_id not in self._runs:
            raise MlflowException(f"Run '{run_id}' not found")
        return self._runs[run_id]

    def search_runs(self, experiments: list[str], wanted: str) -> Page:
        found = _TAG.fullmatch(wanted)
        assert found is not None
        name, value = found.groups()
        runs = [run for run in self._runs.values() if run.info.experiment_id in experiments]
        return Page(run for run in reversed(runs) if run.data.tags.get(name) == value)

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        self.get_run(run_id).data.tags[name] = value

    def set_terminated(self, run_id: str, status: str) -> None:
        self.get_run(run_id).info.status = status

    def list_artifacts(self, run_id: str, path: str = "") -> list[Any]:
        folder = self._path(run_id) / path
        return (
            [SimpleNamespace(path=str(Path(path) / one.name), is_dir=one.is_dir()) for one in folder.iterdir()]
            if (folder.is_dir())
            else []
        )

    def log_artifacts(self, run_id: str, folder: str, path: str) -> None:
        shutil.copytree(folder, self._path(run_id) / path, dirs_exist_ok=True)

    def log_text(self, run_id: str, text: str, path: str) -> None:
        (self._path(run_id) / path).write_text(text)

    def download_artifacts(self, run_id: str, path: str, into: str) -> str:
        return str(shutil.copy(self._path(run_id) / path, into))

    def create_registered_model(self, name: str, description: str = "") -> None:
        del description
        if name in self._models:
            raise MlflowException(f"Registered Model (name={name}) already exists.", RESOURCE_ALREADY_EXISTS)
        self._models[name] = {}

    def search_model_versions(self, wanted: str, page_token: str | None = None) -> Page:
        found = _NAME.fullmatch(wanted)
        assert found is not None
        assert not page_token
        return Page(self._models.get(found[1], {}).values())

    def create_model_version(self, name: str, source: str, run_id: str | None = None, tags: Any = None) -> Any:
        number = self._made[name] = self._made.get(name, 0) + 1
        made = SimpleNamespace(name=name, version=number, source=source, run_id=run_id, tags=dict(tags or {}))
        self._models[name][number] = made
        return made

    def get_model_version(self, name: str, version: str) -> Any:
        return self._models[name][int(version)]

    def delete_model_version(self, name: str, version: str) -> None:
        del self._models[name][int(version)]

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self._models[name][int(version)].tags[key] = value

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        del self._models[name][int(version)].tags[key]

    def load_text(self, uri: str) -> str:
        """Read `runs:/<run>/<path>`, as mlflow.artifacts does."""
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        return (self._path(run_id) / path).read_text()

    def _path(self, run_id: str) -> Path:
        return self._folder / "runs" / run_id


def connect(folder: Path, monkeypatch: Any) -> Any:
    """Return a store in memory, and let the model side's module `tracking` read from it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "memory://here")
    made = MemoryTracking(folder)
    monkeypatch.setattr(tracking, "client", lambda: made)

    def download(artifact_uri: str, dst_path: str | None = None) -> str:
        source = Path(artifact_uri.removeprefix("file://"))
        return str(shutil.copytree(source, Path(dst_path) / source.name) if dst_path else source)

    artifacts = SimpleNamespace(load_text=made.load_text, download_artifacts=download)
    monkeypatch.setattr(tracking, "mlflow", SimpleNamespace(artifacts=artifacts, get_run=made.get_run))
    return made
