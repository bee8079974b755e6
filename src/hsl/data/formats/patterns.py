"""Where files lie, as a pattern with fields: ``images/**/{id}.jpg``, ``{split}/masks/{id}_mask.png``."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hsl.data.formats.findings import Findings
from hsl.data.formats.picture_files import MASK_SUFFIXES, PICTURE_SUFFIXES, is_junk
from hsl.data.formats.tables import PARTS, official_part
from hsl.files.output_folder import MARKER

SAME_SUFFIX = ((".jpg", ".jpeg", ".jpe", ".jfif", ".jif"), (".tif", ".tiff"), (".heic", ".heif", ".hif"))
"""Spellings of one kind: a pattern that ends in one of them means all."""
ID, SPLIT, CLASS, FOLDER = "id", "split", "class", "folder"
_FIELD = re.compile(r"\{([^{}]*)\}")
_TOKEN = re.compile(r"\{[^{}]*\}|\*\*/|\*|\?|[^{*?]+|\{")
_YEAR = re.compile(r"[-_ ]?(19|20)\d\d$")  # train2017


@dataclass(frozen=True, slots=True)
class Listing:
    """All files below a folder, by one pass.

    Attributes:
        files: Their paths from the folder on, with ``/``, in order.
        unreadable: Folders that may not be read.
        circles: Folders that are links to a folder that was seen before; not looked into again.
        broken: Links to nothing.
    """

    files: tuple[str, ...]
    unreadable: tuple[str, ...] = ()
    circles: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


def list_files(root: Path) -> Listing:
    """List all files below a folder. Hidden files, what file managers leave, and outputs of `hsl` are passed over."""
    files: list[str] = []
    unreadable: list[str] = []
    circles: list[str] = []
    broken: list[str] = []
    seen: set[tuple[int, int]] = set()
    todo = [""]
    while todo:
        below = todo.pop()
        try:
            status = (root / below).stat()
            if (status.st_dev, status.st_ino) in seen:
                circles.append(below)
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / below) as entries:
                content = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            unreadable.append(below or ".")
            continue
        if below and any(entry.name == MARKER for entry in content):
            continue
        folders = []
        for entry in content:
            if is_junk(entry.name):
                continue
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir():
                folders.append(path)
            elif entry.is_symlink() and not entry.is_file():
                broken.append(path)
            else:
                files.append(path)
        todo += reversed(folders)  # in order, so that of two ways to a folder it is the same one everywhere
    return Listing(*(tuple(sorted(each)) for each in (files, unreadable, circles, broken)))


@dataclass(frozen=True, slots=True)
class Match:
    """A file that fits a pattern.

    Attributes:
        path: From the root on.
        id: Of its picture; with ``{folder}`` that stands before it.
        fields: What the other fields of the pattern stand for.
    """

    path: str
    id: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was read.

    Attributes:
        text: As it is written.
        regex: Of a whole path.
        fields: Names of its fields.
        key: What stands behind ``#``: the name of an array in each file.
    """

    text: str
    regex: re.Pattern[str]
    fields: tuple[str, ...]
    key: str = ""

    @property
    def folder(self) -> str | None:
        """The one folder that ``FOLDER/{id}`` is about; ``None`` of any other pattern."""
        before, _, last = self.text.rpartition("/")
        return before if last == f"{{{ID}}}" and not set(before) & set("*?{") and before else None

    def says_more_than(self, other: "Pattern") -> bool:
        """Whether a file that fits both, as ``a_mask.png`` fits ``{id}.png`` too, is one of this pattern."""
        mine, theirs = (len(_TOKEN.sub(_letters, pattern.text)) for pattern in (self, other))
        return mine >= theirs

    def matches(self, files: Iterable[str], findings: Findings, others: "Pattern | None" = None) -> list[Match]:
        """The files that fit, with what their fields stand for; those that fit ``others`` are left out."""
        found, wrong = [], []
        for path in files:
            fit = self.regex.fullmatch(path)
            if fit is None or (others is not None and others.regex.fullmatch(path)):
                continue
            fields = {name: unicodedata.normalize("NFC", value) for name, value in fit.groupdict().items()}
            id_ = fields.pop(ID)
            if FOLDER in fields:
                id_ = f"{fields[FOLDER].replace('/', '_')}_{id_}"
            if SPLIT in fields:
                part = official_part(_YEAR.sub("", fields[SPLIT]))
                wrong += [fields[SPLIT]] if part is None else []
                fields[SPLIT] = part or ""
            found.append(Match(path, id_, fields))
        findings.add_names(
            wrong,
            f"`{{{SPLIT}}}` of `{self.text}` should stand for one of {', '.join(PARTS)}. Found",
            "Name that folder in the pattern, or write `{folder}` if it is no part.",
        )
        return found


