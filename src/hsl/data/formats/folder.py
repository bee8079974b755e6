"""Pictures and masks as files: ``images/``, ``masks/``, ``dataset.yaml`` and up to two tables beside them."""

import csv
from collections.abc import Collection, Mapping
from pathlib import Path

from hsl.data.formats.description import read_description
from hsl.data.formats.findings import Findings
from hsl.data.records import Catalogue, FileSource, Record

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
MASK_SUFFIXES = (".png", ".tif", ".tiff")
PARTS = ("train", "val", "test")


def read_folder(root: str | Path, masks_optional: bool = False) -> Catalogue:
    """Read a data set that is a folder of files. Nothing is decoded.

    ==================  =================================================================================
    ``images/``         one picture per id: ``<id>.png``, ``.jpg``, ``.tif``, ``.webp`` or ``.bmp``
    ``masks/``          ``<id>.png`` (or ``.tif``): class indices, or colours that ``dataset.yaml`` names;
                        with ``masks_optional`` some or all may be missing
    ``dataset.yaml``    the classes, see ``hsl.data.formats.description``
    ``labels.csv``      optional: ``id`` and any other columns (``label``, ``group``, ...)
    ``splits.csv``      optional, the official split: ``id`` and ``split`` (train, val or test)
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
    if not root.is_dir():
        findings.add(f"The data folder `{root}` does not exist. Set `data.root` to the folder with images/.")
        findings.raise_if_any(root)
    description = read_description(root / "dataset.yaml", findings)
    images = find_pictures(root / "images", findings)
    masks = {} if masks_optional and not (root / "masks").exists() else find_masks(root / "masks", findings)
    check_pairs(images, masks, findings, masks_optional)
    instances = find_masks(root / "instances", findings) if (root / "instances").exists() else {}
    labels = read_table(root / "labels.csv", images, findings)
    splits = _read_splits(root / "splits.csv", images, findings)
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
        masks_optional=masks_optional,
    )


def read_pictures(folder: str | Path) -> tuple[Record, ...]:
    """Records of all pictures in a folder, without masks: the input of a prediction.

    Args:
        folder: Where the pictures lie; folders inside it are not looked into.

    Raises:
        DataError: The folder is missing or holds no picture, or two pictures have the same id.
    """
    findings = Findings()
    images = find_pictures(Path(folder), findings)
    findings.raise_if_any(Path(folder))
    return tuple(Record(id_, FileSource(path), None, None, {}, None) for id_, path in sorted(images.items()))


def find_pictures(folder: Path, findings: Findings) -> dict[str, Path]:
    """The pictures directly in ``folder`` by id, which is the name without the suffix."""
    if not folder.is_dir():
        findings.add(f"The folder `{folder}` does not exist. Mend the path, or create it and put the files there.")
        return {}
    names = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    pictures = [path for path in names if path.suffix.lower() in PICTURE_SUFFIXES]
    found: dict[str, Path] = {}
    twice = []
    for path in pictures:
        if found.setdefault(path.stem, path) is not path:
            twice.append(f"{found[path.stem].name} and {path.name}")
    findings.add_names(twice, f"Names in `{folder}` should differ before the suffix. Alike are", "Rename one.")
    if not found:
        findings.add(f"The folder `{folder}` holds no picture ({', '.join(PICTURE_SUFFIXES)}). Put some there.")
    return found


def find_masks(folder: Path, findings: Findings) -> dict[str, Path]:
    """As ``find_pictures``, and all should be PNG or TIFF (which can be read by windows)."""
    masks = find_pictures(folder, findings)
    unfit = [path.name for path in masks.values() if path.suffix.lower() not in MASK_SUFFIXES]
    findings.add_names(unfit, f"Files in `{folder}` should be PNG or TIFF. Not so are", "Convert them without loss.")
    return masks


def check_pairs(
    images: Mapping[str, Path], masks: Mapping[str, Path], findings: Findings, masks_optional: bool = False
) -> None:
    """Every picture should have a mask and every mask a picture. No files at all has been found before."""
    if images and masks:
        bare = [str(path) for id_, path in images.items() if id_ not in masks and not masks_optional]
        findings.add_names(bare, "Every picture should have a mask `<id>.png`. Without one are", "Add it.")
        lone = [str(path) for id_, path in masks.items() if id_ not in images]
        findings.add_names(lone, "Every mask should have a picture of its name. Without one are", "Add or remove it.")


def read_table(path: Path, ids: Collection[str], findings: Findings) -> dict[str, dict[str, str]]:
    """Rows of a CSV by id. Every column is a string; an empty cell is left out. No file is an empty table.

    Args:
        path: The table; it has a column ``id``.
        ids: The ids that rows may have. With none, rows are not checked against them.
        findings: Gets what is wrong.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="", skipinitialspace=True, strict=True)
            columns = [column.strip() for column in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        findings.add(f"`{path}` cannot be read: {error}. Store it as CSV in UTF-8, separated by commas.")
        return {}
    if "id" not in columns:
        findings.add(f"`{path}` should have a column `id`. Found the columns {columns}. Add or rename one.")
        return {}
    table: dict[str, dict[str, str]] = {}
    twice = []
    for row in rows:
        cells = {column: row[column].strip() for column in columns if column and row[column].strip()}
        id_ = cells.pop("id", "")
        twice += [id_] if id_ in table else []
        table[id_] = cells
    findings.add_names(twice, f"An id should stand in `{path}` once. Repeated are", "Remove the other rows.")
    strange = [id_ for id_ in table if ids and id_ not in ids]
    findings.add_names(strange, f"`{path}` has ids without a picture:", "Remove the rows or add the pictures.")
    return table


def _read_splits(path: Path, ids: Collection[str], findings: Findings) -> dict[str, str]:
    table = read_table(path, ids, findings)
    wrong = [f"{row.get('split', '')} ({id_})" for id_, row in table.items() if row.get("split") not in PARTS]
    parts = ", ".join(PARTS)
    findings.add_names(wrong, f"`split` in `{path}` should be one of {parts}. Found", "Correct the rows.")
    return {id_: row["split"] for id_, row in table.items() if "split" in row}
