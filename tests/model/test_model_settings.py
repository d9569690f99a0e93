"""Settings files: every key is known, and a mistake is answered with what was meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlops import environment, settings
from mlops.report import Fault

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the settings that a test may spoil."""
    shutil.copytree(ROOT / ".cloud", tmp_path / ".cloud")
    shutil.copytree(ROOT / "code/data", tmp_path / "code/data")
    return tmp_path


def spoil(path: Path, **values: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_projects_own_settings_load() -> None:
    """What is checked in is complete, for both examples."""
    assert settings.load().metric() == ("accuracy", True)
    assert len(settings.load_data_set("digits").features) == 64
    assert settings.load_data_set("iris").classes == ("setosa", "versicolor", "virginica")
    assert settings.load().model_name("iris") == "signalbox-iris"


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("registermodel.json", {"metric_max": []}, ["'metric_max' is not a setting", "'metrics_max'"]),
        ("deploy.json", {"scoring_timeout_ms": "long"}, ["scoring_timeout_ms", "int"]),
        ("compute.json", {"min_nodes": True}, ["min_nodes", "int"]),
    ],
)
def test_a_wrong_key_or_type_is_named(project: Path, file: str, values: dict[str, object], words: list[str]) -> None:
    """An unknown key is refused with the one that was meant, a wrong type with the right one."""
    spoil(project / ".cloud/.azure" / file, **values)
    with pytest.raises(Fault) as fault:
        settings.load(project)
    assert all(word in str(fault.value) for word in [file, *words])


@pytest.mark.parametrize(("larger", "smaller"), [([], []), (["accuracy"], ["error_rate"])])
def test_the_gate_takes_exactly_one_metric(project: Path, larger: list[str], smaller: list[str]) -> None:
    """No metric, or two, is no rule: the gate is never off by configuration."""
    spoil(project / ".cloud/.azure/registermodel.json", metrics_max=larger, metrics_min=smaller)
    with pytest.raises(Fault, match="exactly one"):
        settings.load(project).metric()


def test_a_smaller_is_better_metric_is_read(project: Path) -> None:
    """A metric under metrics_min is one that should be small."""
    spoil(project / ".cloud/.azure/registermodel.json", metrics_max=[], metrics_min=["error_rate"])
    assert settings.load(project).metric() == ("error_rate", False)


def test_broken_json_is_answered_with_the_line(project: Path) -> None:
    """A typing mistake in a settings file names the file and the line."""
    (project / "code/data/iris.json").write_text('{\n "columns": [\n}')
    with pytest.raises(Fault, match=r"iris\.json, line 3"):
        settings.load_data_set("iris", project)


def test_a_folder_without_settings_is_refused(project: Path) -> None:
    """Nobody knows what an unknown folder's rows should be, and the sentence says where to write it."""
    with pytest.raises(Fault, match=r"add code/data/tulips\.json .*digits, iris"):
        settings.load_data_set("tulips", project)


@pytest.mark.parametrize("folder", ["../digits", "a/b", "$(id)", "a b", ".", "x" * 64])
def test_a_folder_that_is_a_path_or_a_script_is_refused(folder: str) -> None:
    """The key comes from blob names, which are an outsider's input."""
    with pytest.raises(Fault, match="FOLDER"):
        environment.read({"ORIGIN": "sb-abc", "FOLDER": folder})


@pytest.mark.parametrize("origin", ["", "sb abc", "'; drop", "a\nb"])
def test_an_origin_that_cannot_be_one_is_refused(origin: str) -> None:
    """The origin becomes part of names and filters, so it holds nothing but letters, digits and dashes."""
    with pytest.raises(Fault, match="ORIGIN"):
        environment.read({"ORIGIN": origin, "FOLDER": "iris"})
