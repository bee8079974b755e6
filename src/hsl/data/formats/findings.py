"""Collects what is wrong with a data set, so that a user sees all of it at once."""

from collections.abc import Sequence
from pathlib import Path

from hsl.config import DataError

_MOST_NAMED = 5


class Findings:
    """Sentences about what is wrong, raised together."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Keep one sentence."""
        self.sentences.append(sentence)

    def add_names(self, names: Sequence[str], what: str, remedy: str) -> None:
        """Keep one sentence that names the first few of ``names`` and counts the rest; no names, no sentence.

        Args:
            names: The files or ids concerned.
            what: The rule they break, up to where the names follow.
            remedy: What to do.
        """
        if names:
            different = list(dict.fromkeys(names))
            shown = ", ".join(f"`{name}`" for name in different[:_MOST_NAMED])
            more = f" and {len(different) - _MOST_NAMED} more" if len(different) > _MOST_NAMED else ""
            self.sentences.append(f"{what} {shown}{more}. {remedy}")

    def raise_if_any(self, root: Path) -> None:
        """Raise all sentences in one error.

        Raises:
            DataError: One finding is the message; several are listed under ``root``.
        """
        if len(self.sentences) == 1:
            raise DataError(self.sentences[0])
        if self.sentences:
            listed = "".join(f"\n- {sentence}" for sentence in self.sentences)
            raise DataError(f"`{root}` has {len(self.sentences)} faults:{listed}")
