"""What setup.yml does: `python -m infra.setup STEP`. Needs Python's standard library and the Azure CLI."""
