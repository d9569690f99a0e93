"""What is published, and nothing else, starts under Microsoft's runtime with the packages of requirements.txt alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import microsoft_runtime as microsoft
import pytest
from infra_variants import CORE, deployed
from packaging.requirements import Requirement

from functions.core.routes_file import load_routes
from infra.setup import package

PROJECT = Path(__file__).resolve().parents[2]
FUNCTIONS = {"intake", "intake_queue", "reconcile", "status", "work"}
WORKERS_OWN = ("protobuf",)
"""What Azure's worker process brings along for itself."""

pytestmark = [
    pytest.mark.skipif(not microsoft.LIBRARY.is_dir(), reason=microsoft.ABSENT),
    pytest.mark.skipif(not (PROJECT / ".git").exists(), reason="what is published is what git knows; this is no clone"),
]


def git(*arguments: str) -> set[str]:
    """Paths that `git ls-files` gives."""
    done = subprocess.run(
        ["git", "ls-files", "-z", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.split("\0") if (PROJECT / name).is_file()}


def published() -> set[str]:
    """What would be published if everything here were committed."""
    ignored = f"--exclude-from={package.IGNORE_FILE}"
    new = git("--others", "--exclude-standard") & git("--others", ignored)
    return (git("--cached") - git("--cached", "--ignored", ignored)) | new


def pins() -> dict[str, str]:
    """Package → version, of requirements.txt, as far as it is for this Python."""
    found = {}
    for line in (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if re.match(r"[a-z]", line):
            wanted = Requirement(line.rstrip("\\ "))
            if wanted.marker is None or wanted.marker.evaluate():
                found[wanted.name] = str(wanted.specifier).removeprefix("==")
    return found


def link(names: Iterable[str], target: Path) -> None:
    """Lay out the packages of this environment as an installation of these alone; data and code are the same files."""
    for name in names:
        for file in importlib.metadata.files(name) or []:
            source = Path(str(file.locate()))
            if ".." not in file.parts and source.is_file() and source.suffix != ".pyc":
                place = target / str(file)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(source)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked."""
    folder = tmp_path_factory.mktemp("package")
    for name in published():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / name, folder / name)
    return folder


def started(app: Path, packages: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Index the app in a process that sees the standard library, `packages`, and Microsoft's runtime."""
    environment = {"PATH": os.environ["PATH"], **settings, "PYTHONPATH": f"{microsoft.LIBRARY}{os.pathsep}{packages}"}
    command = [sys.executable, "-S", "-P", microsoft.__file__, str(app)]  # -S: the environment's own packages stay out
    return subprocess.run(
        command, input="[]", env=environment, cwd=app, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """The template's app settings, with what Azure would resolve made up."""
    (found,) = [one for one in deployed(CORE) if one.name.endswith("/appsettings")]
    values: dict[str, Any] = dict(found.body["properties"])
    return {
        name: "made-up" if "@Microsoft" in value or value.startswith("<") else value for name, value in values.items()
    }


def test_the_package_is_the_app_and_nothing_else(app: Path) -> None:
    """No test, tool, model code, template or secret is published; everything that the app reads is."""
    assert {path.name for path in app.iterdir()} == {
        *("function_app.py", "functions", "host.json", "requirements.txt", "routes.yml")
    }
    assert {path.suffix for path in (app / "functions").rglob("*") if path.is_file()} == {".py"}
    assert load_routes((app / "routes.yml").read_text(encoding="utf-8"), "routes.yml")


def test_set_up_publishes_the_same() -> None:
    """What setup.yml packs is just that, as far as it is committed."""
    assert set(package.files(PROJECT)) == published() & git("--cached")


def test_the_package_starts(app: Path, tmp_path: Path, settings: dict[str, str]) -> None:
    """With the packages that requirements.txt pins, in their versions, all five functions are found."""
    pinned = pins()
    assert {name: importlib.metadata.version(name) for name in pinned} == pinned
    link([*pinned, *WORKERS_OWN], tmp_path)
    ended = started(app, tmp_path, settings)
    assert ended.returncode == 0, ended.stderr
    assert set(json.loads(ended.stdout.splitlines()[-1])["functions"]) == FUNCTIONS


def test_a_missing_package_is_seen(app: Path, tmp_path: Path, settings: dict[str, str]) -> None:
    """Without one of them the app does not start: nothing of this environment helps out."""
    link([name for name in (*pins(), *WORKERS_OWN) if name.lower() != "pyyaml"], tmp_path)
    ended = started(app, tmp_path, settings)
    assert ended.returncode != 0
    assert "No module named 'yaml'" in ended.stderr
