"""Which token or GitHub App a local run's function app gets: the user's for the user's GitHub, else the stand-in's."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from functions import settings
from local import ports, run_config
from local.run_config import ConfigError, RunConfig

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
APP = {"GITHUB_APP_ID": "1234", "GITHUB_APP_INSTALLATION_ID": "42", "GITHUB_APP_PRIVATE_KEY": PEM}
FOREIGN, LOOPBACK = {"GITHUB_API_URL": "https://github.example/api/v3"}, {"GITHUB_API_URL": "http://127.0.0.1:9"}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests do not count."""
    for name in settings.NAMES:
        monkeypatch.delenv(name, raising=False)


def a_config(folder: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """The configuration of `signalbox up` in this environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parts = run_config.choose_parts(None, environment)
    return RunConfig(folder, ports.choose(folder, {}), parts, environment, "local-made-up")


@pytest.mark.parametrize(
    ("environment", "pat_token", "app_id"),
    [
        ({}, "local-made-up", None),
        ({"PAT_TOKEN": "ghp_mine"}, "local-made-up", None),
        (APP, "local-made-up", None),
        (LOOPBACK, "local-made-up", None),
        ({**LOOPBACK, "PAT_TOKEN": "ghp_mine"}, "ghp_mine", None),
        ({**FOREIGN, "PAT_TOKEN": "ghp_mine"}, "ghp_mine", None),
        ({**LOOPBACK, **APP}, "", "1234"),
        ({**FOREIGN, **APP}, "", "1234"),
    ],
)
def test_whose_credentials(
    environment: dict[str, str], pat_token: str, app_id: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly one of token and App reaches the function app, and the user's own never goes to the stand-in."""
    config = a_config(tmp_path, environment, monkeypatch)
    run_config.check(config)
    read = settings.read_settings(config.part_environment("functions"))
    assert read.pat_token == pat_token
    assert (None if read.github_app is None else read.github_app.app_id) == app_id


def test_a_foreign_github_needs_a_token_or_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names both ways."""
    with pytest.raises(ConfigError, match=r"PAT_TOKEN is needed: .*, or set GITHUB_APP_ID, GITHUB_APP_INSTALLATION_ID"):
        run_config.check(a_config(tmp_path, FOREIGN, monkeypatch))


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({**FOREIGN, "GITHUB_APP_ID": "1234"}, "GITHUB_APP_INSTALLATION_ID is not set, but GITHUB_APP_ID is"),
        ({**FOREIGN, **APP, "PAT_TOKEN": "ghp_mine"}, "PAT_TOKEN and GITHUB_APP_ID are both set"),
        ({**LOOPBACK, **APP, "GITHUB_APP_PRIVATE_KEY": "key.pem"}, "GITHUB_APP_PRIVATE_KEY is no RSA private key"),
    ],
)
def test_what_the_app_would_refuse(
    environment: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an App, both, an unreadable key: said before any part is started."""
    with pytest.raises(settings.SettingsError, match=says):
        run_config.check(a_config(tmp_path, environment, monkeypatch))
