"""Challenger against champion: metrics, slices, and the gate that decides."""
