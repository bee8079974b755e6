"""Which files of a folder are pictures, and what is said of those that are left out."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from hsl.data.files.kinds import heif
from hsl.data.files.kinds.arrays import SUFFIXES as ARRAY_SUFFIXES
from hsl.data.files.kinds.heif import SUFFIXES as HEIF_SUFFIXES
from hsl.data.formats.findings import Findings, nearest
from hsl.files.output_folder import MARKER

PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2", ".j2k", ".ppm",
    ".pgm", ".pbm", ".pnm", ".npy", *HEIF_SUFFIXES,
)  # fmt: skip
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", *ARRAY_SUFFIXES)
"""Of what keeps every number."""
OTHER_PICTURES = (
    ".avif", ".jxl", ".jpx", ".svg", ".psd", ".xcf", ".ico", ".tga", ".dds", ".exr", ".hdr", ".pfm", ".pam", ".pcx",
    ".ras", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".dcm", ".nii", ".mha", ".mhd",
    ".nrrd", ".svs", ".ndpi", ".czi", ".lif", ".vsi", ".img", ".fits", ".npz", ".mat", ".eps",
)  # fmt: skip
"""Suffixes of pictures that are not read."""
JUNK = ("Thumbs.db", "ehthumbs.db", "desktop.ini", "__MACOSX")
"""Left by file managers and archives; like hidden files they are passed over without a word."""
_BEGINNINGS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"\0\0\0\x0cjP  ")
_SUFFIXES_LIKE = {
    ".csv": (".csv", ".tsv", ".txt", ".xls", ".xlsx", ".ods"),
    ".yaml": (".yaml", ".yml"),
}
_SUB_FOLDER, _NO_SUFFIX = "in a sub-folder", "without a suffix"
_BROKEN_LINK, _NOT_REGULAR = "broken link", "that is no regular file"


class NotRead:
    """Files of a folder that are not read, by reason.

    Attributes:
        pictures: Reason to number of what seems to be a picture.
        num_others: Files that are no pictures.
    """

    def __init__(self) -> None:
        self.pictures: Counter[str] = Counter()
        self.num_others = 0

    def __str__(self) -> str:
        """How many of each reason.

        >>> skipped = NotRead()
        >>> skipped.pictures.update({"gif": 2, "in a sub-folder": 1})
        >>> str(skipped)
        '3 not read: 2 gif, 1 in a sub-folder'
        """
        reasons = [f"{number} {reason}" for reason, number in sorted(self.pictures.items())]
        reasons += [f"{self.num_others} that {'is no picture' if self.num_others == 1 else 'are no pictures'}"] * (
            self.num_others > 0
        )
        return f"{self.pictures.total() + self.num_others} not read: {', '.join(reasons)}"

    @property
    def way_out(self) -> str:
        """What to do about the pictures."""
        ways = ["point to the sub-folder or write a pattern (`**/{id}`)"] * (_SUB_FOLDER in self.pictures)
        ways += ["remove what is no file"] * bool(self.pictures.keys() & {_BROKEN_LINK, _NOT_REGULAR})
        rest = self.pictures.keys() - {_SUB_FOLDER, _BROKEN_LINK, _NOT_REGULAR}
        ways += [f"convert the {'others' if ways else 'files'} to PNG"] * bool(rest)
        text = ", ".join([*ways[:-2], " and ".join(ways[-2:])])
        return f"{text[:1].upper()}{text[1:]}." if ways else ""


def look_through(folder: Path, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> tuple[list[Path], NotRead]:
    """The files directly in a folder that have one of the suffixes, sorted by name, and what else lies there.

    Hidden files, ``Thumbs.db`` and their like, and folders that a verb of ``hsl`` wrote are passed over.
    """
    pictures, rest = [], NotRead()
    for path in sorted(folder.iterdir()):
        if is_junk(path.name):
            continue
        if path.is_dir():
            if number := _count_below(path):
                rest.pictures[_SUB_FOLDER] += number
        elif not path.is_file():
            rest.pictures[_BROKEN_LINK if path.is_symlink() else _NOT_REGULAR] += 1
        elif path.suffix.lower() in suffixes:
            pictures.append(path)
        elif path.suffix.lower() in OTHER_PICTURES or _begins_as_picture(path):
            rest.pictures[path.suffix[1:].lower() or _NO_SUFFIX] += 1
        else:
            rest.num_others += 1
    return pictures, rest


def find_pictures(folder: Path, findings: Findings, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> dict[str, Path]:
    """The pictures directly in ``folder`` by id, which is the name without the suffix, in Unicode's composed form."""
    found, rest = read_input(folder, findings, suffixes) if _is_folder(folder, findings) else ({}, NotRead())
    if found and rest.pictures:
        findings.not_read.append(f"`{folder}`: {rest}. {rest.way_out}")
    return found


