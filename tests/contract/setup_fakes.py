"""What the tests of the set-up share: stand-ins for `az`, `gh` and a server, and the values that a person sets."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import loopback

from infra.setup.patience import Patience

ROOT = Path(__file__).resolve().parents[2]
GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
GIVEN = {
    "AZURE_CLIENT_ID": GUID,
    "AZURE_TENANT_ID": GUID,
    "AZURE_SUBSCRIPTION_ID": GUID,
    "PATTOKEN": "github_pat_" + "a" * 30,
    "RESOURCE_GROUP": "signalbox",
    "GITHUB_REPOSITORY": "octo/models",
}
SOON = Patience(longest=5, pace=0.01)
NOT_LONG = Patience(longest=0.2, pace=0.01)


class FakeCli:
    """Stands for `az` or `gh` on PATH: notes each call and what its parameter file held, and answers from a list."""

    def __init__(self, folder: Path, name: str) -> None:
        self._calls, self._answers = folder / f"{name}.calls", folder / f"{name}.answers"
        self._answers.write_text("[]")
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, pathlib, sys\n"
            f"calls, answers = pathlib.Path({str(self._calls)!r}), pathlib.Path({str(self._answers)!r})\n"
            "arguments = sys.argv[1:]\n"
            "files = [json.loads(pathlib.Path(a[1:]).read_text()) for a in arguments if a.startswith('@')]\n"
            "modes = [oct(pathlib.Path(a[1:]).stat().st_mode & 0o777) for a in arguments if a.startswith('@')]\n"
            "with calls.open('a') as file:\n"
            "    file.write(json.dumps([arguments, files, modes]) + '\\n')\n"
            "rest = json.loads(answers.read_text())\n"
            "for number, (prefix, status, out, error) in enumerate(rest):\n"
            "    if ' '.join(arguments).startswith(prefix):\n"
            "        del rest[number]\n"
            "        answers.write_text(json.dumps(rest))\n"
            "        print(out)\n"
            "        print(error, file=sys.stderr)\n"
            "        sys.exit(status)\n"
            "sys.exit('not expected: ' + ' '.join(arguments))\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def will(self, prefix: str, answer: Any = None, status: int = 0, error: str = "") -> None:
        """Answer the next call that begins so."""
        rest = json.loads(self._answers.read_text())
        rest.append([prefix, status, "" if answer is None else json.dumps(answer), error])
        self._answers.write_text(json.dumps(rest))

    @property
    def calls(self) -> list[tuple[list[str], list[Any], list[str]]]:
        """(arguments, parameter files, their permissions) of each call."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [tuple(json.loads(line)) for line in lines]


class Web(loopback.Server):
    """A small server whose answers the test lines up; the last one stays."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(loopback.Handler):
            def post(self) -> None:
                outer.requests.append((self.path, dict(self.headers), self.body()))
                status, answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                self.reply(status, answer, outer.headers)

            get = post

        super().__init__(Handler)


def step(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one step as the workflow does."""
    outputs = {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(
        [sys.executable, "-m", "infra.setup", name],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **outputs, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
