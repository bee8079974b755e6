"""A data set of patches cut from the pictures of another one, with what the cutting did to its classes."""

import functools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile
import yaml
from numpy.typing import NDArray
from rich.progress import track

from hsl.batch import IGNORE_INDEX
from hsl.channels import CHANNEL_VALUES, channel_mask
from hsl.console import PlainConsole
from hsl.data.files.decode import FULL, check_bits
from hsl.data.files.decoding import Decoding, Picture
from hsl.data.files.mask_classes import how_to_name
from hsl.data.files.reading import in_processes
from hsl.data.files.records import Catalogue, FileSource, MeasuredMask, Record, Source
from hsl.data.patches.cut_statistics import (
    STRIP,
    PictureCounts,
    class_table,
    covered_pixels,
    cut_table,
    summary,
)
from hsl.data.patches.patch_sampling import PatchSampling, cut
from hsl.data.patches.windows import LARGE, Read, largest_number, open_missing, open_windows, size_of_large
from hsl.data.splits.grouping import name_some
from hsl.errors import DataError
from hsl.files.cells import csv_of

log = logging.getLogger(__name__)

Plot = Callable[[dict[str, NDArray[np.int64]], Sequence[str], Path], None]


@dataclass(frozen=True)
class PatchSet:
    """What was written: a row for each class, a row for each source picture, and the sums."""

    classes: pd.DataFrame
    pictures: pd.DataFrame
    summary: dict[str, float]


@dataclass(frozen=True)
class _Job:
    """All that a worker has to know besides the picture."""

    catalogue: Catalogue  # without records
    sampling: PatchSampling
    seed: int
    folder: Path


def write_patch_set(
    catalogue: Catalogue,
    sampling: PatchSampling,
    folder: Path,
    *,
    groups: str | None,
    seed: int,
    workers: int,
    plot: Plot,
) -> PatchSet:
    """Cut patches from every picture and write them as a ``folder`` data set, or one of ``channels``.

    ``images/`` (PNG; TIFF of named channels, in the 8 bits that training sees) and ``masks/`` (class indices, 255
    ignored; of overlapping channels a file each, see `channel_mask`), ``dataset.yaml``, ``labels.csv`` with
    ``group`` (that of the source), ``source`` (its id), ``y`` and ``x`` (its first pixel) and all attributes of the
    source, ``splits.csv`` where there is an official split, and ``statistics/``. All patches of a picture share its
    group and its official part, so no split parts them.

    They are the patches that training draws with ``renew="fixed"`` and the same seed.

    Args:
        catalogue: The source.
        sampling: Where to cut.
        folder: An empty folder.
        groups: The attribute that becomes ``group``; ``None``: the id of the source picture.
        seed: Of the drawing.
        workers: Processes. The result does not depend on it.
        plot: ``plot({"before": counts, "after": counts}, classes, path)``.

    Raises:
        ConfigError: A foreground class does not exist.
        DataError: A picture or mask cannot be read or they differ in size, an attribute is missing, or there is no
            foreground at all.
        OSError: The folder cannot be written, or its disk is full.
    """
    sampling.foreground_table(catalogue)
    group_of = _groups(catalogue, groups)
    channels = catalogue.classes[1:] if catalogue.overlapping else ()
    for name in ("images", "masks", "statistics", *(f"masks/{channel}" for channel in channels)):
        (folder / name).mkdir(parents=True)
    job = _Job(replace(catalogue, records=()), sampling, seed, folder)
    counts = list(_each(functools.partial(_write_picture, job), catalogue, workers))
    _warn_of_empty(catalogue, counts)
    _write_tables(catalogue, group_of, counts, folder)
    result = PatchSet(class_table(counts, catalogue), cut_table(counts), summary(counts))
    _write_statistics(result, folder / "statistics", plot)
    return result


def patch_id(source: str, y: int, x: int) -> str:
    """Id of a patch: that of its picture and the place of its first pixel.

    >>> patch_id("reef", 0, 1536)
    'reef_y00000_x01536'
    """
    return f"{source}_y{y:05}_x{x:05}"


