"""The proof that the path works: an event of its own type goes in at the custom topic, a workflow run comes out.

Nothing is trained for it: the route `prove-the-path` sends it to setup_probe.yml, which has the probe's id in its
run's name.
"""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from infra.setup.faults import SetupFault
from infra.setup.patience import Patience

EVENT_TYPE = "Signalbox.SetupProbe"
_TIMEOUT = 20
_EARLY = timedelta(minutes=5)  # GitHub's clock need not agree with the runner's
_NOT_YET = {401, 403, 404, 429, 500, 502, 503, 504}
"""What Event Grid answers while a new role assignment or a new topic is not yet known everywhere."""


def new_probe() -> str:
    """An id that stands in no other run's name."""
    return f"probe-{secrets.token_hex(8)}"


def event(probe: str, now: datetime) -> dict[str, Any]:
    """The probe in Event Grid's schema."""
    return {
        "id": probe,
        "eventType": EVENT_TYPE,
        "subject": f"setup/{probe}",
        "eventTime": now.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "dataVersion": "1.0",
        "data": {"probe": probe},
    }


def send(endpoint: str, probe: str, token: str, patience: Patience) -> None:
    """Publish the probe to a custom topic ("Publish events to Event Grid custom topics", with Microsoft Entra ID).

    Raises SetupFault where the topic does not take it within `patience`.
    """
    body = json.dumps([event(probe, datetime.now(UTC))]).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    deadline = time.monotonic() + patience.longest
    while True:
        try:
            _fetch(endpoint, headers, body)
            return
        except urllib.error.HTTPError as error:
            said = f"{error.code} {' '.join(error.read(500).decode(errors='replace').split())}"
            passing = error.code in _NOT_YET
        except (urllib.error.URLError, TimeoutError) as error:
            said, passing = str(error), True
        if not passing or time.monotonic() > deadline:
            raise SetupFault(
                f"The custom topic at {endpoint} does not take the probe ({said}): the identity that setup.yml signs "
                "in with needs the role EventGrid Data Sender on it; a new role can take ten minutes to be known."
            )
        time.sleep(patience.pace)


def await_run(api_url: str, repository: str, token: str, probe: str, patience: Patience) -> dict[str, Any]:
    """The probe's workflow run, once it has ended well ("List workflow runs for a repository"). Raises SetupFault."""
    since = datetime.now(UTC) - _EARLY
    query = urlencode(
        {"event": "repository_dispatch", "created": f">={since:%Y-%m-%dT%H:%M:%SZ}", "per_page": "100"}, safe=">=:"
    )
    url = f"{api_url}/repos/{repository}/actions/runs?{query}"
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "User-Agent": "signalbox",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    deadline = time.monotonic() + patience.longest
    seen: dict[str, Any] | None = None
    while time.monotonic() < deadline:
        try:
            listed = json.loads(_fetch(url, headers))["workflow_runs"]
        except (urllib.error.URLError, TimeoutError):
            listed = []
        seen = next((run for run in listed if probe in str(run.get("display_title"))), seen)
        if seen and seen["status"] == "completed":
            if seen["conclusion"] != "success":
                raise SetupFault(f"The probe's run ended as {seen['conclusion']}: see {seen['html_url']}.")
            return seen
        time.sleep(patience.pace)
    if seen:
        raise SetupFault(f"The probe's run has not ended: see {seen['html_url']}.")
    raise SetupFault(
        f"No workflow run has {probe} in its name after {patience.longest:.0f} s. Where it is stuck: "
        "'signalbox doctor' (token, subscriptions, settings), 'signalbox dead-letters', 'signalbox replay' for what is "
        "parked (docs/guide.md, When it fails)."
    )


def await_functions(
    listing: Callable[[], list[str]], wanted: frozenset[str], patience: Patience, say: Callable[[str], None]
) -> None:
    """Wait until the published functions are indexed: a subscription to one that is not is refused.

    Raises SetupFault.
    """
    deadline = time.monotonic() + patience.longest
    missing = sorted(wanted - set(listing()))
    while missing:
        if time.monotonic() > deadline:
            raise SetupFault(
                f"The function app has no function {', '.join(missing)} after {patience.longest:.0f} s. A wrong "
                "setting stops its start and is named in its log stream; a build that failed stands in its deployments."
            )
        say(f"waiting for {', '.join(missing)}")
        time.sleep(patience.pace)
        missing = sorted(wanted - set(listing()))


def _fetch(url: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - from the deployment, or GitHub's own
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
        content: bytes = answer.read()
    return content
