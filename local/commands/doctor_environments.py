"""`signalbox doctor`: who may run as the environments whose tokens Azure trusts ("List environments").

A job of any branch can name an environment. Azure lets it in by that name; only the environment's own rules keep a
branch out that nobody has looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from functions.core.github import Answer
from local.commands.doctor_findings import Finding, ok, unknown
from local.commands.doctor_github import Api

CHECK = "environment"
ENVIRONMENTS = ("dev", "test", "production")
"""Those of the rollout; the template lets each of them sign in."""

_MEND = "set its branches and reviewers as docs/rollout.md says under 'Approvals'"


def check(api: Api, repository: str) -> Iterator[Finding]:
    """Look at the environments of one repository. No fault: whether it is one depends on who may push a branch."""
    answer = api.get(f"/repos/{repository}/environments?per_page=100")
    if not isinstance(answer, Answer) or answer.status != 200:
        yield unknown(
            CHECK, repository, "its environments were not told", "give the token, or the GitHub App, 'Actions: read'"
        )
        return
    there = {str(one["name"]): one for one in json.loads(answer.body).get("environments") or []}
    for name in ENVIRONMENTS:
        yield from _one(name, there.get(name))


def _one(name: str, found: Mapping[str, Any] | None) -> Iterator[Finding]:
    if found is None:
        yield unknown(CHECK, name, "it is not there: its first run makes it, open to every branch", _MEND)
        return
    kinds = {rule.get("type") for rule in found.get("protection_rules") or []}
    if not found.get("deployment_branch_policy"):
        yield unknown(CHECK, name, "a job of any branch may run as it, and so sign in to Azure", _MEND)
    elif name == "production" and "required_reviewers" not in kinds:
        yield unknown(CHECK, name, "nobody has to approve what goes to production", _MEND)
    else:
        yield ok(CHECK, name, "not every branch may run as it")