def read_input(
    where: Path, findings: Findings, suffixes: Sequence[str] = PICTURE_SUFFIXES
) -> tuple[dict[str, Path], NotRead]:
    """As `find_pictures`, of a folder or of one picture, with what else lies there."""
    if where.is_file():
        if where.suffix.lower() in PICTURE_SUFFIXES:
            return by_id(where.parent, [where], findings), NotRead()
        findings.add(f"`{where}` should be a picture ({', '.join(PICTURE_SUFFIXES)}). Convert it to PNG.")
        return {}, NotRead()
    if where.suffix.lower() in PICTURE_SUFFIXES and not where.is_dir():
        rule = "should be a picture, or a folder of pictures"
        findings.add(f"`{where}` {rule}. Found {'something else' if where.exists() else 'nothing'}. Correct the path.")
        return {}, NotRead()
    if not _is_folder(where, findings):
        return {}, NotRead()
    pictures, rest = look_through(where, suffixes)
    if not pictures:
        there = f" ({rest}; {rest.way_out[0].lower()}{rest.way_out[1:-1]})" if rest.pictures else ""
        known = ", ".join(suffixes)
        findings.add(f"The folder `{where}` holds no picture{there}. Put some there ({known}).")
    return by_id(where, pictures, findings), rest


def misnamed(path: Path, is_folder: bool) -> Path | None:
    """What lies in the place of a file or folder that is missing, under a name that is nearly its own."""
    if path.exists() or not path.parent.is_dir():
        return None
    for other in sorted(path.parent.iterdir()):
        if other.name == path.name:  # a link to nothing
            continue
        kind = other.is_dir() if is_folder else other.suffix.lower() in _SUFFIXES_LIKE.get(path.suffix, ())
        if kind and not is_junk(other.name) and nearest(other.stem, [path.stem], cutoff=0.82):
            return other
    return None


def is_dangling(path: Path, findings: Findings) -> bool:
    """Whether a path is a link to nothing, which is a finding: whoever put it there meant a file."""
    found = path.is_symlink() and not path.exists()
    if found:
        findings.add(f"`{path}` should be a file or folder. Found a link to nothing. Restore what it points to.")
    return found


def check_root(root: Path, content: str, findings: Findings) -> None:
    """See that the data folder exists; without it nothing else can be found.

    Args:
        root: The folder.
        content: What lies in the right one, for the message.
        findings: Of the data set.

    Raises:
        DataError: It is none.
    """
    if not root.is_dir():
        found = "is no folder" if root.exists() else "does not exist"
        findings.add(f"The data folder `{root}` {found}. Set `data.root` to the folder with {content}.")
        findings.raise_if_any(root)


def _is_folder(folder: Path, findings: Findings) -> bool:
    if is_dangling(folder, findings):
        return False
    if folder.is_dir():
        return True
    if folder.exists():
        findings.add(f"`{folder}` should be a folder. Found a file, or something else. Put the pictures into a folder.")
    else:
        near = misnamed(folder, is_folder=True)
        way = f"Did you mean `{near}`?" if near else "Correct the path, or put the files there."
        findings.add(f"The folder `{folder}` does not exist. {way}")
    return False


