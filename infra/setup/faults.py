"""How a step of the set-up fails: in sentences that name what is wrong and how to mend it."""

from __future__ import annotations


class SetupFault(RuntimeError):
    """A step that cannot go on; each sentence says what is wrong, where, and how to mend it."""

    def __init__(self, *sentences: str) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = sentences
