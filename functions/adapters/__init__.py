"""Thin adapters from the ports to Azure Storage and GitHub. They translate; they decide nothing."""
