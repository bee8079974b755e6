"""Pictures and masks as files: ``images/``, ``masks/``, ``dataset.yaml`` and up to two tables beside them."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsl.config.ranges import PositiveFloat
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.kinds.arrays import ArraySource
from hsl.data.files.kinds.layers import LayeredMask
from hsl.data.files.records import Catalogue, FileSource, IndexMask, Record, Source
from hsl.data.formats.description import Description, describe, load_description
from hsl.data.formats.findings import Findings
from hsl.data.formats.patterns import CLASS, Pattern, read_pattern
from hsl.data.formats.picture_files import NotRead, check_root, find_masks, misnamed, read_input
from hsl.data.formats.placed_files import Finder, PlacedFiles
from hsl.data.formats.recognise import tell_what_lies_there
from hsl.data.formats.tables import PARTS, official_part, read_table

BACKGROUND = "background"
_SAME = {"palette", "values", "ignore_index"}
"""Keys of which one takes the place of the others."""


def read_folder(
    root: str | Path,
    masks_optional: bool = False,
    images: str = "images/{id}",
    masks: str = "masks/{id}",
    classes: Sequence[str] | None = None,
    palette: Mapping[str, Any] | None = None,
    values: Mapping[int, str] | None = None,
    nearest: bool = False,
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
) -> Catalogue:
    """Read a data set that is a folder of files. Nothing is decoded.

    ==================  =================================================================================
    ``images/``         one picture per id: ``<id>.png``, ``.jpg``, ``.tif``, ``.webp``, ``.bmp`` ...
    ``masks/``          ``<id>.png`` (or ``.tif``, ``.npy``, ``.mat`` ...): class indices, or numbers or colours that
                        ``dataset.yaml`` names; with ``masks_optional`` some or all may be missing
    ``dataset.yaml``    the classes, see ``hsl.data.formats.description``
    ``labels.csv``      optional: ``id`` and any other columns (``label``, ``group``, ...)
    ``splits.csv``      optional, the official split: ``id`` and ``split`` (train, val or test, also
                        validation, valid, dev, training, testing), no other column
    ``instances/``      optional: ``<id>.png``, 16-bit ids of objects
    ==================  =================================================================================

    Args:
        root: The folder.
        masks_optional: Whether pictures may lack a mask, because only their labels are known.
        images: Where pictures lie, see `hsl.data.formats.patterns.read_pattern`. Fields but ``{id}`` are attributes;
            ``{split}`` is the official part.
        masks: Where masks lie. With ``{class}`` each file shows one class, where it is not 0; that of a later class
            lies above that of an earlier one. Several files of one picture without it show the second of two classes.
        classes: Names of the classes, index 0 first, in place of those of ``dataset.yaml``, which then may be missing;
            with ``{class}`` those names, behind ``background``, are the default.
        palette: As in ``dataset.yaml``, and in its place.
        values: The same.
        nearest: Whether masks may be blurred, or JPEG: each pixel is of the class of the nearest colour or number.
        max_megapixels: A larger file of one class is refused before it is decoded.

    Returns:
        The catalogue, sorted by id.

    Raises:
        DataError: With everything that is wrong, the first few files of each kind named.
    """
    root = Path(root)
    findings = Findings()
    check_root(root, "images/", findings)
    of_images = read_pattern(images, "data.reader.images", findings)
    of_masks = read_pattern(masks, "data.reader.masks", findings)
    if of_images is None or of_masks is None:
        findings.raise_if_any(root)
        return Catalogue(root.name, (), ())
    found = Finder(root, findings).find(of_images, of_masks, masks_optional, nearest)
    description = _description(
        root, of_masks, found, {"classes": classes, "palette": palette, "values": values}, findings
    )
    check_pairs(found.images, found.masks, findings, masks_optional)
    if nearest and not (description.palette or description.values or CLASS in of_masks.fields):
        findings.add("`data.reader.nearest` needs `palette` or `values`, whose nearest counts. Name them.")
    sources = _Masks(of_masks, description.classes, nearest, max_megapixels).sources(found.masks, findings)
    instances = find_masks(root / "instances", findings) if os.path.lexists(root / "instances") else {}
    lone = [str(path) for id_, path in instances.items() if found.images and id_ not in found.images]
    findings.add_names(lone, "Every map of instances should have a picture of its name. Without one are", "Rename it.")
    labels = read_table(root / "labels.csv", found.images, findings)
    splits = found.splits | read_splits(root / "splits.csv", found.images, findings)
    _check_names(root, ["labels.csv", "splits.csv", "instances/", *(["masks/"] if masks_optional else [])], findings)
    tell_what_lies_there(root, "folder", found.images, findings)
    findings.raise_if_any(root)
    records = tuple(
        Record(
            id=id_,
            image=FileSource(path),
            mask=sources.get(id_),
            instances=FileSource(instances[id_]) if id_ in instances else None,
            attributes=found.attributes.get(id_, {}) | labels.get(id_, {}),
            split=splits.get(id_),
        )
        for id_, path in sorted(found.images.items())
    )
    return Catalogue(
        name=root.resolve().name,
        records=records,
        classes=description.classes,
        palette=description.palette,
        value_range=description.value_range,
        ignore_index=description.ignore_index,
        values=description.values,
        bands=description.bands,
        masks_optional=masks_optional,
        not_read=findings.told(),
        nearest=nearest,
    )


def _description(
    root: Path, masks: Pattern, found: PlacedFiles, given: Mapping[str, Any], findings: Findings
) -> Description:
    """What ``dataset.yaml`` says, and the settings in its place."""
    path = root / "dataset.yaml"
    told = {name: _plain(value) for name, value in given.items() if value is not None}
    if CLASS in masks.fields and not path.exists():
        names = sorted({name for layers in found.masks.values() for name, _ in layers})
        first = [name for name in names if name.casefold() == BACKGROUND] or [BACKGROUND]
        told.setdefault("classes", [*first, *(name for name in names if name not in first)])
    if not path.exists() and "classes" in told:
        return describe(told, "data.reader", findings)
    content = load_description(path, "classes", findings)
    if content is None:
        return Description()
    kept = {key: value for key, value in content.items() if not (_SAME & told.keys() and key in _SAME)}
    return describe(kept | told, str(path), findings)


@dataclass(frozen=True)
class _Masks:
    """How the files of one picture become its mask."""

    pattern: Pattern
    classes: Sequence[str]
    nearest: bool
    max_megapixels: float

    def sources(self, files: Mapping[str, Sequence[tuple[str, Path]]], findings: Findings) -> dict[str, Source]:
        if not self.classes:
            return {}
        if CLASS in self.pattern.fields:
            names = {name: path for layers in files.values() for name, path in layers}
            strange = [f"{name} ({path.name})" for name, path in names.items() if name not in self.classes]
            findings.add_names(
                strange,
                f"`{{{CLASS}}}` of `{self.pattern.text}` should stand for one of {', '.join(self.classes)}. Found",
                "Correct the pattern, or the classes.",
            )
            return {} if strange else {id_: self._layered(layers) for id_, layers in files.items()}
        several = [id_ for id_, layers in files.items() if len(layers) > 1]
        if len(self.classes) > 2 and several:
            findings.add_names(
                several,
                f"A picture should have one mask of `{self.pattern.text}` where there are more than two classes. "
                "Several have",
                f"Write `{{{CLASS}}}` where the files name their class.",
            )
            return {}
        return {id_: self._layered(layers) if several else self._single(layers[0][1]) for id_, layers in files.items()}

    def _single(self, path: Path) -> Source:
        return ArraySource(path, self.pattern.key) if self.pattern.key else FileSource(path)

    def _layered(self, layers: Sequence[tuple[str, Path]]) -> Source:
        indices = [(path, self.classes.index(name) if name else 1) for name, path in layers]
        ordered = tuple(sorted(indices, key=lambda layer: (layer[1], layer[0])))
        return IndexMask(LayeredMask(ordered, self.nearest, self.max_megapixels))


def _check_names(root: Path, optional: Sequence[str], findings: Findings) -> None:
    for name, near in ((name, misnamed(root / name, name.endswith("/"))) for name in optional):
        if near:
            findings.add(f"`{near}` is not read. Rename it to `{name}`, or to something less alike.")


def _plain(value: Any) -> Any:
    """Lists and maps of a config as those of Python."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def read_pictures(where: str | Path) -> tuple[tuple[Record, ...], NotRead]:
    """Records of all pictures in a folder, of a pattern, or of one picture, without masks: the input of a prediction.

    Args:
        where: The folder, the file, or a pattern as `hsl.data.formats.patterns.read_pattern` reads them behind the
            folder in which it begins: ``photos/**/{id}.jpg``. Of a folder, folders inside it are not looked into.

    Returns:
        The records, and what else lies there.

    Raises:
        DataError: There is no picture, or two have the same id.
    """
    findings, where = Findings(), Path(where)
    images, rest = _of_pattern(where, findings) if "{id}" in str(where) else read_input(where, findings)
    findings.raise_if_any(where)
    return tuple(Record(id_, FileSource(path), None, None, {}, None) for id_, path in sorted(images.items())), rest


