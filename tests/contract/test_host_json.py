"""host.json against its published schema, and as our host reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from local.functions_host.settings import HostSettingsError, QueueSettings, read_host_settings

HOST_JSON = Path(__file__).resolve().parents[2] / "host.json"


def test_host_json_follows_its_schema(contracts: Path) -> None:
    """Every setting is one that the platform knows, with a value that it takes."""
    schema = json.loads((contracts / "schemastore/host.json").read_text())
    jsonschema.Draft7Validator(schema).validate(json.loads(HOST_JSON.read_text()))


def test_our_host_reads_the_same_settings() -> None:
    """The queue settings and the route prefix reach our host; the bundle serves Event Grid and queues."""
    settings = read_host_settings(HOST_JSON)
    assert settings.route_prefix == "api"
    assert settings.queues.message_encoding == "base64"
    assert settings.queues.max_dequeue_count == 5
    assert 0 < settings.queues.visibility_timeout <= 60
    assert settings.queues.max_polling_interval <= 2
    assert json.loads(HOST_JSON.read_text())["extensionBundle"]["version"] == "[4.*, 5.0.0)"


def test_without_a_file_the_platforms_defaults_hold(tmp_path: Path) -> None:
    """A missing host.json means Azure's defaults."""
    assert read_host_settings(tmp_path / "host.json").queues == QueueSettings()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        ({"extensions": {"queues": {"batchSize": 33}}}, "batchSize"),
        ({"extensions": {"queues": {"visibilityTimeout": "10"}}}, "visibilityTimeout"),
        ({"extensions": {"queues": {"messageEncoding": "utf-7"}}}, "messageEncoding"),
        ({"extensions": {"http": {"routePrefix": 5}}}, "routePrefix"),
        ({"extensions": []}, "extensions"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, document: Any, words: str) -> None:
    """The sentence names the setting."""
    path = tmp_path / "host.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(HostSettingsError, match=words):
        read_host_settings(path)
