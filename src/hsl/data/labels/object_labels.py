"""Masks of which only some objects are annotated, and how deep each pixel lies in its object."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from scipy import ndimage

from hsl.batch import DISTANCE, IGNORE_INDEX
from hsl.config.ranges import FractionAboveZero, NonNegativeFloat, Seed
from hsl.data.audit.instance_check import check_instances, first_gap
from hsl.data.files.decode_masks import decode_instances
from hsl.data.files.decoding import Decoding
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import Catalogue, IndexMask, Source
from hsl.data.labels.pseudo_labels import Annotations, Mask
from hsl.errors import ConfigError, DataError
from hsl.files.split_file import Split

Distances = npt.NDArray[np.float32]


def distance_map(instances: npt.NDArray[np.integer[Any]]) -> Distances:
    """How deep each pixel lies in its object: 1 at the deepest, 0 outside.

    ``d_i / max_j d_j`` over the pixels of one object, with ``d_i`` the Euclidean distance to the centre of the nearest
    pixel that is not of this object. A neighbour that touches is not of it, nor is what lies beyond the border of the
    picture, so the map is low along every border. Source of the idea: Naylor et al. 2019, "Segmentation of Nuclei in
    Histopathology Images by Deep Regression of the Distance Map", there not divided.

    Args:
        instances: ``(H, W)``, at least 0; 0 is no object. Ids need not be consecutive, nor objects connected.

    Returns:
        ``float32 (H, W)`` in [0, 1].

    Raises:
        ValueError: it is no integer image, it is empty, or an id is negative.

    Example:
        >>> distance_map(np.array([[1, 1, 1, 0, 2]] * 3)).tolist()[1]
        [0.5, 1.0, 0.5, 0.0, 1.0]
    """
    if instances.ndim != 2 or instances.dtype.kind not in "iu" or not instances.size or instances.min() < 0:
        raise ValueError(
            "`instances` should be an integer image (H, W) of ids from 0, not empty. Found "
            f"`instances.shape = {instances.shape}`, `instances.dtype = {instances.dtype}`."
        )
    # Some readers give ids such as 2**31, and find_objects makes a list as long as the largest.
    found, numbers = np.unique(instances, return_inverse=True)
    numbers = numbers.reshape(instances.shape) + (0 not in found)
    distances = np.zeros(instances.shape, dtype=np.float32)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        inside = numbers[box] == number
        depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        distances[box][inside] = depth[inside] / depth.max()
    return distances


PICTURE = "reconstruction"


@dataclass(frozen=True)
class ObjectLabels:
    """For training, the masks of a data set with instance ids; validation and test keep theirs as they are.

    Args:
        annotated_fraction: Chance of each object to be annotated, in (0, 1]. It is drawn from the seed, the picture's
            id and the object's id alone: a larger fraction holds the objects of a smaller one. Of all other pixels
            nothing is known then.
        seed: Of the draw.
        targets: ``hv``, the distance map, and ``reconstruction``, the picture, with what each weighs in the loss: one
            of weight 0 is not made. ``None``: both are.

    Raises:
        ConfigError: The fraction is out of range, or there is no such target.
    """

    annotated_fraction: FractionAboveZero = 1.0
    seed: Seed = 0
    targets: Mapping[str, NonNegativeFloat] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.annotated_fraction <= 1:
            raise ConfigError(
                "`data.labels.annotated_fraction` should be in (0, 1]. "
                f"Found `data.labels.annotated_fraction = {self.annotated_fraction}`."
            )
        if unknown := sorted(set(self.targets or ()) - {DISTANCE, PICTURE}):
            raise ConfigError(
                f"`data.labels.targets` should name {DISTANCE} and {PICTURE}. Found {unknown}. Remove them."
            )

    def read(
        self, catalogue: Catalogue, split: Split, fold: int, cache_dir: Path | None = None, workers: int = 1
    ) -> "TrainingObjects":
        """Check that there are two classes, and the instance ids of all parts.

        Args:
            catalogue: The data set.
            split: Its fold assignment.
            fold: Number of the fold.
            cache_dir: See `check_instances`.
            workers: See `check_instances`.

        Raises:
            DataError: There are other classes, maps of instance ids do not fit, or a training picture has none though
                the distance map or the draw of objects needs it.
        """
        if len(catalogue.classes) != 2:
            raise DataError(
                f"`{catalogue.name}` should have two classes, background and object, for `data/labels=objects`. "
                f"Found {list(catalogue.classes)}."
            )
        weights = {DISTANCE: 1.0, PICTURE: 1.0} if self.targets is None else self.targets
        targets = frozenset(name for name, weight in weights.items() if weight)
        training = set(split.parts(fold)["train"])
        sources = {record.id: record.instances for record in catalogue.records if record.id in training}
        missing = sorted(name for name, source in sources.items() if source is None)
        if missing and (DISTANCE in targets or self.annotated_fraction < 1):
            raise DataError(
                f"Every picture of `{catalogue.name}` should have a map of instance ids. Found none of {missing[0]} "
                f"and {len(missing) - 1} more. Add `instances/<id>.png`."
            )
        check_instances(catalogue, cache_dir, workers)
        found = {name: source for name, source in sources.items() if source is not None}
        return TrainingObjects(found, self.annotated_fraction, self.seed, targets, catalogue.max_megapixels)


@dataclass(frozen=True)
class AnnotatedObjects:
    """A mask in which only the annotated objects are left: a source of bytes like any other."""

    mask: Source
    instances: Source
    picture: str
    fraction: float
    seed: int
    how: Decoding

    @property
    def name(self) -> str:
        """That of the whole mask."""
        return self.mask.name

    def read(self) -> bytes:
        """A PNG of class indices: 1 in annotated objects, 255 where the mask ignores, else 0.

        Raises:
            DataError: A file cannot be read, or ids are missing.
        """
        ids = read_instances(self.instances, self.how.max_megapixels)
        mask = self.how.mask(self.mask)
        chosen = [number for number in range(1, int(ids.max()) + 1) if self.annotated(number)]
        left = np.where(np.isin(ids, chosen), 1, 0).astype(np.uint8)
        left[mask == IGNORE_INDEX] = IGNORE_INDEX
        return bytes(cv2.imencode(".png", left)[1].tobytes())

    def annotated(self, number: int) -> bool:
        """Whether the object of this id is."""
        digest = hashlib.sha256(f"{self.seed}/{self.picture}/{number}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.fraction * 2**64

    def stamp(self) -> str:
        """Of both files, how they are decoded, and the draw."""
        return f"{self.mask.stamp()}-{self.instances.stamp()}-{self.how}-{self.fraction}-{self.seed}"


@dataclass(frozen=True)
class TrainingObjects:
    """The training part of one fold, with its instance ids by picture."""

    instances: Mapping[str, Source]
    fraction: float
    seed: int
    targets: frozenset[str]
    max_megapixels: float = MAX_MEGAPIXELS
    _distances: dict[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def tiers(self) -> None:
        """There are none."""

    def relabelled(self, catalogue: Catalogue, training: set[str]) -> Catalogue:
        """Training pictures have masks of the annotated objects; with all of them annotated nothing changes."""
        if self.fraction == 1:
            return catalogue
        how = Decoding.of(catalogue)
        records = tuple(
            replace(record, mask=IndexMask(AnnotatedObjects(record.mask, self.instances[record.id], record.id,
                                                            self.fraction, self.seed, how)))
            if record.id in training and record.mask is not None else record
            for record in catalogue.records
        )  # fmt: skip
        return replace(catalogue, records=records, relabelled=frozenset(training))

    def teaches(self, name: str) -> bool:
        """Every picture does."""
        del name
        return True

    def maps(self, name: str) -> dict[str, Mask]:
        """The distance map, 255 at the deepest pixel of each object; made once per picture and process."""
        if DISTANCE not in self.targets:
            return {}
        if name not in self._distances:
            distances = distance_map(read_instances(self.instances[name], self.max_megapixels))
            self._distances[name] = np.rint(distances * 255).astype(np.uint8)
        return {DISTANCE: self._distances[name]}

    def annotate(self, name: str, head: str, mask: Mask, maps: dict[str, Mask]) -> Annotations:
        """``targets``: the distance map in [0, 1], and an empty ``reconstruction``, which is filled in on the device.

        ``unlabelled``: all but annotated objects, where some are not.
        """
        del name
        targets = {}
        if DISTANCE in self.targets:
            targets[DISTANCE] = maps[DISTANCE].astype(np.float32) / np.float32(255)
        if PICTURE in self.targets:
            targets[PICTURE] = np.empty(0, np.float32)
        found: Annotations = {"targets": targets} if targets else {}
        if self.fraction < 1:
            found["unlabelled"] = {head: mask == 0}
        return found


def read_instances(source: Source, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[Any]:
    """Instance ids ``(H, W)``, 1 to n without a gap; all 0 where there is no object.

    Raises:
        DataError: The file cannot be read, or an id between 1 and the largest is missing.
    """
    ids = decode_instances(source.read(), source.name, max_megapixels)
    if absent := first_gap(np.unique(ids)):
        raise DataError(
            f"`{source.name}` should hold the ids 1 to {ids.max()} without a gap. Found no {absent}. "
            "Number the objects anew."
        )
    return ids
