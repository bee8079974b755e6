"""Tables as people and spreadsheets write them: CSV of any usual separator and encoding; words for official parts."""

import codecs
import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from hsl.data.formats.findings import Findings, nearest, plain
from hsl.data.formats.picture_files import PICTURE_SUFFIXES, is_dangling
from hsl.files.cells import original
from hsl.files.io import read_regular

GROUP = "group"
PARTS = ("train", "val", "test")
_PART_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
SEPARATORS = ",;\t|"
_NEAR = 0.79  # of a column's name to one that is read: `Group`, `groups`, `gruop`, but not `group_id`
_HOW = 'Save it as "CSV UTF-8".'


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table.

    Attributes:
        line: Where it begins in the file; the first line is 1.
        cells: By column, without blanks around them.
    """

    line: int
    cells: Mapping[str, str]


def read_table(
    path: Path, ids: Collection[str], findings: Findings, only: Sequence[str] = ()
) -> dict[str, dict[str, str]]:
    """Rows of a table by id. Every column is a string; an empty cell is left out. No file is an empty table.

    Args:
        path: The table; it has a column ``id``: names of pictures, with or without folder and suffix.
        ids: The ids that rows may have. With none, rows are not checked against them.
        findings: Gets what is wrong.
        only: The columns besides ``id``, all of which it should have and no others. With none any will do, but a name
            close to ``group`` where there is no such column is taken for a slip.
    """
    if is_dangling(path, findings) or not path.exists():
        return {}
    table: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}
    twice, strange, nameless = [], [], []
    for row in table_rows(path, ["id", *only], findings, others=not only):
        written = row.cells["id"]
        id_ = known_id(written, ids)
        cells = {column: cell for column, cell in row.cells.items() if cell and column != "id"}
        if not id_:
            nameless.append(f"line {row.line}")
        elif id_ in table:
            twice.append(f"`{written}` (lines {lines[id_]} and {row.line})")
        elif ids and id_ not in ids:
            strange.append(f"`{written}` (line {row.line}{_guess(id_, ids)})")
        table[id_] = cells
        lines.setdefault(id_, row.line)
    table.pop("", None)
    findings.add_places(nameless, f"Every row of `{path}` should have an id. Without one:", "Add it.")
    findings.add_places(twice, f"An id should stand in `{path}` once. Repeated are", "Remove the other rows.")
    findings.add_places(strange, f"`{path}` has ids without a picture:", "Correct or remove the rows.")
    return table


def table_rows(path: Path, needed: Sequence[str], findings: Findings, others: bool = True) -> list[TableRow]:
    """The rows of a CSV file; rows without any cell are left out.

    Args:
        path: The file.
        needed: Columns that it should have.
        findings: Gets what is wrong; with anything wrong in the first line there are no rows.
        others: Whether it may have further columns.
    """
    text = _read_text(path, findings)
    if text is None:
        return []
    before = len(findings.sentences)
    separator, text, skipped = _separator(text, needed)
    records = _records(path, text, separator, findings)
    first, header = next(records, (0, []))
    header = [_name(cell) for cell in header]
    while header and not header[-1]:
        header.pop()
    body = [(line + skipped, cells) for line, cells in records]
    if len(findings.sentences) == before:
        _check_header(path, header, needed, others, findings)
    if len(findings.sentences) > before:
        return []
    width, odd = len(header), []
    for line, cells in body:
        while len(cells) > width and not cells[-1]:
            cells.pop()
        odd += [f"line {line} ({len(cells)})"] if len(cells) != width else []
    findings.add_places(
        odd,
        f"Every row of `{path}` should have {width} cells, as line {first + skipped} has. Other numbers are in",
        "Quote a cell that holds the separator, and write an empty cell where nothing is known.",
    )
    if any(not name and any(cells[i] for _, cells in body if len(cells) == width) for i, name in enumerate(header)):
        findings.add(
            f"Every column of `{path}` should have a name. Column {header.index('') + 1} has cells and none. Name it, "
            "or remove it (pandas: `to_csv(index=False)`)."
        )
    return [TableRow(line, dict(zip(header, cells, strict=True))) for line, cells in body if len(cells) == width]


def known_id(written: str, ids: Collection[str]) -> str:
    """The id that a cell names: as it stands, else without its folder, else without the suffix of a picture.

    Example:
        >>> known_id("images/a.JPG", {"a"}), known_id("b", {"a"})
        ('a', 'b')
    """
    whole = unicodedata.normalize("NFC", written)
    name = whole.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    candidates = [whole, name, *([stem] if dot and f".{suffix.lower()}" in PICTURE_SUFFIXES else [])]
    return next((each for each in candidates if each in ids), whole)


def official_part(word: str) -> str | None:
    """The part that a word means, whatever its case; ``None`` where it means none.

    Example:
        >>> official_part("Validation"), official_part("fold 1")
        ('val', None)
    """
    return _PART_WORDS.get(word.strip().casefold())


def _guess(id_: str, ids: Collection[str]) -> str:
    """Which id may be meant; spreadsheets take zeros from numbers and round long ones."""
    number = id_.removesuffix(".0")
    if number.isdecimal() and (zeros := [each for each in ids if each.lstrip("0") == number.lstrip("0")]):
        return f"; `{zeros[0]}` may have lost its zeros in a spreadsheet, where ids should be text"
    if "E+" in id_.upper() and id_.upper().replace("E+", "").replace(".", "").replace(",", "").isdecimal():
        return "; a spreadsheet has rounded it, where ids should be text"
    alike = next((each for each in ids if plain(each) == plain(id_)), None)
    return f"; did you mean `{alike}`?" if alike else ""


def _read_text(path: Path, findings: Findings) -> str | None:
    try:
        data = read_regular(path)
    except OSError as error:
        findings.add(f"`{path}` cannot be read: {error.strerror}. Restore the file or fix its permissions.")
        return None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        findings.add(f"`{path}` should be a text file. Found a workbook of a spreadsheet. {_HOW}")
        return None
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        findings.add(f"`{path}`, line {line}, should be text in UTF-8. Found other bytes ({error.reason}). {_HOW}")
        return None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        findings.add(f"`{path}`, line {line}, should be text. Found zero bytes. {_HOW}")
        return None
    return text


def _separator(text: str, needed: Sequence[str]) -> tuple[str, str, int]:
    """The separator, the text without the line ``sep=;`` that Excel puts first, and how many lines that was."""
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and first.strip()[4:] in (*SEPARATORS, ""):
        return first.strip()[4:] or "\t", rest, 1
    head = next((line for line in text.splitlines() if line.strip(SEPARATORS + " ")), "")

    def fit(separator: str) -> tuple[int, int]:
        columns = [_name(cell) for cell in next(csv.reader([head], delimiter=separator), [])]
        return len(set(needed) & set(columns)), len(columns)

    return max(SEPARATORS, key=fit), text, 0


def _records(path: Path, text: str, separator: str, findings: Findings) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of each record that holds anything."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the runs of a large mask are a long cell
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    line = 1
    try:
        for record in reader:
            cells = [original(cell.strip()) for cell in record]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        findings.add(f"`{path}` cannot be read from line {line} on: {error}. Close each quote that is opened there.")


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str], others: bool, findings: Findings) -> None:
    named = [name for name in header if name]
    further = [name for name in named if name not in needed]
    if missing := [column for column in needed if column not in header]:
        near = [found for column in missing if (found := nearest(column, further))]
        way = f"Rename {', '.join(f'`{name}`' for name in near)}." if near else "Add or rename one."
        wanted = ", ".join(f"`{column}`" for column in missing)
        findings.add(f"`{path}` should have a column {wanted}. Found the columns {named}. {way}")
    folded = Counter(name.casefold() for name in named)
    twice = [name for name in named if folded[name.casefold()] > 1]
    findings.add_names(twice, f"Columns of `{path}` should differ in name. Alike are", "Rename or remove one.")
    if not others and not missing:
        findings.add_names(further, f"`{path}` should have only {', '.join(needed)}. Found", "Move it to labels.csv.")
    slips = [] if GROUP in header or not others else get_close_matches(GROUP, map(str.casefold, further), 1, _NEAR)
    findings.add_names(
        [name for name in further if name.casefold() in slips],
        f"`{path}` has no column `{GROUP}`, but nearly so. Found",
        f"Rename it to `{GROUP}`, or to something less alike.",
    )


def _name(cell: str) -> str:
    return unicodedata.normalize("NFC", original(cell.strip().strip("\ufeff\u200b").strip()))
