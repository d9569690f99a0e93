"""Did a run that was cancelled ever begin? Read from its jobs.

Follows "List jobs for a workflow run" of GitHub's documentation. A run that waits for its concurrency group, for a
runner or for an approval has no jobs yet, or jobs without a step that started. All of its attempts count: one that
began, was run again by a person and was cancelled before that began has done a part of its work.
"""

from __future__ import annotations

import json

from functions.core.github import Answer, NoAnswer

_BEGUN = frozenset({"success", "failure"})


def read_began(answer: Answer | NoAnswer) -> bool | None:
    """True where a step of the run started, or where nothing can tell any more; None where GitHub does not say now.

    Whatever is odd counts as begun: sending again what did begin would do the work twice.
    """
    if isinstance(answer, NoAnswer):
        return None
    if answer.status in {404, 410}:
        return True  # the run was deleted
    if answer.status != 200:
        return None
    try:
        listed = json.loads(answer.body)
        jobs, total = listed["jobs"], listed["total_count"]
        return total > len(jobs) or any(_step_began(step) for job in jobs for step in job.get("steps") or ())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return True


def _step_began(step: dict[str, object]) -> bool:
    return bool(step.get("started_at")) or step.get("status") == "in_progress" or step.get("conclusion") in _BEGUN
