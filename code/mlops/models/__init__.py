"""Runs and model versions: tracking, the registry, and which version may be deployed."""
