"""``audit.json`` and ``parts.json``: what was looked at before a training."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from hsl.files.io import Page, read_json, write_atomically
from hsl.run_folder.layout import AUDIT, PARTS
from hsl.run_folder.provenance import read_page


class PartTest(BaseModel):
    """One comparison of the parts.

    ``of``: ``shown``, in how many groups a class is shown (chi-square of shown / not shown); ``classes``, how many
    groups are of each class, where each is of one; ``pixels``, the class distribution of the pixels of two parts.
    ``subject``: the class, or ``EVERY``. ``groups``: part to the groups of which it is known; ``shares``: part to the
    share of them that show the class. ``p`` is that of the chi-square or, of pixels, of dealing the groups anew;
    ``adjusted_p`` holds for all comparisons of its kind and head (Holm 1979). ``reason``: why there was no test; then
    there is no p.
    """

    head: str
    of: Literal["shown", "classes", "pixels"]
    subject: str
    groups: dict[str, int]
    shares: dict[str, float] = {}
    chi2: float | None = None
    freedom: int | None = None
    p: float | None = None
    adjusted_p: float | None = None
    cramers_v: float | None = None
    divergence: float | None = None
    reason: str = ""


class PartTests(BaseModel):
    """What is written beside the audit: ``unit`` is what was counted, groups or pictures."""

    data: str
    fold: int
    unit: str
    tests: list[PartTest]


def write_audit(folder: Path, text: str) -> None:
    """Leave an audit in a folder: see `hsl.data.audit.audit.Audit`."""
    write_atomically(folder / AUDIT, text.encode())


def read_audit(folder: Path) -> Page:
    """What `write_audit` left.

    Raises:
        DataError: the file is missing or damaged.
    """
    return read_json(folder / AUDIT)


def write_parts(folder: Path, found: PartTests) -> None:
    """Leave the comparisons in a folder."""
    write_atomically(folder / PARTS, found.model_dump_json(indent=1).encode())


def read_parts(folder: Path) -> PartTests | None:
    """What `write_parts` left; none without the file.

    Raises:
        DataError: the file is no such page.
    """
    return read_page(folder / PARTS, PartTests) if (folder / PARTS).is_file() else None
