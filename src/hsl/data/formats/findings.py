"""Collects what is wrong with a data set, so that a user sees all of it at once."""

import logging
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from hsl.errors import DataError

_MOST_NAMED = 5

_LONGEST = 200
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 2, 12, 12, 100, 100

log = logging.getLogger(__name__)


class Findings:
    """Sentences about what is wrong, raised together, and about what was left out, which stops nothing."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.not_read: list[str] = []

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
        self.add_places([f"`{name}`" for name in names], what, remedy)

    def add_places(self, places: Sequence[str], what: str, remedy: str) -> None:
        """As `add_names`, of places that are written as they are: ``line 3``."""
        if places:
            different = list(dict.fromkeys(places))
            shown = ", ".join(different[:_MOST_NAMED])
            more = f" and {len(different) - _MOST_NAMED} more" if len(different) > _MOST_NAMED else ""
            self.sentences.append(f"{what} {shown}{more}. {remedy}")

    def told(self) -> tuple[str, ...]:
        """What was left out, which is logged too."""
        for sentence in self.not_read:
            log.warning("%s", sentence)
        return tuple(self.not_read)

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


def shown(value: object) -> str:
    """A value of a file as an error shows it; a long one is cut.

    Example:
        >>> shown("background, crack"), shown([0, None])
        ('background, crack', '[0, None]')
        >>> len(shown([[["x"] * 99] * 99] * 99)) <= 201
        True
    """
    text = value[: _LONGEST + 1] if isinstance(value, str) else _SHORT.repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def nearest(word: str, known: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The known word that was most likely meant: letters, digits and their case alone count less than spelling.

    Example:
        >>> nearest("Ignore-Index", ["classes", "ignore_index"])
        'ignore_index'
        >>> nearest("sensor", ["classes", "ignore_index"]) is None
        True
    """
    by_plain = {plain(each): each for each in known}
    close = get_close_matches(plain(word), by_plain, n=1, cutoff=cutoff)
    return by_plain[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The way out of an unknown word: the nearest known one, or another sentence.

    Example:
        >>> did_you_mean("pallete", ["classes", "palette"], "Delete it.")
        'Did you mean `palette`?'
    """
    near = nearest(word, known)
    return f"Did you mean `{near}`?" if near else otherwise


def plain(word: str) -> str:
    """Its letters and digits, without their case and accents."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", word).casefold() if letter.isalnum())
