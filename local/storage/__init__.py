"""Azure Storage on this machine: Azurite, behind a proxy that raises the storage events."""
