"""How the pictures and masks of one data set are decoded: what every reader of them shares."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.bands.band_files import missing_pixels, read_bands
from hsl.data.bands.bands import Bands
from hsl.data.files.decode import RANGE_KEY, Range, check_bits, read_stored
from hsl.data.files.decode_masks import decode_instances, decode_mask
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import Catalogue, IndexMask, MeasuredMask, Record, Source


@dataclass(frozen=True, slots=True)
class Picture:
    """Decoded: RGB ``uint8 (H, W, 3)``, or all named bands ``(H, W, C)``; mask ``uint8 (h, w)`` or ``None``.

    Not to be written to.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class Decoding:
    """The rules of a catalogue, cheap to send to a worker. What changes a pixel is in ``repr``, which names a cache.

    Attributes:
        palette: As in the `Catalogue`, in order.
        values: The same.
        value_range: As in the `Catalogue`.
        ignore_index: The same.
        nearest: The same.
        classes: Their names, for what an error advises.
        max_megapixels: As in the `Catalogue`.
        bits: How many bits the largest number of a picture of 16 bits may have, see `hsl.data.files.decode.check_bits`;
            ``None``: any.
        range_key: What the key that sets another range is called.
        bands: As in the `Catalogue`.
    """

    palette: tuple[tuple[tuple[int, int, int], int], ...] | None = None
    values: tuple[tuple[int, int], ...] | None = None
    value_range: Range = None
    ignore_index: int = 255
    nearest: bool = False
    classes: tuple[str, ...] = field(default=(), repr=False)
    max_megapixels: float = field(default=MAX_MEGAPIXELS, repr=False)
    bits: tuple[int, int] | None = field(default=None, repr=False)
    range_key: str = field(default=RANGE_KEY, repr=False)
    bands: Bands | None = None

    @classmethod
    def of(cls, catalogue: Catalogue) -> "Decoding":
        """The rules of a catalogue's records."""
        palette = None if catalogue.palette is None else tuple(sorted(catalogue.palette.items()))
        values = None if catalogue.values is None else tuple(sorted(catalogue.values.items()))
        return cls(palette, values, catalogue.value_range, catalogue.ignore_index, catalogue.nearest,
                   catalogue.classes, catalogue.max_megapixels, bands=catalogue.bands)  # fmt: skip

    def __call__(self, record: Record) -> Picture:
        """Picture and mask of a record.

        Raises:
            DataError: One of them cannot be read or decoded.
        """
        image = self.image_of(record.image.read(), record.image.name)
        return Picture(image, None if record.mask is None else self.mask(record.mask))

    @property
    def num_channels(self) -> int:
        """Of a picture as a network takes it."""
        return 3 if self.bands is None else len(self.bands.names)

    def image(self, source: Source) -> NDArray[np.uint8]:
        """A picture as people see it, see `hsl.data.files.decode.decode_image`; of named bands those to be shown."""
        image = self.image_of(source.read(), source.name)
        return image if self.bands is None else self.bands.rgb(image)

    def image_of(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """A picture as a network takes it, of bytes that were read."""
        if self.bands is not None:
            return read_bands(data, name, self.bands, self.value_range, self.max_megapixels, self.range_key)
        stored = read_stored(data, name, self.max_megapixels)
        if self.bits is not None:
            check_bits(stored.largest, name, self.value_range, self.bits, self.range_key)
        return stored.to_rgb(name, self.value_range, self.range_key)

    def instances(self, source: Source) -> NDArray[np.integer[Any]]:
        """Ids of objects, see `hsl.data.files.decode_masks.decode_instances`."""
        return decode_instances(source.read(), source.name, self.max_megapixels)

    def mask(self, source: Source) -> NDArray[np.uint8]:
        """A mask, see `hsl.data.files.decode_masks.decode_mask`."""
        return self.mask_of(source.read(), source)

    def mask_of(self, data: bytes, source: Source) -> NDArray[np.uint8]:
        """The same, of all or some of its bytes."""
        if isinstance(source, MeasuredMask):
            mask = self.mask_of(data, source.mask)
            gone = missing_pixels(source.image.read(), source.image.name, self.max_megapixels)
            return mask if gone is None or gone.shape != mask.shape else np.where(gone, np.uint8(IGNORE_INDEX), mask)
        if isinstance(source, IndexMask):
            return decode_mask(data, source.name, max_megapixels=self.max_megapixels)
        palette = None if self.palette is None else dict(self.palette)
        values = None if self.values is None else dict(self.values)
        return decode_mask(
            data, source.name, palette, self.ignore_index, values, classes=self.classes,
            nearest=self.nearest, max_megapixels=self.max_megapixels,
        )  # fmt: skip