def by_id(folder: Path, pictures: Sequence[Path], findings: Findings) -> dict[str, Path]:
    """Pictures by id; ids that a disk or a table may confuse are findings."""
    found: dict[str, Path] = {}
    folded: dict[str, Path] = {}
    twice, alike, unfit = [], [], []
    for path in pictures:
        id_ = picture_id(path)
        if _is_undecoded(id_):
            unfit.append(path.name.encode("utf8", "backslashreplace").decode())
        if id_ in found:
            twice.append(f"{found[id_].name} and {path.name}")
        elif (other := folded.setdefault(id_.casefold(), path)) is not path:
            alike.append(f"{other.name} and {path.name}")
        found.setdefault(id_, path)
    check_heif(pictures, findings)
    findings.add_names(
        unfit, f"Names in `{folder}` should be UTF-8. Not so are", "Rename them, for instance by `convmv`."
    )
    findings.add_names(twice, f"Names in `{folder}` should differ before the suffix. Alike are", "Rename one.")
    findings.add_names(
        alike,
        f"Names in `{folder}` should differ in more than upper and lower case, as some disks keep only one. Alike are",
        "Rename one.",
    )
    return found


def picture_id(path: Path) -> str:
    """The id of a picture: its name without the suffix; macOS and others compose letters with accents differently."""
    return unicodedata.normalize("NFC", path.stem)


def find_masks(folder: Path, findings: Findings, nearest: bool = False) -> dict[str, Path]:
    """As ``find_pictures``, and all should be of a kind that keeps every number, unless ``nearest``.

    Arrays of NumPy and MATLAB are masks too.
    """
    masks = find_pictures(folder, findings, tuple(dict.fromkeys((*PICTURE_SUFFIXES, *MASK_SUFFIXES))))
    check_lossless(folder, masks.values(), findings, nearest)
    return masks


def check_lossless(folder: Path, masks: Iterable[Path], findings: Findings, nearest: bool) -> None:
    """Masks should be of a kind that keeps every number."""
    unfit = [path.name for path in masks if path.suffix.lower() not in MASK_SUFFIXES and not nearest]
    findings.add_names(
        unfit,
        f"Masks in `{folder}` should be PNG or TIFF, or of another kind that keeps every number. Not so are",
        "Export them anew; if there is nothing else, `data.reader.nearest=true` (`data=folder`) takes them.",
    )


def check_heif(pictures: Iterable[Path], findings: Findings) -> None:
    """HEIC pictures need a package, which is better known before the first of them is decoded."""
    if not heif.is_readable():
        names = [path.name for path in pictures if path.suffix.lower() in HEIF_SUFFIXES]
        findings.add_names(names, "HEIC pictures need a package that is not installed:", f"Install it, {heif.INSTALL}.")


def _is_undecoded(name: str) -> bool:
    """Whether bytes of a name are no UTF-8, which Python keeps as surrogates."""
    return any("\udc80" <= letter <= "\udcff" for letter in name)


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or left by a file manager or an archive."""
    return name.startswith(".") or name in JUNK


def _count_below(folder: Path) -> int:
    number = 0
    for where, folders, files in os.walk(folder):
        if (Path(where) / MARKER).exists():  # what an earlier `hsl predict` wrote is not input
            folders.clear()
            continue
        folders[:] = [name for name in folders if not is_junk(name)]
        suffixes = (Path(name).suffix.lower() for name in files if not is_junk(name))
        number += sum(suffix in PICTURE_SUFFIXES or suffix in OTHER_PICTURES for suffix in suffixes)
    return number


def _begins_as_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return False
    return start.startswith(_BEGINNINGS) or start[4:8] == b"ftyp" or start[8:12] == b"WEBP"
