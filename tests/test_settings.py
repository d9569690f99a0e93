"""Settings: what the environment may say, what is wrong with it, and that each one is documented and read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, strategies as st

from functions import settings
from functions.settings import NAMES, ROOT, GitHubApp, SettingsError, StateAccount, read_settings

GOOD = {
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "GITHUB_REPOSITORY": "octo/models",
    "PAT_TOKEN": "github_pat_x",
    "SIGNALBOX_DATA_ACCOUNTS": "acme",
}


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = RSA,
    form: PrivateFormat = PrivateFormat.TraditionalOpenSSL,
    secrecy: KeySerializationEncryption | None = None,
) -> str:
    """A private key as a .pem file; GitHub gives RSA keys in the traditional form."""
    return key.private_bytes(Encoding.PEM, form, secrecy or NoEncryption()).decode()


APP = {
    "PAT_TOKEN": "",
    "GITHUB_APP_ID": "1234",
    "GITHUB_APP_INSTALLATION_ID": "42",
    "GITHUB_APP_PRIVATE_KEY": pem(),
}


def wrong(**changes: str) -> list[str]:
    """The sentences about these settings."""
    with pytest.raises(SettingsError) as caught:
        read_settings({**GOOD, **changes})
    return str(caught.value).splitlines()


def test_good_settings() -> None:
    """What must be set, and the defaults of the rest."""
    read = read_settings(GOOD)
    assert read.state == StateAccount(connection_string="UseDevelopmentStorage=true")
    assert read.github_api_url == "https://api.github.com"
    assert read.repository == "octo/models"
    assert read.pat_token == "github_pat_x"
    assert read.github_app is None
    assert read.routes == ROOT / "routes.yml"
    assert read.data_accounts == {"acme"}


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    """Blanks around a value do not count, slashes at the end of the address neither."""
    routes = tmp_path / "mine.yml"
    routes.touch()
    read = read_settings(
        {
            **GOOD,
            "AzureWebJobsStorage": "",
            "AzureWebJobsStorage__accountName": "state",
            "AzureWebJobsStorage__clientId": "id",
            "GITHUB_API_URL": " http://127.0.0.1:8080/ ",
            "SIGNALBOX_ROUTES": str(routes),
            "SIGNALBOX_DATA_ACCOUNTS": " Acme, other ,,",
        }
    )
    assert read.state == StateAccount(name="state", client_id="id")
    assert read.github_api_url == "http://127.0.0.1:8080"
    assert read.routes == routes
    assert read.data_accounts == {"acme", "other"}


@pytest.mark.parametrize("url", ["https://github.example/api/v3", "http://localhost:1", "http://[::1]:1", "HTTPS://X"])
def test_addresses_that_are_safe(url: str) -> None:
    """A token is sent over https, or without leaving the machine."""
    assert read_settings({**GOOD, "GITHUB_API_URL": url}).github_api_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.github.com",
        "ftp://127.0.0.1",
        "api.github.com",
        "https://",
        "https://[::1",
        "http://127.0.0.1.attacker.example",
        "http://127.0.0.1@attacker.example",
    ],
)
def test_addresses_that_are_not(url: str) -> None:
    """Anything else is refused with the setting's name."""
    (sentence,) = wrong(GITHUB_API_URL=url)
    assert sentence.startswith("GITHUB_API_URL is '")
    assert sentence.endswith("it must be https, or http on loopback")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AzureWebJobsStorage", " ", "AzureWebJobsStorage__accountName is not set"),
        ("GITHUB_REPOSITORY", "", "GITHUB_REPOSITORY is '': write the repository as OWNER/NAME"),
        ("GITHUB_REPOSITORY", "https://github.com/octo/models", "write the repository as OWNER/NAME"),
        ("GITHUB_REPOSITORY", "octo/..", "write the repository as OWNER/NAME"),
        ("GITHUB_REPOSITORY", "octo/models?x", "write the repository as OWNER/NAME"),
        ("PAT_TOKEN", "", "PAT_TOKEN is not set"),
        ("PAT_TOKEN", "@Microsoft.KeyVault(SecretUri=x)", "PAT_TOKEN is an unresolved Key Vault reference"),
        ("PAT_TOKEN", "“ghp_x”", "PAT_TOKEN holds characters that no token has"),
        ("PAT_TOKEN", "ghp_x\nX-Evil: 1", "PAT_TOKEN holds characters that no token has"),
        ("SIGNALBOX_DATA_ACCOUNTS", " , ", "SIGNALBOX_DATA_ACCOUNTS is not set"),
        ("SIGNALBOX_DATA_ACCOUNTS", "acme,my_data", "SIGNALBOX_DATA_ACCOUNTS holds 'my_data', which is no"),
        ("SIGNALBOX_ROUTES", "gone.yml", "SIGNALBOX_ROUTES is '"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(name: str, value: str, says: str) -> None:
    """One sentence, which names the setting and says what to write."""
    (sentence,) = wrong(**{name: value})
    assert says in sentence


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(pem(), id="file"),
        pytest.param(pem(form=PrivateFormat.PKCS8), id="pkcs8"),
        pytest.param(pem().replace("\n", "\r\n"), id="crlf"),
        pytest.param(pem().replace("\n", "\\n"), id="one line"),
    ],
)
def test_a_github_app(key: str) -> None:
    """Instead of a token: its id, its installation and its key, as the file is or on one line."""
    read = read_settings({**GOOD, **APP, "GITHUB_APP_PRIVATE_KEY": f" {key} "})
    assert read.pat_token == ""
    assert isinstance(read.github_app, GitHubApp)
    assert (read.github_app.app_id, read.github_app.installation_id) == ("1234", "42")
    assert read.github_app.private_key == key.strip().replace("\\n", "\n")