def _write_picture(job: _Job, record: Record) -> PictureCounts:
    """Runs in a worker: write all patches of a picture and count."""
    shape, read_image, read_mask = _open(record, job.catalogue)
    size = job.sampling.size
    with tempfile.TemporaryFile(dir=job.folder) as file:
        # of a picture larger than memory even the foreground, a byte per pixel, had better stay on the disk
        large = 3 * shape[0] * shape[1] >= LARGE
        foreground = np.memmap(file, bool, "w+", shape=shape) if large else np.zeros(shape, bool)
        before = _fill(foreground, read_mask, job.sampling.foreground_table(job.catalogue))
        beyond = np.flatnonzero(before[:-1][job.catalogue.num_values :])
        if len(beyond):
            raise DataError(
                f"The mask of `{record.id}` should hold indices of the {len(job.catalogue.classes)} classes. Found "
                f"{beyond[0] + job.catalogue.num_values}. Correct the mask, or name the class. "
                f"{how_to_name(np.flatnonzero(before).tolist(), job.catalogue.classes)}"
            )
        centres, corners = job.sampling.draw(foreground, record.id, job.seed)
        num_foreground = int(np.count_nonzero(foreground))
        covered = covered_pixels(foreground, corners, size)
    after = np.zeros(256, np.int64)
    for y, x in corners.tolist():
        patch = cut(Picture(read_image(y, x, size, size), read_mask(y, x, size, size)), 0, 0, size)
        mask = np.zeros((size, size), np.uint8) if patch.mask is None else patch.mask
        after += np.bincount(mask.ravel(), minlength=256)
        name = patch_id(record.id, y, x)
        _write_image(job.folder / "images" / name, patch.image, named=job.catalogue.bands is not None)
        for folder, pixels in _masks(mask, job.catalogue):
            _write_png(job.folder / folder / name, pixels)
    return PictureCounts(record.id, shape, before, after, num_foreground, covered, centres, corners)