def read_pattern(text: str, key: str, findings: Findings) -> Pattern | None:
    """Read a pattern; ``None``, with what is wrong in ``findings``, if it is none.

    Args:
        text: Folders and a name with ``/`` between them. ``*`` stands for any letters but ``/``, ``?`` for one, ``**/``
            for any folders; ``{id}`` for what picture and mask have in common, ``{split}`` for train, val or test,
            ``{folder}`` for one folder or more that belong to the id, ``{class}`` for a class (of masks), any other
            name in braces for an attribute. A name without suffix may have that of any picture; a suffix is meant in
            any spelling. ``#NAME`` behind it names the array in ``.npz`` or ``.mat`` files.
        key: What an error calls it: ``data.reader.images``.
        findings: Gets what is wrong.

    Example:
        >>> found = read_pattern("{split}/images/{id}.jpg", "data.reader.images", Findings())
        >>> found.matches(["train/images/a.JPEG", "train/masks/a.png"], Findings())
        [Match(path='train/images/a.JPEG', id='a', fields={'split': 'train'})]
    """
    pattern, _, array = text.removeprefix("./").partition("#")
    names = _FIELD.findall(pattern)
    wrong = [name for name in names if not name.isidentifier() or (name == CLASS and not key.endswith("masks"))]
    if ID not in names or wrong or pattern.startswith("/") or ".." in pattern.split("/"):
        findings.add(
            f"`{key}` should be a path from the data folder on with `{{{ID}}}` in it, as in `images/{{{ID}}}.jpg` or "
            f"`{{{SPLIT}}}/masks/{{{ID}}}_mask.png`. Found `{text}`. Correct it."
        )
        return None
    suffixes = (*PICTURE_SUFFIXES, *MASK_SUFFIXES) if key.endswith("masks") else PICTURE_SUFFIXES
    stem, suffix = _parted(pattern, suffixes)
    seen: set[str] = set()
    regex = "".join(_regex_of(token, seen) for token in _TOKEN.findall(stem))
    spelled = next((same for same in SAME_SUFFIX if suffix in same), (suffix,)) if suffix else sorted(set(suffixes))
    ending = f"(?i:{'|'.join(map(re.escape, spelled))})"
    return Pattern(pattern, re.compile(regex + ending, re.DOTALL), tuple(dict.fromkeys(names)), array)


def collisions(matches: Sequence[Match]) -> Iterator[tuple[Match, Match]]:
    """Pairs of files of one id and class, the first with each other."""
    first: dict[tuple[str, str], Match] = {}
    for match in matches:
        other = first.setdefault((match.id, match.fields.get(CLASS, "")), match)
        if other is not match:
            yield other, match


def _parted(pattern: str, suffixes: Sequence[str]) -> tuple[str, str]:
    """The pattern without its suffix, and the suffix; ``""`` where any will do."""
    if pattern.endswith(".*"):
        return pattern[:-2], ""
    stem, dot, suffix = pattern.rpartition(".")
    known = f".{suffix.lower()}"
    return (stem, known) if dot and known in suffixes else (pattern, "")


def _letters(token: re.Match[str]) -> str:
    """What a token says of a name."""
    return "" if token[0][0] in "{*?" else token[0]


def _regex_of(token: str, seen: set[str]) -> str:
    if token == "**/":
        return "(?:[^/]+/)*"
    if token in ("*", "?"):
        return "[^/]*" if token == "*" else "[^/]"
    if not _FIELD.fullmatch(token):
        return re.escape(token)
    name = token[1:-1]
    if name in seen:
        return f"(?P={name})"
    seen.add(name)
    return f"(?P<{name}>{'.+' if name == FOLDER else '[^/]+'})"
