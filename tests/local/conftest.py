"""Fixtures of the local tests: what operators' commands, `signalbox doctor` and Event Grid are held against."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from doctor_scenes import DOCUMENTS, GOOD, WORKFLOW, Api
from eventgrid_scenes import function  # noqa: F401 - a fixture for the modules about Event Grid
from operator_account import account, signalbox  # noqa: F401 - fixtures for all modules here


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        yield server


@pytest.fixture
def github(api: Api, contracts: Path) -> Api:
    """A repository with one workflow that hears the route; its documents follow GitHub's own description."""
    content = {
        "type": "file", "encoding": "base64", "size": len(GOOD), "name": "train.yml", "path": WORKFLOW.path,
        "content": base64.encodebytes(GOOD.encode()).decode(), "sha": "0" * 40, "url": "https://github.test/c",
        "git_url": "https://x", "html_url": "https://x", "download_url": "https://x",
        "_links": {"git": "https://x", "html": "https://x", "self": "https://x"},
    }  # fmt: skip
    prefix = {"use_default": True, "sub_claim_prefix": "repo:octo@1/models@2"}
    listed = {"total_count": 1, "workflows": [DOCUMENTS.workflow(WORKFLOW)]}
    description = json.loads((contracts / "github/openapi.pruned.json").read_text())["components"]
    for name, document in (("content-file", content), ("oidc-custom-sub-repo", prefix)):
        jsonschema.validate(document, {"$ref": f"#/components/schemas/{name}", "components": description})
    base = "/repos/octo/models"
    api.answers = {
        base: (200, DOCUMENTS.repository()),
        f"{base}/actions/workflows": (200, listed),
        f"{base}/contents/.github/workflows/train.yml": (200, content),
        f"{base}/actions/oidc/customization/sub": (200, prefix),
    }
    return api
