"""Calls of the Azure CLI, which has signed in before. Its answers are JSON; its refusals become sentences."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from infra.setup.faults import SetupFault

_MENDS = {
    "MissingSubscriptionRegistration": "run the step 'providers' again, or 'az provider register --namespace NAME'",
    "AuthorizationFailed": (
        "the identity that setup.yml signs in with needs, on the resource group, the roles Contributor and "
        "Role Based Access Control Administrator (docs/guide.md, step 2)"
    ),
    "ResourceGroupNotFound": "make the group, or give .cloud/.azure/workspace.json a location and let set-up make it",
    "SkuNotAvailable": "choose another region or size in infra/params.deploy.core-infra.json",
    "QuotaExceeded": "ask for more quota in that region, or choose another one",
    "FlagMustBeSetForRestore": "a key vault of this name was deleted: 'az keyvault recover' it, or choose another name",
}
"""What Azure's error codes ask for. An unknown one is shown as Azure says it."""

_LONGEST = 2000
_CODE = re.compile(r"\b(" + "|".join(_MENDS) + r")\b")


class AzureFault(SetupFault):
    """Azure, or its command line, refused a call; `code` is Azure's own word where its mend is known here, else ""."""

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(sentence)
        self.code = code


class NotThere(AzureFault):
    """What was asked for does not exist (yet)."""


def az(*arguments: str) -> Any:
    """Run `az`; gives its JSON, None where it prints nothing. Raises AzureFault, NotThere for what is not there."""
    try:
        done = subprocess.run(
            ["az", *arguments, "--output", "json", "--only-show-errors"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise SetupFault("The Azure CLI is not installed: 'az' is not on PATH. GitHub's runners have it.") from None
    if done.returncode == 0:
        return json.loads(done.stdout) if done.stdout.strip() else None
    said = " ".join(done.stderr.split())[-_LONGEST:]
    known = _CODE.search(done.stderr)
    code = known[0] if known else ""
    # Exit status 3 is the Azure CLI's own word for "not found".
    kind = NotThere if done.returncode == 3 or code == "ResourceGroupNotFound" else AzureFault
    mend = f" Mend: {_MENDS[code]}." if code else ""
    raise kind(f"'az {' '.join(arguments[:3])}' failed: {said}.{mend}", code)
