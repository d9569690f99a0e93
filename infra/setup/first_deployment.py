"""The first deployment, from a person's own machine: `python3 -m infra.setup first`, with `az` and `gh` logged in.

It makes the identity with which setup.yml signs in from then on. Nobody but an owner of the resource group can do that:
it assigns roles.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from infra.setup import deployment, providers, subjects
from infra.setup.addresses import subscription_and_group
from infra.setup.faults import SetupFault
from infra.setup.values import Values, cloud_settings


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Register providers, make the group, deploy; gives the deployment's outputs. Raises SetupFault."""
    repository = gh("repo", "view", "--json", "nameWithOwner,url,defaultBranchRef")
    name, branch = str(repository["nameWithOwner"]), str(repository["defaultBranchRef"]["name"])
    prefix = gh("api", f"repos/{name}/actions/oidc/customization/sub").get("sub_claim_prefix")
    if not prefix:
        raise SetupFault(f"GitHub does not tell how tokens of {name} sign in: you need to be an admin of it.")
    group = str(cloud_settings("workspace")["resource_group"])
    say(f"{name} goes into resource group {group}; its tokens sign in as {prefix}:…")
    providers.register(deployment.needed_providers(), say)
    deployment.ensure_group(group)
    server = str(repository["url"]).removesuffix(f"/{name}")
    parameters = deployment.core_parameters(
        Values(group, name, "", oidc=True), server, subjects.of_prefix(str(prefix), branch)
    )
    parameters["gitHubDeploys"] = {"value": True}
    say("deploying; this takes about ten minutes")
    return deployment.deploy(group, deployment.CORE, deployment.CORE_TEMPLATE, parameters)


def commands(made: Mapping[str, Any]) -> list[str]:
    """What to type next: the outputs of the deployment as the repository's variables, and the one secret."""
    subscription, group = subscription_and_group(str(made["workspaceId"]))
    variables = {
        "AZURE_CLIENT_ID": made["gitHubIdentityClientId"],
        "AZURE_TENANT_ID": made["tenantId"],
        "AZURE_SUBSCRIPTION_ID": subscription,
        "RESOURCE_GROUP": group,
    }
    return [
        *(f"gh variable set {name} --body {value}" for name, value in variables.items()),
        "gh secret set PATTOKEN",
        "gh workflow run setup.yml",
    ]


def gh(*arguments: str) -> Any:
    """Run the GitHub CLI; gives its JSON. Raises SetupFault."""
    try:
        done = subprocess.run(["gh", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SetupFault("The GitHub CLI is not installed: 'gh' is not on PATH.") from None
    if done.returncode != 0:
        raise SetupFault(f"'gh {' '.join(arguments[:2])}' failed: {' '.join(done.stderr.split())[:500]}")
    return json.loads(done.stdout)
