"""What `signalbox doctor` finds: each fault with its mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

OK, FAULT, UNKNOWN = "ok", "fault", "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what kind of thing, in a word or two.
        about: which one of them.
        state: `ok`, `fault`, or `unknown` where it could not be looked at or a person has to judge.
        says: what was found.
        mend: what to do; "" where there is nothing to do.
    """

    check: str
    about: str
    state: str
    says: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def ok(check: str, about: str, says: str) -> Finding:
    """Looked at, and right."""
    return Finding(check, about, OK, says)


def fault(check: str, about: str, says: str, mend: str) -> Finding:
    """Looked at, and wrong."""
    return Finding(check, about, FAULT, says, mend)


def unknown(check: str, about: str, says: str, mend: str = "") -> Finding:
    """Could not be looked at, or is for a person to judge."""
    return Finding(check, about, UNKNOWN, says, mend)


def as_text(findings: Iterable[Finding]) -> str:
    """For a person: a line each, faults with their mends, and how many there are."""
    lines, count = [], dict.fromkeys((OK, FAULT, UNKNOWN), 0)
    for finding in findings:
        count[finding.state] += 1
        lines.append(f"{finding.state:<8}{finding.check}, {finding.about}: {finding.says}")
        if finding.mend:
            lines.append(f"{'':<8}mend: {finding.mend}")
    lines += ["", f"{count[FAULT]} faults, {count[UNKNOWN]} unknown, {count[OK]} in order"]
    return "\n".join(lines)
