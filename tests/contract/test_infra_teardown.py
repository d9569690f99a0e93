"""infra/teardown.sh: says what would go, takes away only what is ours, in an order that Azure can follow."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from infra_variants import CORE, EVENTS, INFRA, deployed, variants

TEARDOWN = INFRA / "teardown.sh"
# Stands in for the Azure CLI: keeps the ids of what is left in a file, and refuses a plan while its app is there.
AZ = """#!/usr/bin/env python3
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["AZ_STATE"])
arguments = sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
left = folder / "left"
ids = left.read_text().split()
command = " ".join(arguments[:2])
if command == "resource list":
    wanted = arguments[arguments.index("--query") + 1]
    kind = wanted.split("'")[1] if "type==" in wanted else ""
    print("\\n".join(one for one in ids if kind.lower() in one.lower()))
elif command == "resource delete":
    going = [one for one in arguments[3:] if one.startswith("/")]
    stay = [one for one in going if "/stuck/" in one]
    if any("/sites/" in one for one in ids):
        stay += [one for one in going if "/serverfarms/" in one]
    left.write_text(" ".join(one for one in ids if one not in going or one in stay))
    sys.exit(1 if stay else 0)
elif command == "rest --method":
    left.write_text(" ".join(one for one in ids if one not in " ".join(arguments)))
elif command == "keyvault list":
    print("kv-ours")
elif command == "identity list":
    print("principal")
elif command == "role assignment" and arguments[2] == "list":
    print("/role/1")
"""
GROUP = "/subscriptions/s/resourceGroups/g/providers"
OURS = [
    f"{GROUP}/Microsoft.Web/serverfarms/plan",
    f"{GROUP}/Microsoft.Web/sites/func",
    f"{GROUP}/Microsoft.MachineLearningServices/workspaces/mlw",
    f"{GROUP}/Microsoft.OperationalInsights/workspaces/log",
    f"{GROUP}/Microsoft.KeyVault/vaults/kv-ours",
]


def run(folder: Path, left: list[str], *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run the script; gives how it ended, and the calls of the Azure CLI."""
    (folder / "az").write_text(AZ)
    (folder / "az").chmod(0o755)
    (folder / "left").write_text(" ".join(left))
    (folder / "calls").touch()
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "AZ_STATE": str(folder)}
    ended = subprocess.run(
        ["bash", TEARDOWN, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return ended, [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def test_it_only_says_what_would_go(tmp_path: Path) -> None:
    """Without --yes nothing is deleted, and everything that would be is listed."""
    ended, calls = run(tmp_path, OURS, "g")
    assert ended.returncode == 0
    assert all(one in ended.stdout for one in OURS)
    assert {call[1] for call in calls} == {"list"}


def test_everything_of_ours_goes(tmp_path: Path) -> None:
    """With --yes it all goes, names that Azure would keep are freed, and what waits for another goes after it."""
    ended, calls = run(tmp_path, OURS, "g", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "left").read_text() == ""
    said = [" ".join(call) for call in calls]
    assert "keyvault purge --name kv-ours" in said
    assert "role assignment delete --ids /role/1" in said
    assert any("forceToPurge=true" in one for one in said)
    assert any(one.startswith("monitor log-analytics workspace delete --force") for one in said)
    assert all("--tag app=signalbox" in one for one in said if one.startswith("resource list"))
    assert not any(one.startswith("group delete") for one in said)


def test_it_stops_where_something_will_not_go(tmp_path: Path) -> None:
    """What Azure refuses to delete is named, and the script ends with a failure instead of going on for ever."""
    ended, _ = run(tmp_path, [f"{GROUP}/a/stuck/one"], "g", "--yes")
    assert ended.returncode == 1
    assert "/a/stuck/one" in ended.stderr


@pytest.mark.parametrize(("arguments", "words"), [((), "give the resource group"), (("g", "-y"), "no option")])
def test_wrong_arguments(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """They are refused before anything is looked at."""
    ended, calls = run(tmp_path, OURS, *arguments)
    assert ended.returncode != 0
    assert words in ended.stderr
    assert calls == []


def test_nothing_there(tmp_path: Path) -> None:
    """A second run finds nothing and says so."""
    ended, _ = run(tmp_path, [], "g", "--yes")
    assert (ended.returncode, "Nothing in g" in ended.stdout) == (0, True)


def test_everything_that_takes_a_tag_has_it() -> None:
    """Each resource with a region is found by its tag; those without go with what they stand in."""
    for name in (CORE, EVENTS):
        for variant in variants(name):
            for one in deployed(name, variant):
                if one.exists and "location" in one.body and not one.type.endswith("/computes"):
                    assert one.body["tags"]["app"] == "signalbox", one.type
