"""What a data set is before anything is decoded: records that know where their bytes are.

A reader in ``hsl.data.formats`` makes a ``Catalogue``; everything after it (scan, split, audit, cache, data
set) works on records alone and neither knows nor cares whether the bytes lie in a folder or in a table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from hsl.channels import num_values
from hsl.data.bands.bands import Bands
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.formats.findings import did_you_mean
from hsl.errors import ConfigError, DataError
from hsl.files.io import read_regular


class Source(Protocol):
    """Where the bytes of one picture or mask come from. Picklable, and cheap to send to a worker."""

    @property
    def name(self) -> str:
        """What a message calls it: the path of a file, or ``data set#row/column`` of a table."""

    def read(self) -> bytes:
        """All bytes as they are stored.

        Raises:
            DataError: The bytes cannot be read.
        """

    def stamp(self) -> str:
        """A fingerprint that is cheap to take and changes when the bytes change.

        Raises:
            DataError: The source is gone.
        """


@runtime_checkable
class PaintedSource(Source, Protocol):
    """A mask that is painted from several annotations, of which a later one may hide an earlier."""

    def overlap(self) -> int:
        """Pixels that annotations of different classes claim.

        Raises:
            DataError: The annotations cannot be read.
        """


@dataclass(frozen=True, slots=True)
class FileSource:
    """The bytes of one file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        try:
            return read_regular(self.path)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def stamp(self) -> str:
        try:
            status = self.path.stat()
        except OSError as error:
            raise _unreadable(self.path, error) from error
        # the time of the last change of any kind cannot be set back, as that of the bytes can (`cp -p`, `touch -d`)
        return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"


@dataclass(frozen=True, slots=True)
class IndexMask:
    """A mask that was made or painted here: class indices and 255, whatever the data set says of its own masks."""

    source: Source

    @property
    def name(self) -> str:
        return self.source.name

    def read(self) -> bytes:
        return self.source.read()

    def stamp(self) -> str:
        return self.source.stamp()


@dataclass(frozen=True, slots=True)
class MeasuredMask:
    """A mask whose pixels do not count where its picture, a TIFF with a nodata value, has no measurement."""

    mask: Source
    image: Source

    @property
    def name(self) -> str:
        return self.mask.name

    def read(self) -> bytes:
        return self.mask.read()

    def stamp(self) -> str:
        return f"{self.mask.stamp()} {self.image.stamp()}"


@dataclass(frozen=True, slots=True)
class Record:
    """One picture with all that is known about it.

    Attributes:
        id: Unique in its catalogue; free of path separators, so that it can be part of a file name.
        image: The picture.
        mask: Its class mask, or ``None`` (prediction).
        instances: Its map of instance ids (16-bit), or ``None``.
        attributes: What is known about the picture as a whole (label, group, material, site ...). An empty
            cell of a table is left out: "not known" is not a value that two pictures share.
        split: The official part, ``"train"``, ``"val"`` or ``"test"``; ``None`` where there is none.
        block: Number of the block that can only be read as a whole, of a stream; else ``None``.
    """

    id: str
    image: Source
    mask: Source | None
    instances: Source | None
    attributes: Mapping[str, str]
    split: str | None
    block: int | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A data set: its records and how their masks and pictures are to be decoded.

    Attributes:
        name: What messages call the data set.
        records: Sorted by id.
        classes: Names of the classes; index 0 is background or "clean".
        palette: Colour -> class index, for masks stored as colours. ``None``: masks hold indices.
        values: Number in a mask -> class index. ``None``: the numbers are the indices.
        value_range: The values of a picture of more than 8 bits that become 0 and 255. ``None``: 0 and 65535.
        ignore_index: The value that masks on disk use for "do not count"; decoding turns it into 255.
        nearest: Whether masks may be blurred, or JPEG: each pixel is of the nearest of ``palette`` or ``values``.
        masks_optional: Whether a picture may come without a mask: none of its pixels then counts.
        relabelled: Ids whose masks took the place of the data set's own.
        not_read: What is said of files that lie among the pictures and masks and are left out.
        max_megapixels: A larger picture or mask is refused before it is decoded.
        bands: The channels of the pictures, where they are named; ``None``: grey or red, green and blue.
        shuffle_buffer: Of a stream: by how many places a picture may move in training; its blocks are taken in random
            order. ``None``: any picture can be read at any time.
        overlapping: Whether a pixel may show several of the classes but 0: masks then hold the codes of `hsl.channels`.
    """

    name: str
    records: tuple[Record, ...]
    classes: tuple[str, ...]
    palette: Mapping[tuple[int, int, int], int] | None = None
    value_range: tuple[float, float] | None = None
    ignore_index: int = 255
    masks_optional: bool = False
    relabelled: frozenset[str] = frozenset()
    not_read: tuple[str, ...] = ()
    values: Mapping[int, int] | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    overlapping: bool = False
    nearest: bool = False
    bands: Bands | None = None
    shuffle_buffer: int | None = None

    @property
    def num_values(self) -> int:
        """How many values a mask may have, from 0 on, besides 255."""
        return num_values(len(self.classes), self.overlapping)


def by_block(records: Sequence[Record], numbers: Sequence[int]) -> list[int]:
    """Places in ``records`` in the order in which a stream is read; as they are of anything else."""
    return sorted(numbers, key=lambda number: records[number].block or 0)


def select(catalogue: Catalogue, only: Mapping[str, str | Sequence[str]]) -> Catalogue:
    """The pictures that have, of each attribute in ``only``, that value or one of those values.

    Raises:
        ConfigError: An attribute or a value occurs nowhere in the data set.
    """
    lists = {
        name: [one] if isinstance(one, str) or not isinstance(one, Sequence) else one for name, one in only.items()
    }
    wanted = {name: {str(value) for value in values} for name, values in lists.items()}
    for name, values in wanted.items():
        found = {record.attributes[name] for record in catalogue.records if name in record.attributes}
        if not found:
            known = sorted({name for record in catalogue.records for name in record.attributes})
            raise ConfigError(
                f"`data.only` should name attributes that occur in `{catalogue.name}`. Found `{name}`. "
                f"{did_you_mean(name, known, f'Choose from {known}.')}"
            )
        if unknown := sorted(values - found):
            raise ConfigError(
                f"`data.only.{name}` should have values that occur in `{catalogue.name}`. Found {unknown}. "
                f"{did_you_mean(unknown[0], found, f'Choose from {sorted(found)[:20]}, or another attribute.')}"
            )
    kept = [r for r in catalogue.records if all(r.attributes.get(name) in values for name, values in wanted.items())]
    if not kept:
        raise ConfigError(f"`data.only = {dict(only)}` leaves no picture of `{catalogue.name}`. Ask for less at once.")
    return replace(catalogue, records=tuple(kept))


def ruled(catalogue: Catalogue, value_range: tuple[float, float] | None, max_megapixels: float) -> Catalogue:
    """The catalogue with the range of its pictures, where one is given, and the limit on their pixels."""
    return replace(catalogue, value_range=value_range or catalogue.value_range, max_megapixels=max_megapixels)


def _unreadable(path: Path, error: OSError) -> DataError:
    if path.is_symlink() and not path.exists():
        return DataError(f"`{path}` is a link to `{path.readlink()}`, which does not exist. Restore it or the link.")
    return DataError(f"`{path}` cannot be read: {error.strerror or error}. Restore the file or fix its permissions.")
