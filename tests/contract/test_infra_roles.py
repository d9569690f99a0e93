"""Every identity may do what its code and Azure's services do with it, on just what they work on, and no more."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from infra_permissions import PERMISSIONS, ROLES, UNPRIVILEGED
from infra_roles import (
    ADMINISTRATORS,
    CALLERS,
    DEPLOYING,
    TARGETS,
    Caller,
    assignments,
    calls_of,
    role_faults,
    unknown_calls,
)
from infra_variants import CORE, EVENTS, ids, template, together, variants

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/infrastructure.md"


def test_every_call_is_known() -> None:
    """Every call of an Azure SDK that functions/ or code/ makes stands in a table; so a new one cannot slip in."""
    called = {method for caller in CALLERS for method in calls_of(caller)}
    assert [fault for caller in CALLERS for fault in unknown_calls(calls_of(caller))] == []
    assert len(called & set(PERMISSIONS)) > 25


def test_no_call_is_listed_twice() -> None:
    """A call either needs a permission or needs none."""
    assert set(PERMISSIONS) & set(UNPRIVILEGED) == set()


def test_roles_are_needed_and_sufficient() -> None:
    """In every variant: no need goes unmet, and without any one of the roles something would."""
    for variant in variants(CORE):
        if "/deploys/" not in variant:
            faults = role_faults(assignments(together(variant, "queue")), ids(variant, TARGETS))
            if variant.startswith("new/their-workspace/"):
                # Which registry their workspace has is not said: containerRegistryNewOrExisting asks for it.
                assert [fault.partition(":")[2] for fault in faults] == [" images of a job's environment"], variant
            else:
                assert faults == [], variant


def test_the_right_to_deploy() -> None:
    """With gitHubDeploys our own identity may deploy and assign roles, and has nothing else that it had not before."""
    for variant in variants(CORE):
        held = [one for one in assignments(together(variant)) if one.role.name in ADMINISTRATORS]
        if "/own-identity/deploys/" in variant:
            assert role_faults(held, ids(variant, TARGETS), [DEPLOYING]) == []
        else:
            assert held == []


def test_only_these_roles_can_be_handed_on() -> None:
    """The identity that deploys may assign the roles of both templates, and none that would make it more."""
    variant = next(variant for variant in variants(CORE) if "/own-identity/deploys/" in variant)
    resources = together(variant, "queue")
    assigned = {
        one.body["properties"]["roleDefinitionId"].rpartition("/")[2]
        for one in resources
        if one.exists and one.type.endswith("/roleAssignments")
    }
    (condition,) = {
        one.body["properties"]["condition"]
        for one in resources
        if one.exists and "condition" in one.body.get("properties", {})
    }
    named = re.findall(r"\{([0-9a-f, -]+)\}", condition)
    assert len(named) == 2
    for listed in named:
        roles = set(listed.split(", "))
        assert {ROLES[role].name for role in assigned - roles} == set(ADMINISTRATORS)
        assert roles <= assigned


def test_principals_are_service_principals() -> None:
    """Every assignment says so: a new identity is not found in the directory at once, and Azure then waits for it."""
    for name in (CORE, EVENTS):
        found = re.findall(r'"principalType": "(\w+)"', json.dumps(template(name)))
        assert set(found) == {"ServicePrincipal"}


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
def test_documentation_names_every_role(caller: Caller) -> None:
    """docs/infrastructure.md lists each identity's roles and where they hold, and no other."""
    variant = next(variant for variant in variants(CORE) if "/own-identity/deploys/" in variant)
    where = {target_id.lower(): name for name, target_id in ids(variant, TARGETS).items()}
    held = {
        (one.caller, one.role.name, where[one.scope.lower()])
        for one in assignments(together(variant, "queue"))
        if one.caller == caller.name
    }
    rows = re.findall(
        r"^\| ([a-z ]+) \| ([^|]+?) \| `(\w+)`[^|]*\| [^|]+ \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {row for row in rows if row[0] == caller.name} == held
