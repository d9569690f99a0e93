"""What is installed where: Azure's conda files are complete, and one machine loads nothing of Azure ML."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from mlops import pipeline, settings
from packaging.requirements import Requirement

CODE = settings.ROOT / "code"


@cache
def top_level() -> dict[str, list[str]]:
    """Return the distributions of each top-level module."""
    return {name: list(found) for name, found in metadata.packages_distributions().items()}


def imports(file: Path, seen: set[Path]) -> Iterator[str]:
    """Return the modules that a file imports, and those of our own modules that it leads to."""
    if file in seen:
        return
    seen.add(file)
    for name in named(ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        if not name.startswith("mlops"):
            yield name
            continue
        # `mlops.data.tables.read` may name a module, or something in it.
        path = CODE.joinpath(*name.split("."))
        for module in (path.with_suffix(".py"), path.parent.with_suffix(".py")):
            if module.is_file():
                yield from imports(module, seen)


def distribution(module: str) -> str:
    """Return the distribution that a module comes with."""
    parts = module.split(".")
    if parts[0] != "azure":
        return top_level()[parts[0]][0].lower()
    for end in range(len(parts), 1, -1):
        name = "-".join(parts[:end])
        if name in top_level()["azure"]:
            return name
    raise AssertionError(f"nothing brings {module}")


def brought_by(file: Path) -> set[str]:
    """Return what the pip section of a conda file installs, with everything that it requires."""
    (pip,) = [part["pip"] for part in yaml.safe_load(file.read_text())["dependencies"] if isinstance(part, dict)]
    found: set[str] = set()
    waiting = [Requirement(line).name for line in pip]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            needed = [Requirement(line) for line in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.parametrize(
    ("conda_file", "scripts"),
    [
        ("code/train/environment.yml", [step.script for step in pipeline.STEPS]),
        ("code/deploy/environment.yml", ["code/deploy/score.py"]),
    ],
)
def test_the_environment_has_what_its_scripts_import(conda_file: str, scripts: list[str]) -> None:
    """A step or a scoring script that imports a package which nobody installs would fail in Azure only."""
    brought, seen = brought_by(settings.ROOT / conda_file), set[Path]()
    foreign = {name for script in scripts for name in imports(settings.ROOT / script, seen)}
    missing = {
        name
        for name in foreign
        if name.split(".")[0] not in sys.stdlib_module_names
        and re.sub(r"[-_.]+", "-", distribution(name)) not in brought
    }
    assert missing == set()
    assert len(foreign) > 5


def test_azure_ai_ml_is_loaded_by_few_and_late() -> None:
    """Only modules of mlops.azure import it, and whoever else needs one of them imports it inside of a function."""
    trees = {
        path.relative_to(CODE).with_suffix("").as_posix().replace("/", "."): ast.parse(path.read_text(encoding="utf-8"))
        for path in CODE.rglob("*.py")
    }
    knowing = {name for name, tree in trees.items() if any(one.startswith("azure.ai") for one in named(ast.walk(tree)))}
    assert {"mlops.azure.backend", "mlops.azure.endpoints", "mlops.azure.job"} <= knowing
    assert all(name.startswith("mlops.azure.") for name in knowing)
    for name, tree in trees.items():
        early = named(tree.body) & knowing
        assert name in knowing or not early, f"{name} imports {early} when it is loaded"


def named(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the modules that these nodes import."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("name", ["train", "deploy"])
def test_the_environment_has_the_versions_of_the_lock_file(name: str) -> None:
    """Images that are built months apart hold the same, and a model is served by what it was trained with."""
    lines = (settings.ROOT / "requirements/code.txt").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9-]+==[^ ]+)", lines, re.MULTILINE))
    document = yaml.safe_load((settings.ROOT / f"code/{name}/environment.yml").read_text(encoding="utf-8"))
    (pip,) = [part["pip"] for part in document["dependencies"] if isinstance(part, dict)]
    assert set(pip) <= locked, "write the versions of requirements/code.txt into it"
