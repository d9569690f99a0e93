"""A whole ARM template: ids, copy loops, children, nested deployments, what waits for what, and its functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from local.arm.deployment import Declared, outputs_of, resources_of
from local.arm.expressions import ArmError
from local.arm.functions import Runtime, unique_string
from local.arm.template import LOCAL_GROUP_ID, Template


def value(expression: Any, **parts: Any) -> Any:
    """What an expression gives as an output."""
    return outputs_of(Template({"outputs": {"o": {"value": expression}}, **parts}))["o"]


def deployed(*resources: dict[str, Any], **parts: Any) -> list[Declared]:
    """The resources of a template, with the API version that each needs."""
    return resources_of(Template({"resources": [{"apiVersion": "1", **one} for one in resources], **parts}))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("[toLower('A-b')]", "a-b"),
        ("[replace('a-b-c', '-', '')]", "abc"),
        ("[take('abcdef', 3)]", "abc"),
        ("[take(createArray(1, 2, 3), 2)]", [1, 2]),
        ("[skip(createArray(1, 2, 3), 2)]", [3]),
        ("[join(createArray('a', 'b'), ', ')]", "a, b"),
        ("[length(createArray())]", 0),
        ("[empty('')]", True),
        ("[empty(null())]", True),
        ("[empty(createArray(1))]", False),
        ("[and(true(), not(equals('a', 'A')))]", True),
        ("[or(equals(1, 2), equals(1, 1))]", True),
        ("[createObject('id', 'x')]", {"id": "x"}),
        ("[if(equals(1, 1), 'yes', 'no')]", "yes"),
        ("[if(equals(1, 2), 'yes', null())]", None),
        ("[cidrSubnet('10.60.0.0/22', 24, 2)]", "10.60.2.0/24"),
        ("[environment().suffixes.storage]", "core.windows.net"),
        (
            "[subscriptionResourceId('A.B/c', 'x')]",
            "/subscriptions/00000000-0000-0000-0000-000000000000/providers/A.B/c/x",
        ),
        ("[extensionResourceId('/s', 'A.B/c', 'x')]", "/s/providers/A.B/c/x"),
        ("[resourceGroup().id]", LOCAL_GROUP_ID),
    ],
)
def test_functions(expression: str, expected: Any) -> None:
    """Each gives what Azure's documentation says."""
    assert value(expression) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("[and('true', true())]", r"and\(\) takes true or false, not 'true'"),
        ("[toLower(1)]", r"toLower\(\) takes a string, not 1"),
        ("[take(1, 2)]", r"take\(\) takes a string or an array"),
        ("[createObject('a')]", r"createObject\(\) takes keys and values in pairs"),
        ("[cidrSubnet('10.0.0.0/24', 24, 1)]", r"cidrSubnet\(\) finds no subnet 1"),
        ("[copyIndex()]", r"copyIndex\(\) stands in no copy loop"),
        ("[subscriptionResourceId('A.B', 'x')]", "names no resource type"),
        ("[listKeys('x', '1')]", r"the function listKeys\(\) is not known to a local run"),
        ("[createArray(1)[1]]", "there is no 1 in"),
    ],
)
def test_refusals(expression: str, message: str) -> None:
    """What a function cannot take is refused with the function's name and the place."""
    with pytest.raises(ArmError, match=f"outputs.o: .*{message}"):
        value(expression)


def test_only_the_branch_that_is_taken_is_looked_at() -> None:
    """The other branch of if() may name what is not there."""
    assert value("[if(true(), 'yes', parameters('nobody'))]") == "yes"


@given(st.text(max_size=20), st.text(max_size=20))
def test_unique_strings(one: str, other: str) -> None:
    """They depend on what they are made of and on nothing else, and may stand in any name."""
    assert unique_string(one) == unique_string(one)
    assert (unique_string(one) == unique_string(other)) == (one == other)
    assert len(unique_string(one)) == 13
    assert unique_string(one).isalnum()
    assert unique_string(one).islower() or unique_string(one).isdigit()


