"""Names that become parts of paths: those that a user gives, and those of data, which may come from anyone."""

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsl.errors import ConfigError, DataError

LONGEST = 200
"""Bytes of one part of a path; file systems allow 255, and suffixes are added."""


def check_names(content: Mapping[str, Any]) -> None:
    """Refuse names of a config that would become a path outside of the folder that is meant for them.

    Args:
        content: a resolved config. ``name`` may have several parts where it is that of a run, with / between them.

    Raises:
        ConfigError: every finding at once.
    """
    names = {"name": content.get("name"), "inference_name": content.get("inference_name")}
    for callback, node in (content.get("callbacks") or {}).items():
        names[f"callbacks.{callback}.inference"] = node.get("inference") if isinstance(node, dict) else None
    findings = []
    for key, name in names.items():
        nested = key == "name" and "monitor" in content
        if isinstance(name, str) and not all(map(_is_part, name.split("/") if nested else [name])):
            between = ", with / between them" if nested else ""
            findings.append(
                f"`{key}` should be plain names of folders{between}: no `..`, backslash or control character, no dot "
                f"or blank at an end, at most {LONGEST} bytes each. Found `{key} = {name}`. Choose another."
            )
    if findings:
        raise ConfigError(" ".join(findings))


def file_name(name: str) -> str:
    """A name as a part of a file name that no other name has: awkward characters replaced, then a checksum.

    Example:
        >>> file_name("exp1_num_3")
        'exp1_num_3'
        >>> file_name("site 1/a")  # another id must not end at the same file
        'site-1-a-3580befc'
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
    return safe if safe == name else f"{safe}-{zlib.crc32(name.encode(errors='surrogatepass')):08x}"


def below(folder: Path, name: str) -> Path:
    """The path of a name that data give, below a folder: not above it, not elsewhere, not through a link out of it.

    Raises:
        DataError: it would leave the folder.
    """
    path = folder / name
    if not is_below(folder, path):
        raise DataError(f"`{name}` should name a file below `{folder}`. Found one that leaves it. Restore the table.")
    return path


def is_below(folder: Path, path: Path) -> bool:
    """Whether a path lies in a folder, links followed."""
    try:
        return "\0" not in str(path) and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle of links
        return False


def leaves_folder(name: str) -> bool:
    """Whether a relative path climbs out of its folder by its words alone; links are not looked at.

    Example:
        >>> leaves_folder("predictions/a.png"), leaves_folder("../a.png"), leaves_folder("/etc/passwd")
        (False, True, True)
    """
    return "\0" in name or ".." in Path(name).parts or Path(name).is_absolute()


def _is_part(part: str) -> bool:
    plain = part.isprintable() and "\\" not in part and "/" not in part
    return plain and bool(part) and part == part.strip(" .") and len(part.encode(errors="surrogatepass")) <= LONGEST
