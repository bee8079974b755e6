"""Pascal VOC: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/; with labelmap.txt as CVAT exports it."""

from pathlib import Path

from hsl.batch import IGNORE_INDEX
from hsl.config.ranges import PositiveFloat
from hsl.data.annotations.catalogue import named_paths
from hsl.data.annotations.class_table import read_labels
from hsl.data.annotations.colour_masks import Colour, ColourMask
from hsl.data.annotations.pictures import Pictures, files_below
from hsl.data.annotations.settings import Classes, Settings
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.formats.description import unfit_names
from hsl.data.formats.findings import Findings, shown
from hsl.data.formats.folder import read_splits
from hsl.data.formats.picture_files import PICTURE_SUFFIXES, check_root, find_masks
from hsl.data.formats.recognise import tell_what_lies_there
from hsl.data.formats.tables import official_part, read_table
from hsl.errors import DataError
from hsl.files.io import read_bytes

IMAGES, MASKS, OBJECTS, SETS, LABELMAP = (
    "JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation", "labelmap.txt",
)  # fmt: skip
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_VOID = (224, 224, 192)  # of the outlines between objects


def read_voc(
    root: str | Path,
    classes: Classes = None,
    background: str = "background",
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
) -> Catalogue:
    """Read a data set in the layout of Pascal VOC, or a mask export of CVAT. Nothing is decoded.

    =================================  ===============================================================================
    ``SegmentationClass/<id>.png``     masks: colours that ``labelmap.txt`` names, else class indices; 255 and the
                                       colour (224, 224, 192) do not count
    ``labelmap.txt``                   optional: ``crack:250,50,83::`` a line
    ``ImageSets/Segmentation/*.txt``   optional: ids of ``train``, ``val`` and ``test``, one a line; other files
                                       (``trainval``, ``default``) say which pictures belong to the data set
    ``SegmentationObject/<id>.png``    optional: the objects, each of its own colour
    ``JPEGImages/``                    the pictures, which may lie anywhere below the root
    ``labels.csv``, ``splits.csv``     optional, as in the format ``folder``
    =================================  ===============================================================================

    A picture without a mask is left out, with a count.

    Args:
        root: The folder.
        classes: With ``labelmap.txt`` the classes in their order, or name -> labels. Without it the names of the
            indices 1, 2, ...; ``None``: those of Pascal VOC.
        background: Name of class 0.
        max_megapixels: A larger mask is refused before it is decoded.

    Returns:
        The catalogue, sorted by id.

    Raises:
        DataError: With everything that is wrong, the first few of each kind named.
    """
    settings = Settings(classes, background, max_megapixels=max_megapixels)
    root, findings = Path(root), Findings()
    check_root(root, f"{MASKS}/", findings)
    masks = find_masks(root / MASKS, findings)
    names, colours = _class_table(root, settings, findings)
    paths = [path for path in files_below(root, PICTURE_SUFFIXES) if path.parent.name not in (MASKS, OBJECTS)]
    pictures = Pictures(root, paths)
    listed = _read_sets(root / SETS, findings)
    wanted = set(listed) if listed is not None else set(masks)
    no_mask = [id_ for id_ in sorted(wanted) if id_ not in masks]
    findings.add_names(
        no_mask, f"Each picture of `{root / SETS}` should have a mask in {MASKS}/. Without one are", "Add it."
    )
    found = {id_: pictures.find(id_, root / IMAGES) for id_ in sorted(wanted & set(masks))}
    missing = [id_ for id_, several in found.items() if len(several) != 1]
    findings.add_names(
        missing, f"Each mask should have one picture below `{root}`. Without one are", f"Put it into {IMAGES}/."
    )
    attributes = read_table(root / "labels.csv", found, findings)
    written = read_splits(root / "splits.csv", found, findings)
    tell_what_lies_there(root, "voc", masks, findings)
    findings.raise_if_any(root)
    used = {several[0] for several in found.values()}
    bare = [path for path in pictures.paths if path not in used]
    if bare:
        findings.not_read.append(
            f"`{root}`: pictures without a mask, or in no list, are left out: {named_paths(bare)}."
        )
    unlisted = [masks[id_] for id_ in sorted(set(masks) - wanted)]
    if unlisted:
        findings.not_read.append(f"`{root}`: masks that stand in no list are left out: {named_paths(unlisted)}.")
    records = []
    for id_, (path, *_) in found.items():
        mask = ColourMask(masks[id_], colours, None, max_megapixels)
        objects = root / OBJECTS / masks[id_].name
        ids = ColourMask(masks[id_], colours, objects, max_megapixels) if objects.is_file() else None
        split = written.get(id_, (listed or {}).get(id_))
        records.append(Record(id_, FileSource(path), mask, ids, attributes.get(id_, {}), split))
    return Catalogue(root.resolve().name, tuple(records), names, not_read=findings.told())


def _class_table(
    root: Path, settings: Settings, findings: Findings
) -> tuple[tuple[str, ...], tuple[tuple[Colour, int], ...] | None]:
    """Names of the classes, and the class of each colour."""
    path = root / LABELMAP
    if path.is_file():
        table = _read_labelmap(path, findings)
        labels = read_labels(table, settings, root, findings)
        colours = {colour: labels.index[name] or 0 for name, colour in table.items()}
        return labels.classes, tuple(sorted({_VOID: IGNORE_INDEX, **colours}.items()))
    names = settings.labels_of()
    classes = (settings.background, *(names if names is not None else CLASSES))
    for sentence in unfit_names(classes):
        findings.add(f"`data.reader.classes`: {sentence}")
    return classes, None


def _read_labelmap(path: Path, findings: Findings) -> dict[str, Colour]:
    table: dict[str, Colour] = {}
    wrong = []
    text = read_bytes(path).decode("utf-8-sig", "replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colour, *_ = [*line.split(":"), "", ""]
        parts = [part.strip() for part in colour.split(",")]
        if not name.strip() or len(parts) != 3 or not all(part.isdecimal() and int(part) < 256 for part in parts):
            wrong.append(f"line {number} (`{shown(line)}`)")
            continue
        red, green, blue = map(int, parts)
        if (red, green, blue) in table.values() or name.strip() in table:
            wrong.append(f"line {number} (`{shown(line)}`: its name or colour is there before)")
        table[name.strip()] = red, green, blue
    findings.add_places(wrong, f"`{path}` should have `name:red,green,blue::` in each line. Not so are", "Correct it.")
    return table


def _read_sets(folder: Path, findings: Findings) -> dict[str, str | None] | None:
    """The part of each listed picture; ``None`` without lists."""
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        return None
    parts: dict[str, str | None] = {}
    twice = []
    for path in files:
        part = official_part(path.stem)
        try:
            words = read_bytes(path).decode("utf-8-sig").split("\n")
        except (UnicodeDecodeError, DataError) as error:
            findings.add(f"`{path}` cannot be read as text: {error}. Save it as UTF-8.")
            continue
        for line in words:
            name = line.split()[0] if line.split() else ""  # the lists of one class have a second column
            id_ = Path(name.replace("\\", "/")).name.rpartition(".")[0] or Path(name).name
            if not name:
                continue
            if part and parts.get(id_) not in (None, part):
                twice.append(f"{id_} ({parts[id_]} and {part})")
            parts[id_] = part or parts.get(id_)
    findings.add_names(twice, f"A picture should be in one part of `{folder}`. In two are", "Remove it from one.")
    return parts
