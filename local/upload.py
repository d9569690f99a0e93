"""`signalbox upload`: put files into the local container, as any program with azure-storage-blob would."""

from __future__ import annotations

import json
from pathlib import Path

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient

from local.provision import DATA_CONTAINER


class UploadError(RuntimeError):
    """The files could not be uploaded; the message says why and what to do."""


def upload(folder: Path, files: list[Path], prefix: str) -> list[str]:
    """Upload into the run whose state is in `folder`; gives the blobs' names. Raises UploadError."""
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UploadError(f"there is no file {', '.join(missing)}")
    run = folder / "run.json"
    if not run.is_file():
        raise UploadError(f"nothing runs in {folder}: start 'signalbox up' first, or name its folder with --dir")
    storage = json.loads(run.read_text(encoding="utf-8"))["storage"]
    service = BlobServiceClient.from_connection_string(storage, retry_total=0, connection_timeout=2)
    names = [f"{prefix}/{file.name}" if prefix else file.name for file in files]
    try:
        container = service.get_container_client(DATA_CONTAINER)
        for file, name in zip(files, names, strict=True):
            with file.open("rb") as content:
                container.upload_blob(name, content, overwrite=True)
    except AzureError as error:
        raise UploadError(
            f"the storage of {folder} does not take the files: {type(error).__name__}; is 'signalbox up' still running?"
        ) from error
    return names
