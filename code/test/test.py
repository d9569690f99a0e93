"""Your own test of a new deployment, before it gets any traffic: raise, and the old one keeps serving.

`deploy.json` switches it on (`test_enabled`) and names it (`test_file_path`, `test_file_function_name`).
"""

from __future__ import annotations

from typing import Any, Protocol


class Webservice(Protocol):
    """What the test is given: the deployment that waits for its traffic."""

    scoring_uri: str
    sample: Any

    def run(self, body: Any) -> Any:
        """Send a request body and return the decoded answer."""
        ...


def main(webservice: Webservice) -> None:
    """Ask the same thing twice: a model that answers the same rows differently is not ready."""
    first = webservice.run(webservice.sample)
    second = webservice.run(webservice.sample)
    if first != second:
        raise AssertionError(f"{webservice.scoring_uri} answered the same rows with {first} and then {second}.")
