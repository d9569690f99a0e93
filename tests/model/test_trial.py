"""The trial training of a pull request: real steps and figures, and nothing that is registered or left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_trial_has_figures_and_registers_nothing(tmp_path: Path) -> None:
    """Checks, training and the gate's decision stand in the summary and in the step output; no step registers."""
    summary, output = tmp_path / "summary.md", tmp_path / "output"
    done = subprocess.run(
        [sys.executable, str(ROOT / ".github/scripts/trial.py"), "iris"],
        cwd=ROOT,
        env={
            **os.environ,
            "TMPDIR": str(tmp_path),
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_OUTPUT": str(output),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"::group::Step (\w+)", done.stdout) == ["check", "train", "evaluate"]
    text = summary.read_text()
    assert "Nothing was registered" in text
    assert re.search(r"\| challenger \| [01]\.\d+ \|", text), text
    (end,) = re.findall(r"report<<(\S+)", output.read_text())
    assert output.read_text().endswith(f"\n{end}\n")
    assert text in output.read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("signalbox-trial-")] == []