def test_what_azure_alone_knows() -> None:
    """A reference is a text that names the resource and the property, wherever it is put."""
    found = value("[reference(resourceId('A.B/c', 'x'), '1', 'Full').identity.principalId]")
    assert isinstance(found, Runtime)
    assert (found.resource, found.path) == (f"{LOCAL_GROUP_ID}/providers/A.B/c/x", ("identity", "principalId"))
    assert str(found) in value("[concat('https://', reference(resourceId('A.B/c', 'x')).identity.principalId)]")


def test_copy_loops() -> None:
    """Each turn is a resource; copyIndex() is its turn, in its name, its body and its own loops."""
    zones = {"name": "zones", "count": "[length(variables('n'))]", "input": "[concat(copyIndex('zones'), copyIndex())]"}
    loop = {
        "type": "A.B/c",
        "name": "[variables('n')[copyIndex()]]",
        "copy": {"name": "all", "count": 2},
        "properties": {"copy": [zones]},
    }
    after = {"type": "A.B/d", "name": "last", "dependsOn": ["all"]}
    first, second, last = deployed(loop, after, variables={"n": ["x", "y"]})
    assert [first.name, second.name] == ["x", "y"]
    assert [first.body["properties"], second.body["properties"]] == [{"zones": ["00", "10"]}, {"zones": ["01", "11"]}]
    assert last.waits_for == (first.id, second.id)


def test_children() -> None:
    """A child has its parent's type, name and fate before its own."""
    child = {"type": "d", "name": "y", "apiVersion": "1"}
    parent, found = deployed({"type": "A.B/c", "name": "x", "condition": False, "resources": [child]})
    assert (found.type, found.name, found.exists) == ("A.B/c/d", "x/y", False)
    assert found.id == f"{parent.id}/d/y"


def test_nested_deployments() -> None:
    """Their resources go into the group that they name, and are marked as theirs."""
    inner = {"type": "A.B/c", "name": "[parameters('n')]", "apiVersion": "1"}
    outer = {
        "type": "Microsoft.Resources/deployments",
        "name": "nested",
        "resourceGroup": "other",
        "properties": {"mode": "Incremental", "template": {"resources": [inner]}},
    }
    deployment, found = deployed(outer, parameters={"n": {"defaultValue": "x"}})
    assert found.id.endswith("/resourceGroups/other/providers/A.B/c/x")
    assert found.deployment == deployment.id
    outer["properties"] = {**outer["properties"], "expressionEvaluationOptions": {"scope": "Inner"}}  # type: ignore[dict-item]
    with pytest.raises(ArmError, match="a scope of its own"):
        deployed(outer, parameters={"n": {"defaultValue": "x"}})


def test_an_extension_stands_on_its_scope() -> None:
    """The id of a role assignment begins with what it is for."""
    (found,) = deployed({"type": "Microsoft.Authorization/roleAssignments", "name": "g", "scope": "/s/x"})
    assert found.id == "/s/x/providers/Microsoft.Authorization/roleAssignments/g"


def test_depends_on() -> None:
    """It names a resource by its id or its name; what the template does not have is refused, where it counts."""
    first = {"type": "A.B/c", "name": "x"}
    for wanted in ("x", "[resourceId('A.B/c', 'X')]"):
        one, other = deployed(first, {"type": "A.B/c", "name": "y", "dependsOn": [wanted]})
        assert other.waits_for == (one.id,)
    with pytest.raises(ArmError, match=r"resources\[0\]\.dependsOn names nobody"):
        deployed({**first, "dependsOn": ["nobody"]})
    assert deployed({**first, "dependsOn": ["nobody"], "condition": False})[0].waits_for == ()


def test_a_name_of_too_few_parts() -> None:
    """Azure wants a part for each kind in the type."""
    with pytest.raises(ArmError, match="needs a name of 2 parts, not 'x'"):
        deployed({"type": "A.B/c/d", "name": "x"})
