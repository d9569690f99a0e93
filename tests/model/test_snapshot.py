"""What is read is what was listed, and what cannot be read is named."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient
from mlops import lineage, storage
from mlops.report import Fault


@pytest.fixture
def container(azurite: str) -> Iterator[ContainerClient]:
    """Return a container of this test's own, with a folder of two files and what is no file."""
    made = BlobServiceClient.from_connection_string(azurite).create_container(f"data-{uuid.uuid4().hex}")
    for name in ("tulips/b.csv", "tulips/a.csv", "tulips/_SUCCESS", "tulips-too/c.csv"):
        made.upload_blob(name, name.encode())
    yield made
    made.delete_container()


def test_a_snapshot_holds_the_folders_files_in_order(container: ContainerClient) -> None:
    """Other folders and markers are no part of it; its sha256 changes with any file, and with nothing else."""
    listed = storage.list_folder(container, "tulips")
    assert [blob.name for blob in listed] == ["tulips/a.csv", "tulips/b.csv"]
    before = lineage.snapshot("training-data", "tulips", listed)["sha256"]
    assert lineage.snapshot("training-data", "tulips", storage.list_folder(container, "tulips"))["sha256"] == before
    container.upload_blob("tulips/a.csv", b"more", overwrite=True)
    after = storage.list_folder(container, "tulips")
    assert lineage.snapshot("training-data", "tulips", after)["sha256"] != before


def test_files_are_read_as_listed(container: ContainerClient, tmp_path: Path) -> None:
    """The files arrive in the snapshot's order, under names that no uploader chose."""
    paths = list(storage.download(container, storage.list_folder(container, "tulips"), tmp_path))
    assert [path.read_bytes() for path in paths] == [b"tulips/a.csv", b"tulips/b.csv"]
    assert [path.name for path in paths] == ["00000.csv", "00001.csv"]


@pytest.mark.parametrize("gone", [True, False])
def test_a_file_that_changed_after_the_listing_is_named(container: ContainerClient, tmp_path: Path, gone: bool) -> None:
    """A file that was deleted or written again meanwhile is never read as if nothing had happened."""
    listed = storage.list_folder(container, "tulips")
    if gone:
        container.delete_blob("tulips/b.csv")
    else:
        container.upload_blob("tulips/b.csv", b"other", overwrite=True)
    with pytest.raises(Fault, match=r"tulips/b\.csv was changed or deleted after it was listed"):
        list(storage.download(container, listed, tmp_path))


def test_a_container_that_is_not_there_is_named(azurite: str) -> None:
    """The sentence names the container and storage's own reason."""
    missing = BlobServiceClient.from_connection_string(azurite).get_container_client("nowhere")
    with pytest.raises(Fault, match="'nowhere' cannot be listed: ContainerNotFound"):
        storage.list_folder(missing, "tulips")