def _of_pattern(where: Path, findings: Findings) -> tuple[dict[str, Path], NotRead]:
    parts = where.parts
    first = next(place for place, part in enumerate(parts) if set(part) & set("*?{"))
    root, text = Path(*parts[:first]), "/".join(parts[first:])
    pattern = read_pattern(text, "input", findings)
    if not root.is_dir():
        findings.add(f"The folder `{root}` does not exist. Correct the path.")
    if pattern is None or findings.sentences:
        return {}, NotRead()
    pictures = Finder(root, findings).pictures(pattern, "input")
    return pictures, NotRead()


def check_pairs(
    images: Mapping[str, Path], masks: Mapping[str, Any], findings: Findings, masks_optional: bool = False
) -> None:
    """Every picture should have a mask and every mask a picture. No files at all has been found before."""
    if images and masks:
        bare = [str(path) for id_, path in images.items() if id_ not in masks and not masks_optional]
        findings.add_names(bare, "Every picture should have a mask `<id>.png`. Without one are", "Add it.")
        lone = [str(path if isinstance(path, Path) else path[0][1]) for id_, path in masks.items() if id_ not in images]
        findings.add_names(lone, "Every mask should have a picture of its name. Without one are", "Add or remove it.")


def read_splits(path: Path, ids: Collection[str], findings: Findings) -> dict[str, str]:
    """The official part of each picture, of ``splits.csv``; empty without the file."""
    table = {id_: row.get("split", "") for id_, row in read_table(path, ids, findings, only=["split"]).items()}
    wrong = [f"{word or 'nothing'} ({id_})" for id_, word in table.items() if official_part(word) is None]
    parts = ", ".join(PARTS)
    findings.add_names(wrong, f"`split` in `{path}` should be one of {parts}. Found", "Correct the rows.")
    return {id_: part for id_, word in table.items() if (part := official_part(word))}
