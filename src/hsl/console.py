"""The console of tables and progress bars."""

from typing import Any

from rich.console import Console
from rich.text import Text

from hsl.terminal import visible


class PlainConsole(Console):
    """A console that shows text as it is: no markup, no emoji codes, no control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """What every text becomes that is printed, or stands in a table."""
        return super().render_str(visible(text), **{**settings, "markup": False, "emoji": False})
