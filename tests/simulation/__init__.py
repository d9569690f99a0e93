"""Whole histories of the flow, each derived from one seed (docs/simulation.md)."""
