"""Training on patches: around which pixels of a picture, how they are cut out, and how an epoch is made of them."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.channels import holds
from hsl.config.ranges import AtLeastOne, PositiveInt
from hsl.data.files.decoding import Picture
from hsl.data.files.records import Catalogue
from hsl.data.formats.findings import did_you_mean
from hsl.data.loading.cache import PictureCache
from hsl.data.patches.centres import Pixels, poisson_disk
from hsl.data.splits.grouping import name_some
from hsl.errors import ConfigError, DataError

log = logging.getLogger(__name__)

RENEWALS = ("epoch", "fixed")
Maps = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class PatchSampling:
    """Where patches are cut: a Poisson disk sample of the foreground.

    Attributes:
        size: Side of a patch in pixels.
        min_distance: Between the centres of two patches of one picture, in pixels.
        foreground: Names of the classes that centres lie on; ``None``: all pixels that are not ignored.
        renew: ``"epoch"`` draws anew in every epoch, ``"fixed"`` keeps those of the first.
        max_per_picture: At most so many, taken at random; ``None``: all.

    Raises:
        ConfigError: An argument is outside its range; all of them are named.
    """

    size: PositiveInt
    min_distance: AtLeastOne
    foreground: Sequence[str] | None
    renew: str
    max_per_picture: PositiveInt | None

    def __post_init__(self) -> None:
        rules = {
            "size": (self.size >= 1, "at least 1"),
            "min_distance": (self.min_distance >= 1, "at least 1"),
            "foreground": (self.foreground is None or len(self.foreground) > 0, "null or name a class"),
            "renew": (self.renew in RENEWALS, "epoch or fixed"),
            "max_per_picture": (self.max_per_picture is None or self.max_per_picture >= 1, "null or at least 1"),
        }
        wrong = [
            f"`data.patches.{name}` should be {rule}. Found `data.patches.{name} = {getattr(self, name)}`."
            for name, (fits, rule) in rules.items()
            if not fits
        ]
        if wrong:
            raise ConfigError(" ".join(wrong))

    def foreground_table(self, catalogue: Catalogue) -> NDArray[np.bool_]:
        """``bool (256,)``: which values of a mask are foreground. Ignored pixels never are.

        Of overlapping channels a pixel is foreground that shows one of those named, or, for class 0, none at all.

        Raises:
            ConfigError: A name is no class of the data set.
        """
        classes = catalogue.classes
        names = classes if self.foreground is None else self.foreground
        unknown = [name for name in names if name not in classes]
        if unknown:
            raise ConfigError(
                f"`data.patches.foreground` should name classes of the data set. Found {unknown}. "
                f"{did_you_mean(unknown[0], classes, f'Choose from {list(classes)}, or set null for all.')}"
            )
        table = np.zeros(IGNORE_INDEX + 1, bool)
        table[[classes.index(name) for name in names]] = True
        if catalogue.overlapping:
            shown = holds(len(classes) - 1)[:, table[1 : len(classes)]]
            none = np.arange(len(table)) == 0
            return np.asarray(shown.any(axis=1) | (none & table[0]))
        return table

    def draw(self, foreground: NDArray[np.bool_], name: str, seed: int, epoch: int = 0) -> tuple[Pixels, Pixels]:
        """The centres of one picture in random order, and the first pixel of the patch around each.

        They follow from the arguments alone. A patch is shifted inwards where it would reach over the border; of
        patches that then coincide one is left.

        Args:
            foreground: ``bool (H, W)``.
            name: Id of the picture.
            seed: The run's seed.
            epoch: Number of the epoch; of no effect with ``renew="fixed"``.

        Returns:
            Two arrays ``int64 (N, 2)`` of rows and columns; N = 0 exactly where there is no foreground.
        """
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        key = (seed, epoch if self.renew == "epoch" else 0, number)
        centres = poisson_disk(foreground, self.min_distance, key)
        centres = np.random.default_rng((*key, 1)).permutation(centres)
        corners = np.clip(centres - self.size // 2, 0, np.maximum(np.array(foreground.shape) - self.size, 0))
        different = np.sort(np.unique(corners, axis=0, return_index=True)[1])[: self.max_per_picture]
        return centres[different], corners[different]


class TrainingPatches:
    """The patches of the training pictures, epoch after epoch.

    An epoch has as many patches as the first one drew, picture by picture, so that its length, the learning rate
    schedule and the place to resume from do not depend on the epoch. Where a later draw of a picture has more, a
    random part of them is taken; where it has fewer, the first of them come twice.

    Args:
        sampling: Where to cut.
        catalogue: The data set.
        ids: Ids of the training pictures.
        pictures: The decoded pictures of the whole catalogue.
        places: For each id its place in ``pictures``.
        seed: The run's seed.

    Attributes:
        ids: For each patch the id of its picture.
        places: For each patch the place of its picture.

    Raises:
        ConfigError: A foreground class does not exist.
        DataError: No picture has foreground, or one cannot be read or has no mask.
    """

    def __init__(
        self,
        sampling: PatchSampling,
        catalogue: Catalogue,
        ids: Sequence[str],
        pictures: PictureCache,
        places: Sequence[int],
        seed: int,
    ) -> None:
        self._sampling, self._seed = sampling, seed
        self._foreground = sampling.foreground_table(catalogue)
        self._drawn: dict[str, tuple[int, Pixels]] = {}
        counts = [len(self._corners(pictures[place], name, 0)) for name, place in zip(ids, places, strict=True)]
        empty = [name for name, count in zip(ids, counts, strict=True) if not count]
        wanted = "any pixel that counts" if sampling.foreground is None else f"the classes {list(sampling.foreground)}"
        if len(empty) == len(ids):
            raise DataError(
                f"The training pictures should show {wanted}, around which patches are cut. None of {len(ids)} does. "
                "Change `data.patches.foreground`."
            )
        if empty:
            log.warning("Training pictures without %s give no patch: %s.", wanted, name_some(empty))
        self.ids = tuple(np.repeat(np.array(ids), counts).tolist())
        self.places = tuple(np.repeat(np.array(places), counts).tolist())
        self._numbers = np.concatenate([np.arange(count) for count in counts])

    def cut(self, picture: Picture, maps: Maps, index: int, epoch: int) -> tuple[str, Picture, Maps]:
        """The patch of an index in an epoch, and its name: ``<id>@<row>,<column>`` of its first pixel.

        Args:
            picture: The picture at ``places[index]``.
            maps: Further ``(H, W)`` of it, such as the confidence of pseudo-labels; 0 where the picture has ended.
            index: Number of the patch.
            epoch: Number of the epoch.
        """
        name = self.ids[index]
        corners = self._corners(picture, name, epoch)
        y, x = corners[self._numbers[index] % len(corners)].tolist()
        size = self._sampling.size
        parts = {key: _cut_map(each, y, x, size, 0) for key, each in maps.items()}
        return f"{name}@{y},{x}", cut(picture, y, x, size), parts

    def _corners(self, picture: Picture, name: str, epoch: int) -> Pixels:
        """Kept for the epoch under way, as the patches of a picture come one by one."""
        if self._sampling.renew == "fixed":
            epoch = 0
        drawn = self._drawn.get(name)
        if drawn is None or drawn[0] != epoch:
            if picture.mask is None:
                raise DataError(f"`{name}` should have a mask, around whose foreground patches are cut. Add it.")
            drawn = epoch, self._sampling.draw(self._foreground[picture.mask], name, self._seed, epoch)[1]
            self._drawn[name] = drawn
        return drawn[1]


def cut(picture: Picture, y: int, x: int, size: int) -> Picture:
    """A square part of a picture and its mask.

    Where the picture ends before the patch does it is mirrored (without its last pixel), and the mask is
    ``IGNORE_INDEX``: no pixel counts twice.

    Args:
        picture: With a mask of its size.
        y: First row.
        x: First column.
        size: Height and width.
    """
    image = np.ascontiguousarray(picture.image[y : y + size, x : x + size])
    mask = None if picture.mask is None else _cut_map(picture.mask, y, x, size, IGNORE_INDEX)
    below, right = size - image.shape[0], size - image.shape[1]
    if below or right:
        image = np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT_101), np.uint8)
    return Picture(image, mask)


def _cut_map(pixels: NDArray[np.uint8], y: int, x: int, size: int, outside: int) -> NDArray[np.uint8]:
    part = np.ascontiguousarray(pixels[y : y + size, x : x + size])
    below, right = size - part.shape[0], size - part.shape[1]
    return np.pad(part, ((0, below), (0, right)), constant_values=outside) if below or right else part
