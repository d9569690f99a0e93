"""What is read is what was listed, and what cannot be read is named."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient
from mlops import settings
from mlops.data import lineage, storage
from mlops.report import Fault


@pytest.fixture
def container(azurite: str) -> Iterator[ContainerClient]:
    """Return a container of this test's own, with a folder of two files and what is no file."""
    made = BlobServiceClient.from_connection_string(azurite).create_container(f"data-{uuid.uuid4().hex}")
    for name in ("tulips/b.csv", "tulips/a.csv", "tulips/_SUCCESS", "tulips-too/c.csv"):
        made.upload_blob(name, name.encode())
    yield made
    made.delete_container()


def sha256(blobs: list[storage.BlobVersion]) -> str:
    """Return the digest of the snapshot of these files."""
    return str(lineage.snapshot("training-data", "tulips", "dataset", blobs)["sha256"])


def entry(container: ContainerClient, name: str, **changes: object) -> dict[str, object]:
    """Return a manifest's entry for a blob as it stands."""
    blob = container.get_blob_client(name)
    etag = blob.get_blob_properties().etag.strip('"')
    return {"url": blob.url, "etag": etag, "size": 12, "type": "Microsoft.Storage.BlobCreated", **changes}


def lines(*entries: dict[str, object]) -> bytes:
    """Return a manifest."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in entries)


def test_a_snapshot_holds_the_folders_files_in_order(container: ContainerClient) -> None:
    """Other folders and markers are no part of it; its sha256 changes with any file, and with nothing else."""
    listed = storage.list_folder(container, "tulips")
    assert [blob.name for blob in listed] == ["tulips/a.csv", "tulips/b.csv"]
    before = sha256(listed)
    assert sha256(storage.list_folder(container, "tulips")) == before
    assert sha256(listed[:1]) != before
    container.upload_blob("tulips/a.csv", b"more", overwrite=True)
    assert sha256(storage.list_folder(container, "tulips")) != before


def test_files_are_read_as_listed_and_kept_no_longer_than_needed(container: ContainerClient, tmp_path: Path) -> None:
    """The files arrive in the snapshot's order, under names that no uploader chose, and are gone after their turn."""
    for number in range(9):
        container.upload_blob(f"tulips/more-{number}.csv", f"tulips/more-{number}.csv".encode())
    listed = storage.list_folder(container, "tulips")
    most = 0
    for number, fetched in enumerate(storage.download(container, listed, tmp_path)):
        assert fetched.path is not None
        assert fetched.path.name == f"{number:05}.csv"
        assert fetched.path.read_bytes().decode() == listed[number].name == fetched.blob.name
        most = max(most, len(list(tmp_path.iterdir())))
    assert number == 10
    assert most <= 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", [True, False])
def test_a_file_that_changed_after_the_listing_is_named(container: ContainerClient, tmp_path: Path, gone: bool) -> None:
    """A file that was deleted or written again meanwhile is never read as if nothing had happened."""
    listed = storage.list_folder(container, "tulips")
    if gone:
        container.delete_blob("tulips/a.csv")
    else:
        container.upload_blob("tulips/a.csv", b"other", overwrite=True)
    first, second = storage.download(container, listed, tmp_path)
    assert first.path is None
    assert first.blob.name == "tulips/a.csv"
    assert first.missing == "was changed or deleted before it could be read"
    assert (second.blob.name, second.missing) == ("tulips/b.csv", "")


def test_a_burst_is_exactly_the_manifests_files(container: ContainerClient, tmp_path: Path) -> None:
    """Only created files of the manifest are read, at the version that their event told of, odd names included."""
    container.upload_blob("tulips/c d+%20ö.csv", b"odd")
    old = entry(container, "tulips/b.csv")
    container.upload_blob("tulips/b.csv", b"newer", overwrite=True)
    manifest = lines(
        entry(container, "tulips/c d+%20ö.csv"),
        old,
        entry(container, "tulips/_SUCCESS"),
        entry(container, "tulips/a.csv", type="Microsoft.Storage.BlobDeleted"),
    )
    listed = storage.list_burst(container, "tulips", manifest)
    assert [blob.name for blob in listed] == ["tulips/b.csv", "tulips/c d+%20ö.csv"]
    changed, odd = storage.download(container, listed, tmp_path)
    assert "changed" in changed.missing
    assert odd.blob.size == 3


