"""The audit as people read it: a line per rule, and pages of near-duplicates side by side."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hsl.console import PlainConsole
from hsl.data.audit.audit import RULES, Audit, Pair
from hsl.data.audit.near_duplicates import ORIENTATIONS, turned
from hsl.data.audit.rules import STOP
from hsl.data.audit.states import OFF, PASSED
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Catalogue
from hsl.files.io import write_atomically
from hsl.run_folder.layout import AUDIT

ROWS, TILE, GAP, LINE = 5, 240, 12, 20
INK, PAPER = (30, 30, 30), (255, 255, 255)
STEM = "near_duplicates_"


def write_contact_sheets(audit: Audit, catalogue: Catalogue, folder: Path, max_pages: int = 20) -> list[Path]:
    """Draw the near-duplicates in different parts, five pairs to a PNG page, the most alike first.

    A row shows the two pictures and the second one put into the orientation in which it matches the first.
    Pages of an earlier audit are removed.

    Args:
        audit: The audit.
        catalogue: Its data set.
        folder: Where ``near_duplicates_01.png`` and so on are written; made if there are any.
        max_pages: So many pages at most; the last one says how many pairs are left to ``audit.json``.

    Returns:
        The pages, none if there are no pairs.

    Raises:
        DataError: A picture is gone since the scan.
        OSError: The folder cannot be written, or its disk is full.
    """
    for old in Path(folder).glob(f"{STEM}*.png"):
        old.unlink()
    shown = audit.pairs[: max_pages * ROWS]
    pages = []
    for start in range(0, len(shown), ROWS):
        pairs = shown[start : start + ROWS]
        title = f"{audit.data}, fold {audit.fold}: near-duplicates in two parts"
        title += f", pairs {start + 1} to {start + len(pairs)} of {audit.num_across}"
        left = audit.num_across - len(shown)
        is_last = start + ROWS >= len(shown)
        notes = [f"{left} more pairs: {AUDIT}"] * bool(left and is_last)
        notes += [f"not looked at: {audit.states['c'].reason}"] * bool(audit.states["c"].reason and is_last)
        note = "; ".join(notes)
        path = Path(folder) / f"{STEM}{start // ROWS + 1:02d}.png"
        buffer = io.BytesIO()
        _draw_page(pairs, catalogue, title, note).save(buffer, format="PNG")
        write_atomically(path, buffer.getvalue())
        pages.append(path)
    return pages


def _draw_page(pairs: Sequence[Pair], catalogue: Catalogue, title: str, note: str) -> Image.Image:
    rows = [_draw_row(pair, catalogue) for pair in pairs]
    height = GAP + LINE + sum(row.height + GAP for row in rows) + (LINE if note else 0)
    page = Image.new("RGB", (rows[0].width + 2 * GAP, height), PAPER)
    _write(page, (GAP, GAP), title, page.width - 2 * GAP)
    top = GAP + LINE
    for row in rows:
        page.paste(row, (GAP, top + GAP))
        top += row.height + GAP
    _write(page, (GAP, height - LINE), note, page.width - 2 * GAP)
    return page


def _draw_row(pair: Pair, catalogue: Catalogue) -> Image.Image:
    first, second = _picture(catalogue, pair.first), _picture(catalogue, pair.second)
    matching = np.ascontiguousarray(turned(second, ORIENTATIONS.index(pair.orientation)))
    labels = (
        f"{pair.first_part}: {pair.first}",
        f"{pair.second_part}: {pair.second}",
        f"second, {pair.orientation}: {pair.correlation:.4f}",
    )
    tiles = [ImageOps.contain(Image.fromarray(picture), (TILE, TILE)) for picture in (first, second, matching)]
    row = Image.new("RGB", (3 * TILE + 2 * GAP, LINE + max(tile.height for tile in tiles)), PAPER)
    for column, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left = column * (TILE + GAP)
        _write(row, (left, 0), label, TILE)
        row.paste(tile, (left, LINE))
    return row


def _picture(catalogue: Catalogue, name: str) -> NDArray[np.uint8]:
    source = next(record.image for record in catalogue.records if record.id == name)
    return Decoding.of(catalogue).image(source)


def _write(image: Image.Image, place: tuple[int, int], text: str, width: int) -> None:
    """One line; a long one loses its middle, because ids differ at their ends."""
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=13)
    shown = text
    for length in range(len(text) - 1, 2, -1):
        if draw.textlength(shown, font=font) <= width:
            break
        shown = f"{text[: length // 3]}…{text[len(text) - length + length // 3 :]}"
    draw.text(place, shown, fill=INK, font=font)


def print_table(audit: Audit, console: Console | None = None) -> None:
    """Print a line per rule and finding, with one example, and below it what was found and the way out."""
    sizes = ", ".join(f"{part} {number}" for part, number in audit.num_pictures.items())
    table = Table(title=f"Audit of {audit.data}, {audit.method}, fold {audit.fold}: {sizes}", title_justify="left")
    for name in ("rule", "severity", "pictures", "example"):
        table.add_column(name, overflow="fold", justify="right" if name == "pictures" else "left")
    for rule, title in RULES.items():
        for finding in (found := [finding for finding in audit.findings if finding.rule == rule]):
            severity = Text(finding.severity, style="red" if finding.severity == STOP else "yellow")
            example = [audit.pairs[0].first, audit.pairs[0].second] if rule == "c" else finding.ids[:1]
            table.add_row(f"({rule}) {title}", severity, str(len(finding.ids)), ", ".join(example))
        if not found:
            style = {PASSED: "green", OFF: ""}.get(audit.states[rule].state, "yellow")
            table.add_row(f"({rule}) {title}", Text(audit.states[rule].state, style=style))
    console = console or PlainConsole()
    console.print(table)
    for finding in audit.findings:
        console.print(f"({finding.rule}) {finding.message}", soft_wrap=True)
    for rule, state in audit.states.items():
        if state.reason and state.state != OFF:
            console.print(f"({rule}) {state.state}: {state.reason}.", soft_wrap=True)
    for sentence in audit.not_read:
        console.print(sentence, soft_wrap=True)
    if audit.near_duplicates != "off":
        blank = f" {audit.num_blank} pictures without contrast were not compared." if audit.num_blank else ""
        console.print(f"Near-duplicates: {audit.num_across} pairs across parts, {audit.num_inside} inside them.{blank}")
