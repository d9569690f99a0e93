"""Layout and import rules that the design promises."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
LONGEST_MODULE = 400

PURE = {
    "__future__", "base64", "collections", "dataclasses", "datetime", "difflib", "email", "enum", "fnmatch",
    "functions", "functools", "hashlib", "itertools", "json", "math", "re", "string", "typing", "urllib", "yaml",
}  # fmt: skip
"""What the core may import: values and text, and yaml to read the routes file's text."""

REGISTRIES = re.compile(r"(pypi|pythonhosted|npmjs|yarnpkg|anaconda)\.(org|com)|registry\.[a-z0-9-]+\.[a-z]+")


def tracked() -> list[Path]:
    """Files of the project that git keeps, or would keep."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT, capture_output=True, check=True,
    )  # fmt: skip
    return [path for name in listed.stdout.decode().split("\0") if name and (path := PROJECT / name).is_file()]


def modules(folder: str) -> list[Path]:
    """Python files of a folder."""
    return sorted((PROJECT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Whole names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), path.name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def tops(path: Path) -> set[str]:
    """First names of what a file imports."""
    return {name.partition(".")[0] for name in imports(path)}


def test_import_contracts() -> None:
    """Every contract of .importlinter holds."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--config", ".importlinter", "--no-cache"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("path", modules("functions/core"), ids=lambda path: path.name)
def test_core_imports_only_what_is_pure(path: Path) -> None:
    """An allow-list: whatever is new has to be argued for here."""
    assert tops(path) <= PURE
    submodules = {name for name in imports(path) if name.startswith(("urllib", "email"))}
    assert submodules <= {"urllib.parse", "email.utils"}
    assert all(name.startswith("functions.core") for name in imports(path) if name.startswith("functions"))


@pytest.mark.parametrize("path", modules("functions/core"), ids=lambda path: path.name)
def test_core_opens_nothing_and_asks_no_clock(path: Path) -> None:
    """What the allow-list lets through could still open a file or read the time."""
    called = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    assert not {name for name in called if re.search(r"^(open|print|input|eval|exec)$|\.(now|today|utcnow)$", name)}


def test_the_model_side_stands_alone() -> None:
    """code/ imports neither functions nor local: it runs where they are not installed."""
    offenders = {
        path.name: found for path in modules("code") if (found := tops(path) & {"functions", "local", "tests"})
    }
    assert offenders == {}


def test_functions_imports_neither_local_nor_the_model_side() -> None:
    """Nor does function_app.py; nothing of code/ is importable there by its folder names either."""
    model_side = {path.name for path in (PROJECT / "code").iterdir() if path.is_dir()} | {"code", "local", "tests"}
    for path in [*modules("functions"), PROJECT / "function_app.py"]:
        assert not tops(path) & model_side, path


def test_local_does_not_import_the_model_side() -> None:
    """The stand-ins run its scripts as processes."""
    offenders = {path.name: found for path in modules("local") if (found := tops(path) & {"code", "mlops", "tests"})}
    assert offenders == {}


def test_code_is_no_package() -> None:
    """An __init__.py in code/ would hide Python's own module of that name."""
    assert not (PROJECT / "code/__init__.py").exists()


def test_python_keeps_its_own_code_module() -> None:
    """From the project's root, `import code` is Python's."""
    done = subprocess.run(
        [sys.executable, "-c", "import code; print(code.InteractiveConsole.__module__)"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "code"


def test_modules_stay_small() -> None:
    """No module of the app, the stand-ins or the model side is above 400 lines."""
    lines = {
        path.relative_to(PROJECT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(PROJECT).parts[0] != "tests"
    }
    assert {name: count for name, count in lines.items() if count > LONGEST_MODULE} == {}


def test_no_file_names_a_package_registry() -> None:
    """Whoever installs decides where packages come from."""
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if match := REGISTRIES.search(line):
                found.append(f"{path.relative_to(PROJECT)}:{number}: {match[0]}")
    assert found == []


def test_no_file_names_a_path_of_the_machine_that_made_it() -> None:
    """What is tracked works from any checkout."""
    path_here = re.compile(r"(?<![\w./-])/(work|home/[a-z]+|root|Users)/")
    found = [
        f"{path.relative_to(PROJECT)}: {match[0]}"
        for path in tracked()
        if path != Path(__file__) and (match := path_here.search(path.read_text(encoding="utf-8", errors="replace")))
    ]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    """A docstring at the top of each module of the app."""
    silent = [
        path.relative_to(PROJECT).as_posix()
        for path in [*modules("functions"), PROJECT / "function_app.py"]
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) and path.read_text(encoding="utf-8")
    ]
    assert silent in ([], ["function_app.py"])


def test_the_app_never_imports_what_is_heavy() -> None:
    """Mlflow and azure-ai-ml cost a second and more of every cold start."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, functions.triggers as _; print(*{'mlflow', 'azure.ai.ml', 'numpy'} & set(sys.modules))",
        ],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == ""
