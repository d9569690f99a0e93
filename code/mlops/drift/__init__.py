"""Drift: whether new data still look like what the champion was trained on."""
