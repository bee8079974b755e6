"""Pixels that may show several classes at once: ``images/``, ``masks/`` of several channels, ``dataset.yaml``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsl.channels import ABSENT, MAX_CHANNELS, PRESENT
from hsl.config.ranges import PositiveFloat
from hsl.data.files.channel_masks import SUFFIXES, ChannelMask
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.formats.description import Description, describe, load_description, unfit_names
from hsl.data.formats.findings import Findings
from hsl.data.formats.folder import read_splits
from hsl.data.formats.picture_files import JUNK, by_id, check_root, find_masks, find_pictures, misnamed
from hsl.data.formats.recognise import tell_what_lies_there
from hsl.data.formats.tables import read_table

DEFAULT_VALUES = {0: ABSENT, 1: PRESENT, 255: PRESENT}
_NOT_BESIDE = ("classes", "palette", "ignore_index")


def read_channels(root: str | Path, max_megapixels: PositiveFloat = MAX_MEGAPIXELS) -> Catalogue:
    """Read a data set of overlapping channels. Nothing is decoded.

    ==================  =================================================================================
    ``images/``         one picture per id, as in the format ``folder``
    ``masks/``          a file of all channels per id (PNG of up to 4, TIFF of several channels or pages, or a
                        NumPy array ``.npy`` of one axis for the channels), or ``<channel>/<id>.png`` (or ``.tif``)
    ``dataset.yaml``    ``channels``, their names in order; optional ``values``, the numbers that mean
                        ``absent``, ``present`` and ``ignore`` (default: 0 is absent, 1 and 255 are present),
                        and ``value_range``
    ``labels.csv``,     optional, as in the format ``folder``
    ``splits.csv``
    ==================  =================================================================================

    Args:
        root: The folder.
        max_megapixels: A larger mask is refused before it is decoded.

    Returns:
        The catalogue, sorted by id; its classes are ``absent`` and the channels.

    Raises:
        DataError: With everything that is wrong, the first few files of each kind named.
    """
    root, findings = Path(root), Findings()
    check_root(root, "images/", findings)
    channels, description = _read_description(root / "dataset.yaml", findings)
    images = find_pictures(root / "images", findings)
    masks = _find_masks(root / "masks", channels, images, findings) if channels else {}
    labels = read_table(root / "labels.csv", images, findings)
    splits = read_splits(root / "splits.csv", images, findings)
    for name in ("labels.csv", "splits.csv"):
        if near := misnamed(root / name, is_folder=False):
            findings.add(f"`{near}` is not read. Rename it to `{name}`, or to something less alike.")
    tell_what_lies_there(root, "channels", images, findings)
    findings.raise_if_any(root)
    values = tuple(sorted((description.values or {}).items()))
    records = tuple(
        Record(id_, FileSource(path), ChannelMask(masks[id_], channels, values, max_megapixels), None,
               labels.get(id_, {}), splits.get(id_))
        for id_, path in sorted(images.items())
    )  # fmt: skip
    return Catalogue(
        name=root.resolve().name,
        records=records,
        classes=(ABSENT, *channels),
        value_range=description.value_range,
        not_read=findings.told(),
        overlapping=True,
    )


def _read_description(path: Path, findings: Findings) -> tuple[tuple[str, ...], Description]:
    content = load_description(path, "channels", findings)
    if content is None:
        return (), Description()
    for key in _NOT_BESIDE:
        if key in content:
            findings.add(
                f"`{key}` in `{path}` should not stand beside `channels`. Delete it; what numbers of the masks mean "
                f"is written as `values: {{0: {ABSENT}, 128: ignore, 255: {PRESENT}}}`."
            )
    rest = {key: value for key, value in content.items() if key not in ("channels", *_NOT_BESIDE)}
    described: dict[Any, Any] = {"classes": [ABSENT, PRESENT], "values": DEFAULT_VALUES} | rest
    return _read_names(str(path), content["channels"], findings), describe(described, str(path), findings)


def _read_names(where: str, names: object, findings: Findings) -> tuple[str, ...]:
    words = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not isinstance(names, list) or not words or not 2 <= len(set(names)) == len(names) <= MAX_CHANNELS:
        findings.add(
            f"`channels` in `{where}` should be a list of 2 to {MAX_CHANNELS} different names. Found `{names}`. Take "
            "`data=folder` for one class, and train several models where there are more."
        )
        return ()
    unfit = unfit_names(names)
    unfit += [
        f"The name of a channel should be letters, digits and `_`, and not `{ABSENT}`. Found `{name}`. Rename it."
        for name in names
        if not name.isidentifier() or name == ABSENT
    ]
    for sentence in unfit:
        findings.add(f"`{where}`: {sentence}")
    return () if unfit else tuple(names)


def _find_masks(
    folder: Path, channels: tuple[str, ...], images: Mapping[str, Path], findings: Findings
) -> dict[str, tuple[Path, ...]]:
    """Id to the file that holds all channels, or to one file for each."""
    if not folder.is_dir():
        find_pictures(folder, findings)  # which says what is wrong with it
        return {}
    content = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.name not in JUNK]
    files = [path for path in content if path.suffix.lower() in SUFFIXES and path.is_file()]
    if any(path.is_dir() for path in content):
        return _find_separate(folder, content, channels, images, findings)
    unfit = [path.name for path in content if path not in files]
    findings.add_names(
        unfit, f"Files in `{folder}` should be PNG, TIFF or NPY. Not so are", "Convert them without loss."
    )
    masks = by_id(folder, files, findings)
    _check_pairs(folder, images, masks, findings)
    return {id_: (path,) for id_, path in masks.items()}


def _find_separate(
    folder: Path, content: Sequence[Path], channels: tuple[str, ...], images: Mapping[str, Path], findings: Findings
) -> dict[str, tuple[Path, ...]]:
    findings.add_names(
        [path.name for path in content if path.name not in channels],
        f"`{folder}` should hold a folder for each of the channels {', '.join(channels)}, and nothing else. Not so are",
        "Move them away, or name them in `channels` of dataset.yaml.",
    )
    by_channel = {channel: find_masks(folder / channel, findings) for channel in channels}
    for channel, masks in by_channel.items():
        _check_pairs(folder / channel, images, masks, findings)
    return {id_: tuple(masks[id_] for masks in by_channel.values() if id_ in masks) for id_ in images}


def _check_pairs(folder: Path, images: Mapping[str, Path], masks: Mapping[str, Path], findings: Findings) -> None:
    """Every picture should have a mask and every mask a picture. No files at all has been found before."""
    if not images or not folder.is_dir() or (not masks and findings.sentences):
        return
    findings.add_names(
        [str(path) for id_, path in images.items() if id_ not in masks],
        f"Every picture should have a mask in `{folder}`. Without one are",
        "Add it; where nothing of a channel is there, it is 0 everywhere.",
    )
    lone = [str(path) for id_, path in masks.items() if id_ not in images]
    findings.add_names(lone, "Every mask should have a picture of its name. Without one are", "Add or remove it.")
