"""Pictures and masks as files: ``images/``, ``masks/``, ``dataset.yaml`` and up to two tables beside them."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.formats.description import read_description
from hsl.data.formats.findings import Findings
from hsl.data.formats.picture_files import NotRead, check_root, find_masks, find_pictures, misnamed, read_input
from hsl.data.formats.tables import PARTS, official_part, read_table


def read_folder(root: str | Path, masks_optional: bool = False) -> Catalogue:
    """Read a data set that is a folder of files. Nothing is decoded.

    ==================  =================================================================================
    ``images/``         one picture per id: ``<id>.png``, ``.jpg``, ``.tif``, ``.webp`` or ``.bmp``
    ``masks/``          ``<id>.png`` (or ``.tif``): class indices, or colours that ``dataset.yaml`` names;
                        with ``masks_optional`` some or all may be missing
    ``dataset.yaml``    the classes, see ``hsl.data.formats.description``
    ``labels.csv``      optional: ``id`` and any other columns (``label``, ``group``, ...)
    ``splits.csv``      optional, the official split: ``id`` and ``split`` (train, val or test, also
                        validation, valid, dev, training, testing), no other column
    ``instances/``      optional: ``<id>.png``, 16-bit ids of objects
    ==================  =================================================================================

    Args:
        root: The folder.
        masks_optional: Whether pictures may lack a mask, because only their labels are known.

    Returns:
        The catalogue, sorted by id.

    Raises:
        DataError: With everything that is wrong, the first few files of each kind named.
    """
    root = Path(root)
    findings = Findings()
    check_root(root, "images/", findings)
    description = read_description(root / "dataset.yaml", findings)
    images = find_pictures(root / "images", findings)
    masks = {} if masks_optional and not os.path.lexists(root / "masks") else find_masks(root / "masks", findings)
    check_pairs(images, masks, findings, masks_optional)
    instances = find_masks(root / "instances", findings) if os.path.lexists(root / "instances") else {}
    lone = [str(path) for id_, path in instances.items() if images and id_ not in images]
    findings.add_names(lone, "Every map of instances should have a picture of its name. Without one are", "Rename it.")
    labels = read_table(root / "labels.csv", images, findings)
    splits = read_splits(root / "splits.csv", images, findings)
    optional = ["labels.csv", "splits.csv", "instances/", *(["masks/"] if masks_optional else [])]
    for name, near in ((name, misnamed(root / name, name.endswith("/"))) for name in optional):
        if near:
            findings.add(f"`{near}` is not read. Rename it to `{name}`, or to something less alike.")
    findings.raise_if_any(root)
    records = tuple(
        Record(
            id=id_,
            image=FileSource(path),
            mask=FileSource(masks[id_]) if id_ in masks else None,
            instances=FileSource(instances[id_]) if id_ in instances else None,
            attributes=labels.get(id_, {}),
            split=splits.get(id_),
        )
        for id_, path in sorted(images.items())
    )
    return Catalogue(
        name=root.resolve().name,
        records=records,
        classes=description.classes,
        palette=description.palette,
        value_range=description.value_range,
        ignore_index=description.ignore_index,
        values=description.values,
        masks_optional=masks_optional,
        not_read=findings.told(),
    )


def read_pictures(where: str | Path) -> tuple[tuple[Record, ...], NotRead]:
    """Records of all pictures in a folder, or of one picture, without masks: the input of a prediction.

    Args:
        where: The folder, or the file; folders inside a folder are not looked into.

    Returns:
        The records, and what else lies there.

    Raises:
        DataError: There is no picture, or two have the same id.
    """
    findings = Findings()
    images, rest = read_input(Path(where), findings)
    findings.raise_if_any(Path(where))
    return tuple(Record(id_, FileSource(path), None, None, {}, None) for id_, path in sorted(images.items())), rest


def check_pairs(
    images: Mapping[str, Path], masks: Mapping[str, Path], findings: Findings, masks_optional: bool = False
) -> None:
    """Every picture should have a mask and every mask a picture. No files at all has been found before."""
    if images and masks:
        bare = [str(path) for id_, path in images.items() if id_ not in masks and not masks_optional]
        findings.add_names(bare, "Every picture should have a mask `<id>.png`. Without one are", "Add it.")
        lone = [str(path) for id_, path in masks.items() if id_ not in images]
        findings.add_names(lone, "Every mask should have a picture of its name. Without one are", "Add or remove it.")


def read_splits(path: Path, ids: Collection[str], findings: Findings) -> dict[str, str]:
    """The official part of each picture, of ``splits.csv``; empty without the file."""
    table = {id_: row.get("split", "") for id_, row in read_table(path, ids, findings, only=["split"]).items()}
    wrong = [f"{word or 'nothing'} ({id_})" for id_, word in table.items() if official_part(word) is None]
    parts = ", ".join(PARTS)
    findings.add_names(wrong, f"`split` in `{path}` should be one of {parts}. Found", "Correct the rows.")
    return {id_: part for id_, word in table.items() if (part := official_part(word))}
