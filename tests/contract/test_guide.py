"""docs/guide.md: every command in it parses, and what it names is there."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from infra.setup.__main__ import STEPS
from infra.setup.values import CREDENTIALS, GROUP, IDS, TOKEN
from local import cli

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/guide.md").read_text(encoding="utf-8")

OPTIONS: dict[str, set[str]] = {
    "az login": set(),
    "az role assignment create": {"--assignee", "--role", "--scope"},
    "az storage blob upload-batch": {
        *("--account-name", "--auth-mode", "--destination", "--destination-path", "--pattern", "--source"),
    },
    "az functionapp show": {"--resource-group", "--name", "--query"},
    "gh auth login": set(),
    "gh variable set": {"--body"},
    "gh secret set": set(),
    "gh workflow run": {"--raw-field"},
    "gh run watch": set(),
    "gh run list": {"--workflow"},
    "git add": set(),
    "git commit": {"-m"},
    "git push": set(),
}
"""Commands of others, and those of their options that their references document."""


def commands() -> list[str]:
    """Every command line of the guide's shell blocks and of its running text."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
    inline = re.findall(
        r"`((?:signalbox|make|gh|az|python3 -m) [^`]*)`", re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL)
    )
    return [line for line in [*lines, *inline] if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("line", commands())
def test_the_command_parses(line: str) -> None:
    """Ours by our own parsers, those of others against what their references document."""
    words = shlex.split(line)
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "signalbox":
        parse(rest)
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "export":
        assert all(re.fullmatch(r"\w+=\S+", word) for word in rest)
    elif rest[:2] == ["-m", "infra.setup"]:
        assert rest[2] in STEPS
    elif program == "python":
        compile(rest[1], "guide", "exec")
    else:
        known = [name for name in OPTIONS if shlex.join(words).startswith(name)]
        assert known, f"{line}: not among the commands whose options are known here"
        given = {word for word in rest if word.startswith("-")}
        assert given <= OPTIONS[max(known, key=len)], line


def parse(rest: list[str]) -> None:
    """Parse by the command line's own parser; `signalbox trace` alone names just the command."""
    parser = cli._parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    if rest == ["trace"]:
        assert "trace" in commands.choices
    else:
        assert callable(parser.parse_args(rest).run)


def test_the_files_for_the_first_run_are_made_by_the_guides_own_command(tmp_path: Path) -> None:
    """The line that makes them is run as it stands; the next one's pattern takes all of them."""
    (line,) = (line for line in commands() if ".venv/bin/python -c" in line)
    program = shlex.split(line)[2]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    pattern = re.search(r'--pattern "([^"]+)"', GUIDE)
    assert pattern is not None
    assert len(list(tmp_path.glob(pattern[1]))) == len(list(tmp_path.iterdir())) == 24
    assert "all 24 files" in GUIDE


def test_the_five_values_are_those_that_the_set_up_checks() -> None:
    """Neither more nor fewer, and where each comes from."""
    table = re.findall(r"^\| `([A-Z_]+)` \| repository (?:variable|secret) \|", GUIDE, re.MULTILINE)
    assert table == [*IDS, GROUP, TOKEN]
    assert CREDENTIALS in GUIDE


def test_what_the_guide_names_is_there() -> None:
    """Workflows, files, pages and their headings."""
    for name in re.findall(r"`(\w+\.yml)`", GUIDE):
        assert (ROOT / name).is_file() or (ROOT / ".github/workflows" / name).is_file(), name
    for path, anchor in re.findall(r"\]\((?!https)([^)#]+)#?([^)]*)\)", GUIDE):
        page = (ROOT / "docs" / path).resolve()
        assert page.is_file(), path
        headings = [slug(line.lstrip("#")) for line in page.read_text().splitlines() if line.startswith("#")]
        assert not anchor or anchor in headings, f"{path}#{anchor}"


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def test_every_workflow_is_explained() -> None:
    """A person finds out when each starts."""
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        if path.name not in {"ci.yml", "rollback.yml", "setup_probe.yml"}:
            assert f"| `{path.name}` |" in GUIDE, path.name