def test_a_client_id_is_an_app_id() -> None:
    """GitHub takes it in the JWT, and shows it beside the App ID."""
    read = read_settings({**GOOD, **APP, "GITHUB_APP_ID": "Iv23liAbC.x"})
    assert read.github_app is not None
    assert read.github_app.app_id == "Iv23liAbC.x"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PAT_TOKEN", "ghp_x", "PAT_TOKEN and GITHUB_APP_ID are both set: take PAT_TOKEN away to use the GitHub App"),
        ("GITHUB_APP_ID", "", "GITHUB_APP_ID is not set, but GITHUB_APP_INSTALLATION_ID is: a GitHub App needs all of"),
        ("GITHUB_APP_INSTALLATION_ID", "", "GITHUB_APP_INSTALLATION_ID is not set, but GITHUB_APP_ID is"),
        ("GITHUB_APP_PRIVATE_KEY", " ", "GITHUB_APP_PRIVATE_KEY is not set, but GITHUB_APP_ID is"),
        ("GITHUB_APP_ID", "my-app", "GITHUB_APP_ID is neither a number nor a client id"),
        ("GITHUB_APP_INSTALLATION_ID", "42/../43", "GITHUB_APP_INSTALLATION_ID is no number"),
        ("GITHUB_APP_INSTALLATION_ID", "٤٢", "GITHUB_APP_INSTALLATION_ID is no number"),
        *(
            (name, "@Microsoft.KeyVault(SecretUri=x)", f"{name} is an unresolved Key Vault reference")
            for name in ("GITHUB_APP_ID", "GITHUB_APP_INSTALLATION_ID", "GITHUB_APP_PRIVATE_KEY")
        ),
    ],
)
def test_what_is_wrong_with_an_app_is_said(name: str, value: str, says: str) -> None:
    """Half an App, an App beside a token, a reference that was not resolved: one sentence, which names the setting."""
    (sentence,) = wrong(**{**APP, name: value})
    assert sentence.startswith(says)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("key.pem", id="file name"),
        pytest.param(pem()[:200], id="cut"),
        pytest.param(pem().replace("PRIVATE", "PUBLIC"), id="public"),
        pytest.param(pem(ec.generate_private_key(ec.SECP256R1())), id="no rsa"),
        pytest.param(pem(secrecy=BestAvailableEncryption(b"password")), id="password"),
        pytest.param("\udc80", id="no text"),
    ],
)
def test_an_unreadable_key_is_said_at_the_start(key: str) -> None:
    """Not only when the first dispatch is to be signed; the key itself is not repeated."""
    (sentence,) = wrong(**{**APP, "GITHUB_APP_PRIVATE_KEY": key})
    assert sentence.startswith("GITHUB_APP_PRIVATE_KEY is no RSA private key in PEM form without a password: set the")
    assert key[:100] not in sentence


def test_a_secret_is_never_repeated() -> None:
    """Neither in the message about a refused token nor in the settings as text: both end in logs."""
    assert "ghp" not in "".join(wrong(PAT_TOKEN="“ghp_secret”", GITHUB_REPOSITORY=""))
    assert "github_pat_x" not in repr(read_settings(GOOD))
    assert "PRIVATE KEY" not in repr(read_settings({**GOOD, **APP}))


def test_everything_wrong_is_said_at_once() -> None:
    """An empty environment names all that must be set."""
    with pytest.raises(SettingsError) as caught:
        read_settings({})
    sentences = str(caught.value).splitlines()
    assert [sentence.split(" ")[0] for sentence in sentences] == [
        "AzureWebJobsStorage__accountName",
        "GITHUB_REPOSITORY",
        "PAT_TOKEN",
        "SIGNALBOX_DATA_ACCOUNTS",
    ]


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=30)))
def test_any_environment_is_settings_or_sentences(environment: dict[str, str]) -> None:
    """Nothing that can stand in a setting lets the app die without a word."""
    try:
        read_settings(environment)
    except SettingsError as error:
        message = str(error)
    else:
        message = "fine"
    assert message


class _Recorder(dict[str, str]):
    """An environment that notes what it was asked for."""

    asked: set[str]

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.__dict__.setdefault("asked", set()).add(name)
        return super().get(name, default)


def test_every_name_is_read_and_no_other() -> None:
    """NAMES is the list of what read_settings asks the environment for."""
    environment = _Recorder(GOOD)
    read_settings(environment)
    assert environment.asked == set(NAMES)


def test_every_setting_is_documented() -> None:
    """docs/settings.md has a row for each setting, complete, and none for a setting that is not there."""
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]
    assert {row[0].strip("`") for row in rows} == set(NAMES)
    assert all(len(row) == 5 and all(row) for row in rows)


def test_no_other_module_reads_the_environment() -> None:
    """One module reads the environment; function_app.py hands it over."""
    reading = re.compile(r"os\.environ|getenv|environ\[")
    readers = [
        path.relative_to(ROOT).as_posix()
        for path in [*(ROOT / "functions").rglob("*.py"), ROOT / "function_app.py"]
        if reading.search(path.read_text(encoding="utf-8"))
    ]
    assert readers == ["function_app.py"]
    assert Path(settings.__file__).is_relative_to(ROOT / "functions")
