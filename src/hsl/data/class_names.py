"""Names of classes that every table, plot, page and file can show as they are."""

import unicodedata
from collections.abc import Iterator, Sequence

LONGEST = 100
RESERVED = ("ignore",)
"""What a palette calls the pixels that do not count."""
_JOINERS = "\u200c\u200d"  # hold letters and emoji together; all other invisible characters are refused
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs by their category, without a shape


def unfit_names(names: Sequence[str]) -> list[str]:
    """What is wrong with the names of classes, a sentence each; empty where nothing is.

    Example:
        >>> unfit_names(["background", "crack $5 <a&b>", "Risse_ü"])
        []
        >>> unfit_names(["crack", "Crack"])
        ['Names of classes should differ in more than upper and lower case. Found `crack` and `Crack`. Rename one.']
    """
    return [*_each(names), *_alike(names)]


def _each(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        seen = _printable(name) and _has_shape(name)
        shown = name if seen else name.encode("unicode_escape").decode()
        if not name.strip():
            yield f"A class should have a name. Found `{shown}`. Give it one."
        elif not seen:
            yield f"The name of a class should be letters that can be seen. Found `{shown[:LONGEST]}`. Rename it."
        elif name != name.strip():
            yield f"The name of a class should have no blanks around it. Found `{name}`. Write `{name.strip()}`."
        elif len(name) > LONGEST:
            yield f"The name of a class should have at most {LONGEST} letters. Found {len(name)}: `{name[:30]}…`."
        elif name.casefold() in RESERVED:
            yield f"`{name}` is what a palette calls pixels that do not count, so it is no name of a class. Rename it."


def _alike(names: Sequence[str]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFKC", name.strip()).casefold(), name)
        if other != name:
            yield (
                "Names of classes should differ in more than upper and lower case. "
                f"Found `{other}` and `{name}`. Rename one."
            )


def _printable(name: str) -> bool:
    return all((letter.isprintable() and letter not in _BLANKS) or letter in _JOINERS for letter in name)


def _has_shape(name: str) -> bool:
    """Whether there is more than marks and joiners, which need a letter to stand at."""
    return any(unicodedata.category(letter)[0] not in "MCZ" for letter in name)
