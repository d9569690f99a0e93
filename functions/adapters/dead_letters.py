"""The containers of dead letters: ours, and the one into which Event Grid writes. Calls block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

from functions.adapters.account import DEAD_LETTERS, StateStorage, error_code, translation
from functions.core.dead_letters import REPLAYED, DeadLetter, read_letters, without

EVENT_GRID_DEAD_LETTERS = "eventgrid-dead-letters"
CONTAINERS = (DEAD_LETTERS, EVENT_GRID_DEAD_LETTERS)


class DeadLetterBox:
    """Reads dead letters, and puts those away that were replayed."""

    def __init__(self, storage: StateStorage) -> None:
        """`storage` holds the clients."""
        self._blobs = storage.blobs

    def letters(self) -> Iterator[DeadLetter]:
        """Every dead letter that was not replayed yet, in the order of the blobs' names."""
        for name in CONTAINERS:
            container = self._blobs.get_container_client(name)
            with translation(f"list {name}"):
                if name == EVENT_GRID_DEAD_LETTERS and not container.exists():
                    continue  # it comes with the event subscriptions, which may not be there yet
                for blob in container.list_blobs():
                    if blob.name.startswith(REPLAYED):
                        continue
                    try:
                        content = container.download_blob(blob.name).readall()
                    except ResourceNotFoundError as error:
                        if error_code(error) == "ContainerNotFound":
                            raise
                        continue  # somebody else has just replayed it
                    yield from read_letters(name, blob.name, content, blob.last_modified)

    def put_away(self, replayed: Iterable[DeadLetter]) -> None:
        """Move letters of one blob under `replayed/`.

        The copies are written before the originals go: a crash in between leaves both, and replaying again does no
        harm. A blob that changed meanwhile keeps what it holds.
        """
        letters = list(replayed)
        container = self._blobs.get_container_client(letters[0].container)
        original = container.get_blob_client(letters[0].blob)
        with translation(f"put away {letters[0].blob}"):
            for letter in letters:
                container.upload_blob(letter.replayed_name, letter.text.encode("ascii"), overwrite=True)
            try:
                found = original.download_blob()
                left = without(found.readall(), {letter.text for letter in letters})
                unchanged: dict[str, Any] = {
                    "etag": found.properties.etag,
                    "match_condition": MatchConditions.IfNotModified,
                }
                if left:
                    original.upload_blob(left, overwrite=True, **unchanged)
                else:
                    original.delete_blob(**unchanged)
            except (ResourceNotFoundError, ResourceModifiedError):
                return
