"""Text of data in Markdown: readers of it take HTML and links, so neither may come from a name."""

import re
from collections.abc import Sequence
from typing import Any

from hsl.terminal import visible

_ENTITY = re.compile(r"&(?=#?\w+;)")  # any other stands for itself


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: no tag, no link, no control character.

    Example:
        >>> markdown_text("a<b> [c](d)")
        'a&lt;b> [c]\\\\(d)'
    """
    shown = _ENTITY.sub("&amp;", visible(text)).replace("<", "&lt;")
    return shown.replace("](", "]\\(").replace("]:", "]\\:")


def markdown_texts(content: Any) -> Any:
    """The same for every text and key of nested maps and lists."""
    if isinstance(content, dict):
        return {markdown_texts(key): markdown_texts(value) for key, value in content.items()}
    if isinstance(content, list):
        return [markdown_texts(value) for value in content]
    return markdown_text(content) if isinstance(content, str) else content


def markdown_row(cells: Sequence[Any]) -> str:
    """A line of a table, of texts that are escaped already; none breaks its cell."""
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