def _write_image(path: Path, image: NDArray[np.uint8], *, named: bool) -> None:
    """PNG of red, green and blue, TIFF of named channels."""
    if not named:
        _write_png(path, image[..., ::-1])
        return
    tifffile.imwrite(
        path.with_name(f"{path.name}.tif"), image, photometric="minisblack", planarconfig="contig", compression="zlib"
    )


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.with_name(f"{path.name}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _masks(mask: NDArray[np.uint8], catalogue: Catalogue) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Folder and pixels of each file that a mask is written to."""
    if not catalogue.overlapping:
        yield "masks", mask
        return
    for bit, channel in enumerate(catalogue.classes[1:]):
        yield f"masks/{channel}", channel_mask(mask, bit)


def _open(record: Record, catalogue: Catalogue) -> tuple[tuple[int, int], Read, Read]:
    if record.mask is None:
        raise DataError(f"`{record.id}` should have a mask, around whose foreground patches are cut. Add it.")
    decoding, mask = Decoding.of(catalogue), record.mask
    if catalogue.value_range is None and catalogue.bands is None:  # nobody has looked at the picture before
        if isinstance(record.image, FileSource) and size_of_large(record.image):
            check_bits(largest_number(record.image.path), record.image.name, None, FULL, decoding.range_key)
        else:
            decoding = replace(decoding, bits=FULL)
    limit = catalogue.max_megapixels
    channels = None if catalogue.bands is None else len(catalogue.bands.names)
    shape, read_image = open_windows(record.image, decoding.image_of, max_megapixels=limit, channels=channels)
    mask_shape, read_mask = _open_mask(mask, decoding, limit)
    if shape != mask_shape:
        raise DataError(
            f"`{record.image.name}` and `{record.mask.name}` should be of one size. Found {shape} and {mask_shape}. "
            "Replace one of them."
        )
    return shape, read_image, read_mask


def _open_mask(mask: Source, decoding: Decoding, limit: float) -> tuple[tuple[int, int], Read]:
    """The mask; one of a scene that is read by windows gets its pixels without measurement by windows too."""
    if not (isinstance(mask, MeasuredMask) and isinstance(mask.image, FileSource) and size_of_large(mask.image)):
        return open_windows(mask, lambda data, _: decoding.mask_of(data, mask), exact=True, max_megapixels=limit)
    size, read = _open_mask(mask.mask, decoding, limit)
    gone = open_missing(mask.image.path)
    if gone is None:
        return size, read
    return size, lambda *window: np.where(gone(*window), np.uint8(IGNORE_INDEX), read(*window))


def _fill(foreground: NDArray[np.bool_], read_mask: Read, table: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Mark the foreground, strip by strip; returns the pixels of each value ``int64 (256,)``."""
    counts = np.zeros(256, np.int64)
    for top in range(0, foreground.shape[0], STRIP):
        strip = read_mask(top, 0, STRIP, foreground.shape[1])
        counts += np.bincount(strip.ravel(), minlength=256)
        foreground[top : top + STRIP] = table[strip]
    return counts


def _each(write: Callable[[Record], PictureCounts], catalogue: Catalogue, workers: int) -> Iterator[PictureCounts]:
    """In the order of the records, in this process or in several."""
    console = PlainConsole(stderr=True)
    show = functools.partial(
        track, description=f"cutting {catalogue.name}", total=len(catalogue.records), console=console,
        transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    killed = "A process that cuts patches was killed, most likely for want of memory. Use fewer: `workers=1`."
    yield from show(in_processes(write, catalogue.records, workers, killed))


def _groups(catalogue: Catalogue, attribute: str | None) -> dict[str, str]:
    """The group of each picture, which its patches share."""
    if not catalogue.records:
        raise DataError(f"`{catalogue.name}` should hold pictures. Found none. Check `data.root`.")
    if attribute is None:
        return {record.id: record.id for record in catalogue.records}
    without = [record.id for record in catalogue.records if attribute not in record.attributes]
    if without:
        raise DataError(
            f"All records of `{catalogue.name}` should have the attribute `{attribute}`. Found none for "
            f"{name_some(without)}. Complete labels.csv, name another one with `data.split.groups=NAME`, or take each "
            "picture as its own group with `data.split.groups=null`."
        )
    return {record.id: record.attributes[attribute] for record in catalogue.records}


def _warn_of_empty(catalogue: Catalogue, counts: Sequence[PictureCounts]) -> None:
    empty = [one.id for one in counts if not len(one.corners)]
    if len(empty) == len(counts):
        found = np.flatnonzero(np.sum([one.before for one in counts], axis=0)).tolist()
        advice = f" {how_to_name(found, catalogue.classes)}" if found == [0, IGNORE_INDEX] else ""
        raise DataError(
            f"Pictures of `{catalogue.name}` should show the classes of `data.patches.foreground`. None of "
            f"{len(counts)} does: their masks hold {name_some(list(map(str, found)))}.{advice}"
        )
    if empty:
        log.warning("Pictures without foreground give no patch: %s.", name_some(empty))


def _write_tables(
    catalogue: Catalogue, group_of: dict[str, str], counts: Sequence[PictureCounts], folder: Path
) -> None:
    """What makes the pictures a ``folder`` data set."""
    rows, splits = [], []
    for record, one in zip(catalogue.records, counts, strict=True):
        for y, x in one.corners.tolist():
            own = {"id": patch_id(record.id, y, x), "group": group_of[record.id], "source": record.id, "y": y, "x": x}
            rows.append(own | {name: value for name, value in record.attributes.items() if name not in own})
            splits.append({"id": own["id"], "split": record.split})
    _write(folder / "labels.csv", pd.DataFrame(rows))
    if all(record.split is not None for record in catalogue.records):
        _write(folder / "splits.csv", pd.DataFrame(splits))
    page: dict[str, object] = {"classes": list(catalogue.classes)}
    if catalogue.overlapping:
        page = {"channels": list(catalogue.classes[1:]), "values": CHANNEL_VALUES}
    if (bands := catalogue.bands) is not None:  # of 8 bits now, which stay as they are
        page |= {"bands": list(bands.names), "shown": [bands.names[place] for place in bands.shown]}
    text = yaml.safe_dump(page, allow_unicode=True, sort_keys=False)
    (folder / "dataset.yaml").write_text(text, encoding="utf8")


def _write(path: Path, table: pd.DataFrame) -> None:
    path.write_text(csv_of(table), encoding="utf8", newline="")


def _write_statistics(result: PatchSet, folder: Path, plot: Plot) -> None:
    _write(folder / "class_shares.csv", result.classes)
    _write(folder / "pictures.csv", result.pictures)
    _write(folder / "summary.csv", pd.DataFrame([result.summary]))
    counts = {part: result.classes[f"pixels_{part}"].to_numpy(np.int64) for part in ("before", "after")}
    plot(counts, list(result.classes["class"]), folder / "class_shares.png")
