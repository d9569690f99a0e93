"""The steps of the set-up, as setup.yml calls them: `python -m infra.setup STEP`.

Each reads the environment, says what it did in the job's summary, and ends with status 1 and one error line per fault.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.setup import (
    addresses,
    deployment,
    first_deployment,
    github_access,
    package,
    principal,
    proof,
    providers,
    references,
    subjects,
    values,
)
from infra.setup.azure_cli import NotThere, az
from infra.setup.deployment import CORE, CORE_TEMPLATE
from infra.setup.faults import SetupFault
from infra.setup.patience import Patience
from infra.setup.values import Values

PACKAGE = Path("build/function-app.zip")
FUNCTIONS = frozenset({"intake", "intake_queue", "work", "reconcile", "status"})
_RESOLVED = Patience(longest=900, pace=20)
_INDEXED = Patience(longest=900, pace=15)
_SPREAD = Patience(longest=600, pace=60)
_TAKEN = Patience(longest=900, pace=20)
_CONFIRMED = Patience(longest=600, pace=10)


def check() -> None:
    """Check the values; `ready=false` where nobody has set any, which on a push is no fault."""
    if values.is_untouched(os.environ) and os.environ.get("GITHUB_EVENT_NAME") == "push":
        _output({"ready": "false"})
        summarize("Not set up yet", ["Nothing is set, so nothing was done. Set the five values of docs/guide.md."])
        return
    given = values.read(os.environ)
    api_url = os.environ.get("GITHUB_API_URL")
    if api_url and given.token:  # what an App may do is asked when it is used
        branch = os.environ.get("GITHUB_REF_NAME", "")
        if wrong := github_access.faults(api_url, given.repository, given.token, branch):
            raise SetupFault(*wrong)
    _output({"ready": "true"})
    subject = subjects.own_subject(os.environ)
    how = f"OpenID Connect as `{subject}`" if given.oidc else "the stored AZURE_CREDENTIALS"
    summarize("Settings", [f"Complete. Signing in with {how}; everything goes into `{given.group}`."])


def register() -> None:
    """Register the resource providers that the templates need."""
    registered = providers.register(deployment.needed_providers(), say)
    summarize("Resource providers", [f"Registered now: {', '.join(registered) or 'none, all were'}."])


def what_if() -> None:
    """Say what the core deployment would change."""
    given = values.read(os.environ)
    region = deployment.ensure_group(given.group)
    changes = deployment.preview(given.group, CORE, CORE_TEMPLATE, _core_parameters(given))
    summarize("What would change", [f"In `{given.group}` ({region}): {changes}."])


def core() -> None:
    """Deploy the core infrastructure."""
    given = values.read(os.environ)
    made = deployment.deploy(given.group, CORE, CORE_TEMPLATE, _core_parameters(given))
    _output(addresses.of_outputs(made))
    summarize("Core infrastructure", ["Deployed."])


def _core_parameters(given: Values) -> dict[str, Any]:
    """With the subjects in this repository's own form, which only its token tells for sure."""
    subject = subjects.own_subject(os.environ)
    branch = os.environ.get("GITHUB_REF_NAME", "main")
    trusted = subjects.of_prefix(subjects.prefix_of(subject), branch) if subject else []
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    return deployment.core_parameters(given, server, trusted, principal.brought_along(given.group))


def first() -> None:
    """The first deployment, by a person who may assign roles: makes the identity that setup.yml signs in with."""
    made = first_deployment.run(say)
    print("\nNow give GitHub the five values:\n")
    print("\n".join(first_deployment.commands(made)))


def find() -> None:
    """Say where everything is: the outputs of the core deployment, as step outputs."""
    group = os.environ.get(values.GROUP, "")
    try:
        made = deployment.outputs(group)
    except NotThere:
        raise SetupFault(f"Nothing is deployed in resource group '{group}': run setup.yml first.") from None
    _output(addresses.of_outputs(made))


def pack() -> None:
    """Write the function app's package."""
    written = package.write(values.PROJECT, PACKAGE)
    summarize("Function app", [f"Package of {len(written)} files."])


def resolve() -> None:
    """Have the function app read its secrets from the key vault."""
    read = references.await_resolved(os.environ[values.GROUP], os.environ["FUNCTION_APP"], _RESOLVED, say)
    summarize("Secrets", [f"Read from the key vault: {', '.join(read) or 'none'}."])


def indexed() -> None:
    """Wait until the function app has its functions."""
    group, app = os.environ[values.GROUP], os.environ["FUNCTION_APP"]
    prefix = f"{app}/".lower()

    def listing() -> list[str]:
        try:
            found = az("functionapp", "function", "list", "--resource-group", group, "--name", app) or []
        except NotThere:
            return []
        return [str(one["name"]).lower().removeprefix(prefix) for one in found]

    proof.await_functions(listing, FUNCTIONS, _INDEXED, say)
    summarize("Functions", [f"Ready: {', '.join(sorted(FUNCTIONS))}."])


def events() -> None:
    """Deploy the event subscriptions."""
    group = os.environ[values.GROUP]
    parameters = deployment.event_parameters(deployment.outputs(group))
    deployment.deploy_patiently(group, parameters, _SPREAD, say)
    summarize("Event subscriptions", ["Deployed."])


def prove() -> None:
    """Send the probe through the real path and wait for its run."""
    probe = proof.new_probe()
    token = az("account", "get-access-token", "--resource", "https://eventgrid.azure.net")["accessToken"]
    proof.send(os.environ["TOPIC_ENDPOINT"], probe, token, _TAKEN)
    say(f"sent {probe}")
    run = proof.await_run(
        os.environ["GITHUB_API_URL"], os.environ[values.REPOSITORY], os.environ["GITHUB_TOKEN"], probe, _CONFIRMED
    )
    link = f"[{run['display_title']}]({run['html_url']})"
    summarize("It works", [f"`{probe}` went through Event Grid, the function app and GitHub: {link}."])


def show() -> None:
    """Print the addresses."""
    made = deployment.outputs(os.environ[values.GROUP])
    lines = [f"| {name} | `{value}` |" for name, value in sorted(addresses.of_outputs(made).items())]
    summarize("Addresses", ["| | |", "|---|---|", *lines])


STEPS: Mapping[str, Callable[[], None]] = {
    "first": first,
    "check": check,
    "providers": register,
    "what-if": what_if,
    "core": core,
    "find": find,
    "secrets": resolve,
    "package": pack,
    "functions": indexed,
    "events": events,
    "probe": prove,
    "addresses": show,
}


def say(line: str) -> None:
    """Print one line at once."""
    print(" ".join(line.splitlines()), flush=True)


def summarize(title: str, lines: Iterable[str]) -> None:
    """Print a section, and append it to the job's summary."""
    text = "\n".join([f"### {title}", "", *lines, ""])
    print(text, flush=True)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write(text + "\n")


def _output(named: Mapping[str, str]) -> None:
    """Set the step's outputs; no value may hold a line end, which would begin another output."""
    if path := os.environ.get("GITHUB_OUTPUT"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{name}={' '.join(value.split())}\n" for name, value in named.items())


def main(arguments: list[str] | None = None) -> int:
    """Run one step."""
    parser = argparse.ArgumentParser(prog="python -m infra.setup", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    step = parser.parse_args(arguments).step
    try:
        STEPS[step]()
    except SetupFault as fault:
        for sentence in fault.sentences:
            escaped = sentence.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
            print(f"::error title=Set-up, {step}::{escaped}", flush=True)
        summarize(f"Set-up stopped at '{step}'", [f"- {' '.join(s.split())}" for s in fault.sentences])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
