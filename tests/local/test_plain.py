"""What outsiders wrote, as the commands print it."""

from __future__ import annotations

import pytest

from functions.core.dead_letters import read_letters
from functions.core.values import compact_json
from local.commands.dead_letters import title
from local.commands.plain import plain


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("daten/für 1.csv", "daten/für 1.csv"),
        ("a\nsb-forged  done\r", "a\\nsb-forged  done\\r"),
        ("\x1b[2J\u202e", "\\x1b[2J\\u202e"),
        ("\ud800", "\\ud800"),
    ],
)
def test_outsiders_text_forges_no_line(written: str, shown: str) -> None:
    """Line breaks, escape sequences and half characters stay visible; what is readable stays readable."""
    assert plain(written) == shown
    plain(written).encode("utf-8")


def test_title_of_a_dead_letter_is_one_line() -> None:
    """Its subject is as it came."""
    content = compact_json({"reason": "r", "received": "2026-11-20T12:00:00Z", "event": {"subject": "a\n\x1b[31mb"}})
    (letter,) = read_letters("dead-letters", "x.json", content.encode(), None)  # type: ignore[arg-type]
    assert plain(title(letter)).endswith("a\\n\\x1b[31mb")
