"""Coralscapes: coral reefs in 39 classes, in the layout of Cityscapes or as a table of the hub.

Sauder, Domazetoski, Banc-Prandi, Perna, Meibom, Tuia: The Coralscapes Dataset: Semantic Scene Understanding in
Coral Reefs, 2025. 2075 frames of 1024 x 2048 pixels from 35 sites; the official parts share no site.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hsl.batch import IGNORE_INDEX
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.formats.cityscapes import IMAGES, load_class_numbers
from hsl.data.formats.findings import Findings, shown
from hsl.data.formats.folder import check_pairs
from hsl.data.formats.hf import read_hub
from hsl.data.formats.picture_files import find_masks, find_pictures
from hsl.data.formats.recognise import refuse_another_kind, tell_what_lies_there
from hsl.data.formats.tables import PARTS

MASKS = "gtFine"
CLASSES = (
    "unlabelled", "seagrass", "trash", "other coral dead", "other coral bleached", "sand", "other coral alive", "human",
    "transect tools", "fish", "algae covered substrate", "other animal", "unknown hard substrate", "background", "dark",
    "transect line", "massive/meandering bleached", "massive/meandering alive", "rubble", "branching bleached",
    "branching dead", "millepora", "branching alive", "massive/meandering dead", "clam", "acropora alive",
    "sea cucumber", "turbinaria", "table acropora alive", "sponge", "anemone", "pocillopora alive",
    "table acropora dead", "meandering bleached", "stylophora alive", "sea urchin", "meandering alive",
    "meandering dead", "crown of thorn", "dead clam",
)  # fmt: skip


def read_coralscapes(root: str | Path, ignore_unlabelled: bool = False) -> Catalogue:
    """Read Coralscapes, or any data set of its layout, from a folder, the hub, or the hub's parquet files.

    ==========================================================  =================================================
    ``leftImg8bit/<part>/<site>/<name>_leftImg8bit.png``        the pictures; ``part`` is train, val or test
    ``gtFine/<part>/<site>/<name>_gtFine.png``                  class indices, 0 where nothing was labelled
    ``classes.json``                                            optional: name -> index from 1
    ==========================================================  =================================================

    Args:
        root: The folder, or ``EPFL-ECEO/coralscapes`` on the hub.
        ignore_unlabelled: Whether pixels of index 0 count nowhere, as in the data set's own paper, instead of
            being the background.

    Returns:
        The catalogue. The ``group`` of a picture is its site. The hub does not tell the site: there it is
        the official part, since only between those no site is shared for certain.

    Raises:
        DataError: There is no such data set; in a folder: with everything that is wrong.
    """
    folder = Path(root)
    ignored = 0 if ignore_unlabelled else IGNORE_INDEX
    if (folder / IMAGES).is_dir():
        return _read_files(folder, ignored)
    refuse_another_kind(folder, "coralscapes", f"`{IMAGES}/` or parquet files")
    catalogue = read_hub(root, "image", "label", CLASSES, ignore_index=ignored)
    records = tuple(replace(r, attributes={"group": r.split} if r.split else {}) for r in catalogue.records)
    return replace(catalogue, name="coralscapes", records=records)


def _read_files(root: Path, ignored: int) -> Catalogue:
    findings = Findings()
    records: dict[str, Record] = {}
    for folder in sorted(path for path in (root / IMAGES).glob("*/*") if path.is_dir()):
        part, site = folder.relative_to(root / IMAGES).parts
        if part not in PARTS:
            findings.add(f"`{folder.parent}` should be one of {', '.join(PARTS)}. Rename or remove it.")
            continue
        images = _named(find_pictures(folder, findings), IMAGES, findings)
        masks = _named(find_masks(root / MASKS / part / site, findings), MASKS, findings)
        check_pairs(images, masks, findings)
        for id_ in sorted(images.keys() & masks.keys()):
            if id_ in records:
                where = f"`{records[id_].image.name}` and `{images[id_]}`"
                findings.add(f"Pictures should differ in name. Alike are {where}. Rename one.")
            image, mask = FileSource(images[id_]), FileSource(masks[id_])
            records[id_] = Record(id_, image, mask, None, {"group": site}, part)
    classes = _read_classes(root / "classes.json", findings)
    if not records and not findings.sentences:
        findings.add(f"`{root / IMAGES}` should hold pictures in <part>/<site>/. Found none. Check `data.root`.")
    tell_what_lies_there(root, "coralscapes", records, findings)
    findings.raise_if_any(root)
    ordered = tuple(records[id_] for id_ in sorted(records))
    return Catalogue(root.resolve().name, ordered, classes, ignore_index=ignored, not_read=findings.told())


def _named(files: Mapping[str, Path], suffix: str, findings: Findings) -> dict[str, Path]:
    """Files by id: their names without ``_suffix``."""
    ending = f"_{suffix}"
    strange = [str(path) for stem, path in files.items() if not stem.endswith(ending)]
    findings.add_names(strange, f"Names should end in `{ending}.png`. Not so are", "Rename or remove them.")
    return {stem.removesuffix(ending): path for stem, path in files.items() if stem.endswith(ending)}


def _read_classes(path: Path, findings: Findings) -> tuple[str, ...]:
    numbers = load_class_numbers(path, findings)
    if numbers is None:
        return CLASSES
    if sorted(numbers.values()) != list(range(1, len(numbers) + 1)):
        findings.add(f"`{path}` should map names to the indices 1, 2, ... Found `{shown(numbers)}`.")
    return (CLASSES[0], *sorted(numbers, key=numbers.__getitem__))
