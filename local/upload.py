"""`signalbox upload`: put files into the local container, as any program with azure-storage-blob would."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient

from local.provision import DATA_CONTAINER

Content = tuple[str, Callable[[], bytes]]
"""(name of the blob, what gives its bytes once they are needed)."""

EXAMPLES = ("digits", "iris", "abstracts")
"""Data sets that come with installed packages; there are settings for each in code/data."""


class UploadError(RuntimeError):
    """The files could not be uploaded; the message says why and what to do."""


def from_files(files: Sequence[Path], prefix: str) -> list[Content]:
    """The contents of files, below `prefix`. Raises UploadError where one is missing."""
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UploadError(f"there is no file {', '.join(missing)}")
    return [(f"{prefix}/{file.name}" if prefix else file.name, file.read_bytes) for file in files]


def from_example(name: str, prefix: str) -> list[Content]:
    """The files of one of `EXAMPLES`, below `prefix`, or else in the folder that its settings are named after."""
    from local import datasets  # noqa: PLC0415 - it imports scikit-learn

    makers: Mapping[str, Callable[[], list[datasets.CsvFile]]] = {
        "digits": datasets.first_digits,
        "iris": datasets.iris,
        "abstracts": datasets.abstracts,
    }
    return [(f"{prefix or name}/{file}", partial(bytes, content)) for file, content in makers[name]()]


def upload(folder: Path, contents: Sequence[Content]) -> list[str]:
    """Upload into the run whose state is in `folder`; gives the blobs' names. Raises UploadError."""
    run = folder / "run.json"
    if not run.is_file():
        raise UploadError(f"nothing runs in {folder}: start 'signalbox up' first, or name its folder with --dir")
    storage = json.loads(run.read_text(encoding="utf-8"))["storage"]
    service = BlobServiceClient.from_connection_string(storage, retry_total=0, connection_timeout=2)
    try:
        container = service.get_container_client(DATA_CONTAINER)
        for name, read in contents:
            container.upload_blob(name, read(), overwrite=True)
    except AzureError as error:
        raise UploadError(
            f"the storage of {folder} does not take the files: {type(error).__name__}; is 'signalbox up' still running?"
        ) from error
    return [name for name, _ in contents]