def test_an_event_without_an_etag_pins_nothing(container: ContainerClient, tmp_path: Path) -> None:
    """What version was meant is not guessed: the file counts as missing."""
    listed = storage.list_burst(container, "tulips", lines(entry(container, "tulips/a.csv", etag=None, size=None)))
    (fetched,) = storage.download(container, listed, tmp_path)
    assert "without an ETag" in fetched.missing


@pytest.mark.parametrize(
    "url",
    [
        "https://attacker.example/devstoreaccount1/{container}/tulips/a.csv",
        "https://127.0.0.1.attacker.example/devstoreaccount1/{container}/tulips/a.csv",
        "http://127.0.0.1:10000/otheraccount/{container}/tulips/a.csv",
        "http://127.0.0.1:10000/devstoreaccount1/other/tulips/a.csv",
        "http://127.0.0.1:10000/devstoreaccount1/{container}/tulips-too/c.csv",
        "http://127.0.0.1:10000/devstoreaccount1/{container}",
        "http://127.0.0.1:10000/devstoreaccount1/{container}/tulips/../roses/a.csv",
        "http://127.0.0.1:10000/devstoreaccount1/{container}/tulips/%2e%2e/%2E%2E/manifests/a.csv",
        "http://127.0.0.1:10000/devstoreaccount1/{container}/tulips/./a.csv",
        "file:///devstoreaccount1/{container}/tulips/a.csv",
        "http://[::1/devstoreaccount1/{container}/tulips/a.csv",
        "",
    ],
)
def test_a_manifest_cannot_lead_elsewhere(container: ContainerClient, url: str) -> None:
    """A url of another host, account, container or folder is refused before anything is opened."""
    manifest = lines({"url": url.format(container=container.container_name), "etag": "0x1"})
    with pytest.raises(Fault, match="Line 1 of the manifest names"):
        storage.list_burst(container, "tulips", manifest)


@pytest.mark.parametrize(
    ("host", "taken"),
    [
        ("acme.blob.core.windows.net", True),
        ("acme.dfs.core.windows.net", True),
        ("ACME.blob.core.windows.net", True),
        ("acme2.blob.core.windows.net", False),
        ("acme.blob.core.windows.net.attacker.example", False),
        ("127.0.0.1", False),
    ],
)
def test_an_account_in_azure_is_known_by_its_hosts(host: str, taken: bool) -> None:
    """Hierarchical accounts tell of a file at their dfs host; no other host will do."""
    ours = ContainerClient("https://acme.blob.core.windows.net", "training-data")
    manifest = lines({"url": f"https://{host}/training-data/tulips/a.csv", "etag": "0x1"})
    if taken:
        assert [blob.name for blob in storage.list_burst(ours, "tulips", manifest)] == ["tulips/a.csv"]
        return
    with pytest.raises(Fault, match="nothing is trained"):
        storage.list_burst(ours, "tulips", manifest)


@pytest.mark.parametrize(("variable", "wanted"), [("", "dataset"), ("burst", "burst"), ("dataset", "dataset")])
def test_what_is_trained_on_is_a_setting_that_the_environment_overrides(
    monkeypatch: pytest.MonkeyPatch, variable: str, wanted: str
) -> None:
    """An empty variable, as a workflow hands it over, leaves the setting as it is."""
    monkeypatch.setenv("DATA", variable)
    assert lineage.train_on(settings.load_data_set("iris")) == wanted


def test_a_wrong_choice_of_data_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the variable and its choices."""
    monkeypatch.setenv("DATA", "everything")
    with pytest.raises(Fault, match="DATA is 'everything': it must be one of: dataset, burst"):
        lineage.train_on(settings.load_data_set("iris"))


def test_a_container_that_is_not_there_is_named(azurite: str) -> None:
    """The sentence names the container and storage's own reason."""
    missing = BlobServiceClient.from_connection_string(azurite).get_container_client("nowhere")
    with pytest.raises(Fault, match="'nowhere' cannot be listed: ContainerNotFound"):
        storage.list_folder(missing, "tulips")
