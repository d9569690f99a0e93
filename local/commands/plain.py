"""Outsiders' text on a person's terminal: names of blobs and keys may hold anything."""

from __future__ import annotations


def plain(written: str) -> str:
    """The text on one line: line breaks, escape sequences and half characters as Python writes them."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in written)
