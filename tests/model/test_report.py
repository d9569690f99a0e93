"""What a step says stays text, whoever wrote the names in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlops import report


def test_a_line_never_becomes_a_workflow_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Line ends inside a name, of whatever kind, do not start a line of their own."""
    report.say("Columns: a\n::add-mask::b\r::stop-commands::c\u2028::error::d")
    assert capsys.readouterr().out.count("\n") == 1
    assert "\r" not in capsys.readouterr().out


def test_a_fault_is_an_error_line_and_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each sentence stands in the log and in the summary, and the step ends with status 1."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))

    def main() -> None:
        raise report.Fault("first\n::warning::x", "<img src=x> [link](y) | `z`")

    with pytest.raises(SystemExit) as end:
        report.step("Some step", main)
    assert end.value.code == 1
    assert capsys.readouterr().out.splitlines()[0] == "::error title=Some step::first%0A::warning::x"
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("### Some step: failed\n")
    assert not any(mark in summary for mark in ("<", "[", "|", "`"))


def test_a_step_that_is_stopped_says_so_and_ends_as_a_shell_would(capsys: pytest.CaptureFixture[str]) -> None:
    """A cancelled workflow is no traceback: one line, and status 130."""

    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        report.step("Some step", main)
    assert end.value.code == 130
    assert capsys.readouterr().out == "::error title=Some step::Stopped from outside.\n"
