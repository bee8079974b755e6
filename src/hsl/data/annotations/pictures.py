"""The pictures below a folder, and which of them an annotation means."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from hsl.data.formats.patterns import list_files
from hsl.data.formats.picture_files import PICTURE_SUFFIXES
from hsl.files.output_folder import MARKER

_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of a file that was uploaded."""


def files_below(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of some suffixes at any depth, sorted; links to folders are followed, each folder once.

    Hidden files, ``Thumbs.db`` and their like, and folders that a verb of ``hsl`` wrote are passed over.

    Args:
        root: The folder.
        suffixes: In lower case, with their dot.
    """
    if (root / MARKER).exists():
        return []
    found = list_files(root)
    paths = (root / path for path in (*found.files, *found.broken))  # a link to nothing is an error where it is read
    return sorted(path for path in paths if path.suffix.lower() in suffixes)


class Pictures:
    """The pictures below a folder, by what an annotation may call them.

    Attributes:
        root: The folder.
        paths: Of all pictures, sorted.
    """

    def __init__(self, root: Path, paths: Iterable[Path] | None = None) -> None:
        self.root = root
        self.paths = files_below(root, PICTURE_SUFFIXES) if paths is None else sorted(paths)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            name = _plain(path.name)
            self._by_name[name].append(path)
            self._by_stem[name.rpartition(".")[0]].append(path)

    def find(self, written: str, near: Path) -> list[Path]:
        """The pictures that an annotation may mean; one, if all is well.

        A path is looked for below the folder of the annotation, then below the root. Else it is the picture of the same
        file name (upper and lower case, or the suffix, may differ) whose folders agree best.

        Args:
            written: As the annotation calls it: a path of any system, a URL, or a name.
            near: The folder of the annotation.
        """
        parts = [part for part in _posix(written).split("/") if part not in ("", ".")]
        if not parts:
            return []
        path = "/".join(parts)
        for folder in (near, self.root):
            exact = folder / path
            if path and exact.is_file() and exact.suffix.lower() in PICTURE_SUFFIXES:
                same = [each for each in self._by_name.get(_plain(parts[-1]), []) if each.samefile(exact)]
                if same:
                    return same[:1]
        for name in dict.fromkeys([_plain(parts[-1]), _UPLOAD.sub("", _plain(parts[-1]))]):
            stem = name.rpartition(".")[0] or name
            alike = self._by_name.get(name) or self._by_stem.get(stem) or self._by_stem.get(name)
            if alike:
                return _best(alike, parts, near)
        return []

    def ids(self, paths: Iterable[Path]) -> dict[Path, str]:
        """An id for each picture: its name without suffix, and with its folders where two would be alike."""
        wanted = sorted(paths)
        stems = [unicodedata.normalize("NFC", path.stem) for path in wanted]
        if len({stem.casefold() for stem in stems}) == len(stems):
            return dict(zip(wanted, stems, strict=True))
        ids: dict[Path, str] = {}
        taken: set[str] = set()
        for path in wanted:
            folders = PurePosixPath(os.path.relpath(path, self.root)).with_suffix("")
            id_ = unicodedata.normalize("NFC", "__".join(folders.parts))
            if id_.casefold() in taken:
                id_ = f"{id_}__{path.suffix[1:].lower()}"
            taken.add(id_.casefold())
            ids[path] = id_
        return ids


def _best(alike: list[Path], parts: list[str], near: Path) -> list[Path]:
    """Those whose last folders agree in most places with the ones that are written; then those near the annotation."""
    if len(alike) == 1:
        return alike

    def agreement(path: Path) -> tuple[int, int]:
        folders = [_plain(part) for part in path.parts[:-1]][::-1]
        written = [_plain(part) for part in parts[:-1]][::-1]
        same = next((i for i, (a, b) in enumerate(zip(folders, written, strict=False)) if a != b), len(written))
        return same, len(os.path.commonpath([path.absolute(), near.absolute()]))

    best = max(map(agreement, alike))
    return [path for path in alike if agreement(path) == best]


def _posix(written: str) -> str:
    """A path with plain slashes: without a drive, the scheme and host of a URL, and what a query is put before."""
    text = unicodedata.normalize("NFC", written).replace("\\", "/")
    if "://" in text or "?d=" in text:
        text = unquote(text)
        text = text.partition("?d=")[2] or text.partition("?")[0]
        text = text.partition("://")[2].partition("/")[2] if "://" in text else text
    return re.sub(r"^[A-Za-z]:", "", text)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
