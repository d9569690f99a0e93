"""Faults planted in the templates, each of a kind that a schema does not see: the checks name every one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from infra_checks import ArmCheck, dependency_faults, flex_faults, name_faults, secret_faults
from infra_roles import TARGETS, Caller, assignments, calls_of, role_faults, unknown_calls
from infra_variants import CORE, EVENTS, SECRET, deployed, ids, outputs, template, together, variants

from local.arm.expressions import ArmError

FIRST = variants(CORE)[0]


def resource(whole: dict[str, Any], kind: str) -> dict[str, Any]:
    """The first resource of a type."""
    found: dict[str, Any] = next(one for one in whole["resources"] if one["type"] == kind)
    return found


WAITING = [
    (name, index)
    for name in (CORE, EVENTS)
    for index, one in enumerate(template(name)["resources"])
    if one.get("dependsOn")
]


@pytest.mark.parametrize(("name", "index"), WAITING)
def test_a_resource_that_waits_for_nothing(name: str, index: int) -> None:
    """Take any resource's dependsOn away, and in some variant it names what may not be there yet."""
    broken = template(name)
    del broken["resources"][index]["dependsOn"]
    last = [variant for variant in variants(name) if "existing/" not in variant and "/their-" not in variant][-1]
    assert dependency_faults(deployed(name, last, broken)) != []


def test_a_circle() -> None:
    """Two that wait for each other are both named."""
    broken = template(CORE)
    resource(broken, "Microsoft.Storage/storageAccounts")["dependsOn"] = ["stateContainers"]
    faults = dependency_faults(deployed(CORE, FIRST, broken))
    assert "resources[0] waits for itself" in faults
    assert len([fault for fault in faults if fault.endswith("waits for itself")]) > 2


def test_waiting_for_what_is_not_declared() -> None:
    """A dependsOn that names no resource of the template is refused, as Azure refuses it."""
    broken = template(CORE)
    broken["resources"][1]["dependsOn"].append("nobody")
    with pytest.raises(ArmError, match="names nobody, which the template does not declare"):
        deployed(CORE, FIRST, broken)


@pytest.mark.parametrize("secret", ["pat_token", "gitHubAppPrivateKey"])
def test_leaked_secrets(secret: str) -> None:
    """A secret in an output, in an app setting, or within a longer text, is seen."""
    broken = template(CORE)
    broken["outputs"]["leak"] = {"type": "string", "value": f"[concat('x', parameters('{secret}'))]"}
    resource(broken, "Microsoft.Web/sites/config")["properties"]["PAT_TOKEN"] = f"[parameters('{secret}')]"
    faults = secret_faults(deployed(CORE, FIRST, broken), outputs(CORE, FIRST, broken), SECRET)
    assert len(faults) == 2
    assert faults[0] == "output leak holds a secret"
    assert "(Microsoft.Web/sites/config) holds a secret" in faults[1]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("customTopic", "[concat(parameters('eventGridTopicPrefix'), '_', variables('unique'))]"),
        ("workspaceVault", "[concat('kv--', variables('unique'))]"),
        ("workspaceVault", "[concat('kv-', variables('stem'), 'ml-', variables('unique'))]"),
        ("stateTables", ["heads", "the-ledger"]),
        ("stateQueues", ["signalbox-work", "Events"]),
    ],
)
def test_bad_names(variable: str, value: Any) -> None:
    """A name with a sign too many, too long, or in the wrong case is seen."""
    broken = template(CORE)
    broken["variables"][variable] = value
    assert name_faults(deployed(CORE, FIRST, broken)) != []


def test_what_a_flex_plan_refuses() -> None:
    """A site property and an app setting of other plans are seen."""
    broken = template(CORE)
    resource(broken, "Microsoft.Web/sites")["properties"]["siteConfig"]["ftpsState"] = "Disabled"
    resource(broken, "Microsoft.Web/sites/config")["properties"]["FUNCTIONS_WORKER_RUNTIME"] = "python"
    found = [fault.partition(": ")[2] for fault in flex_faults(deployed(CORE, FIRST, broken))]
    assert found == ["ftpsState is refused on Flex", "FUNCTIONS_WORKER_RUNTIME is refused on Flex"]


ROLE_ASSIGNMENTS = [
    index
    for index, one in enumerate(template(CORE)["resources"])
    if one["type"] == "Microsoft.Authorization/roleAssignments" and "gitHubDeploys" not in one.get("condition", "")
]


@pytest.mark.parametrize("index", ROLE_ASSIGNMENTS)
def test_a_role_taken_away(index: int) -> None:
    """Without any one of the role assignments, somebody lacks a permission, and the fault says who."""
    broken = template(CORE)
    broken["resources"][index]["condition"] = False
    faults = role_faults(assignments(together(FIRST, "queue", broken)), ids(FIRST, TARGETS))
    assert faults != []
    assert all(" lacks " in fault for fault in faults)


def test_a_role_too_many() -> None:
    """A role that nothing needs is seen, and so is one that holds on more than it is needed for."""
    broken = template(CORE)
    reader = next(one for one in broken["resources"] if "manifestContainerId" in one.get("scope", ""))
    broken["resources"].append({**reader, "scope": "[variables('vaultId')]", "name": "another"})
    (fault,) = role_faults(assignments(together(FIRST, "queue", broken)), ids(FIRST, TARGETS))
    assert fault.startswith("training has Storage Blob Data Reader on ")
    assert fault.endswith(", and nothing needs it")


def test_a_call_that_no_role_is_known_for(tmp_path: Path) -> None:
    """A new call of an SDK, of storage or of azure-ai-ml, fails the check until it stands in a table."""
    code = tmp_path / "code/new.py"
    code.parent.mkdir()
    code.write_text(
        "from azure.storage.blob import ContainerClient\n"
        "def new(container, client):\n"
        "    container.set_container_access_policy({})\n"
        "    client.schedules.begin_delete('x')\n"
    )
    called = calls_of(Caller("new", (), ("code/*.py",)), tmp_path)
    assert [fault.split(":")[0] for fault in unknown_calls(called)] == ["code/new.py"] * 2
    assert set(called) == {"set_container_access_policy", "schedules.begin_delete"}


@pytest.mark.parametrize(
    ("kind", "place", "value", "words"),
    [
        ("Microsoft.Storage/storageAccounts", "minimumTlsVersion", "TLS9", "TLS9"),
        ("Microsoft.KeyVault/vaults", "enableRbacAuthorisation", True, "unknown property"),
        ("Microsoft.Web/serverfarms", "reserved", "yes", "yes"),
    ],
)
def test_what_an_expression_hides(contracts: Path, kind: str, place: str, value: Any, words: str) -> None:
    """A wrong value behind an expression is invisible to the schemas, and seen once it is evaluated."""
    broken = template(CORE)
    broken["variables"]["hidden"] = value
    resource(broken, kind)["properties"][place] = "[variables('hidden')]"
    check = ArmCheck(contracts)
    faults = [fault for one in deployed(CORE, FIRST, broken) if one.exists for fault in check.faults(one)]
    assert faults
    assert all(words in fault for fault in faults), faults
