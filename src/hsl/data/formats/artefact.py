"""ARTeFACT: damage of paintings, photographs, textiles, mosaics ... annotated in 16 classes.

Ivanova, Aversa, Henderson, Williamson: ARTeFACT: Benchmarking Segmentation Models on Diverse Analogue
Media Damage, WACV 2025. 418 pictures of very different sizes, without an official split.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.formats.findings import Findings
from hsl.data.formats.folder import check_pairs
from hsl.data.formats.hf import read_hub
from hsl.data.formats.picture_files import find_masks, find_pictures
from hsl.data.formats.recognise import refuse_another_kind, tell_what_lies_there
from hsl.data.formats.tables import read_table

CLASSES = (
    "Clean",
    "Material loss",
    "Peel",
    "Dust",
    "Scratch",
    "Hair",
    "Dirt",
    "Fold",
    "Writing",
    "Cracks",
    "Staining",
    "Stamp",
    "Sticker",
    "Puncture",
    "Burn marks",
    "Lightleak",
)


def read_artefact(root: str | Path, attributes: Sequence[str] = ("material", "content")) -> Catalogue:
    """Read ARTeFACT from the hub, from its parquet files, or from a folder of pictures.

    The folder has ``images/<id>.*``, ``annotations/<id>.png`` (or ``masks/``) and ``metadata.csv`` with the
    column ``id`` and those of ``attributes``. Masks hold the index of a class, or 255 for
    the background, which does not count.

    Args:
        root: ``danielaivanova/damaged-media`` on the hub, or a folder.
        attributes: Columns to keep: ``material``, ``content``, and since the revision of April 2024 ``type``.

    Returns:
        The catalogue. Every picture shows another object, so its ``group`` is its id unless a column
            says otherwise.

    Raises:
        DataError: There is no such data set or column; in a folder: with everything that is wrong.
    """
    folder = Path(root)
    if (folder / "images").is_dir():
        catalogue = _read_files(folder, attributes)
    else:
        refuse_another_kind(folder, "artefact", "`images/` or parquet files")
        catalogue = read_hub(folder, "image", "annotation", CLASSES, id_column="id", attributes=attributes)
    records = tuple(replace(r, attributes={"group": r.id, **r.attributes}) for r in catalogue.records)
    return replace(catalogue, name="artefact", records=records)


def _read_files(root: Path, attributes: Sequence[str]) -> Catalogue:
    findings = Findings()
    images = find_pictures(root / "images", findings)
    masks = find_masks(root / ("masks" if (root / "masks").is_dir() else "annotations"), findings)
    check_pairs(images, masks, findings)
    metadata = root / "metadata.csv"
    if not metadata.is_file():
        findings.add(f"`{metadata}` does not exist. Write one with the columns id, {', '.join(attributes)}.")
    table = read_table(metadata, images, findings)
    for name in attributes:
        bare = [id_ for id_ in images if table and name not in table.get(id_, {})]
        findings.add_names(bare, f"`{metadata}` should tell the {name} of every picture. Not of", "Add it.")
    tell_what_lies_there(root, "artefact", images, findings)
    findings.raise_if_any(root)
    records = tuple(
        Record(id_, FileSource(path), FileSource(masks[id_]), None, table[id_], None)
        for id_, path in sorted(images.items())
    )
    return Catalogue(root.name, records, CLASSES, not_read=findings.told())
