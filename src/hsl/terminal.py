"""What a terminal is shown. Names of data and pages of run folders may hold characters that drive it: none passes."""

import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable
from typing import Any

QUIET_VARIABLE = "HSL_ONE_SENTENCE"
"""Set to 1 where errors and warnings are a sentence for the user."""
_KEPT = frozenset("\n\t")
_DRIVING = ("Cc", "Cf", "Cs", "Zl", "Zp")
_HARMLESS = frozenset("\u200c\u200d\u00ad")  # joiners, which scripts and emoji need, and the soft hyphen


def visible(text: str, *, lines: bool = True) -> str:
    """Text whose control characters, and those that turn the direction of writing, are seen instead of obeyed.

    Args:
        text: whatever is to be shown.
        lines: whether it may have several lines.

    Example:
        >>> print(visible("a\\x1b[2Jb"))
        a\\x1b[2Jb
        >>> print(visible("a\\nb", lines=False))
        a\\nb
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, lines) for character in text)


def say(text: object = "", *, error: bool = False) -> None:
    """Print a line, to stderr with ``error``."""
    print(visible(str(text)), file=sys.stderr if error else sys.stdout, flush=True)


def quieten_warnings() -> None:
    """A warning is for the user: what it says, not the line of code that says it."""
    if os.environ.get(QUIET_VARIABLE) == "1":
        warnings.formatwarning = _one_line
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # one process needs none


def _one_line(message: Warning | str, *_: Any, **_named: Any) -> str:
    return f"! {visible(str(message))}\n"


def quieten_handlers(handlers: Iterable[logging.Handler]) -> None:
    """Let log handlers show what control characters are in their messages."""
    for handler in handlers:
        handler.addFilter(_made_visible)


def _made_visible(record: logging.LogRecord) -> bool:
    record.msg, record.args = visible(record.getMessage()), None
    return True


def _shown(character: str, lines: bool) -> str:
    if character in _HARMLESS or (lines and character in _KEPT):
        return character
    if unicodedata.category(character) not in _DRIVING:
        return character
    return character.encode("unicode_escape", errors="surrogatepass").decode("ascii")
