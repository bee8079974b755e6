"""Pseudo-labels in place of the masks of the training pictures: a folder that `hsl label` wrote."""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.config.ranges import NonNegativeFloat
from hsl.data.files.records import Catalogue, FileSource, IndexMask
from hsl.data.labels.label_table import check_origin, place_of, read_labels, read_labels_page
from hsl.data.labels.review import checked
from hsl.errors import ConfigError, DataError
from hsl.files.split_file import Split

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class PseudoLabels:
    """Which pseudo-labels take the place of the training masks, and what they weigh.

    A tier without a weight is left out: its pictures keep the label of the whole picture, but no pixel of them counts.
    Uncertain pixels are 255 in the masks and count nowhere. Masks of validation and test pictures are never replaced.

    Args:
        folder: What `hsl label` or a refinement round wrote.
        tier_weights: Weight of each pixel by tier; the published values are 1.0 for A and 0.5 for B.
        weigh_by_confidence: Whether a pixel's confidence multiplies its weight.
        unchecked: Whether to train on labels without a passed spot check. It is recorded in the run's config.

    Raises:
        ConfigError: No tier has a weight, or one is negative.
    """

    folder: str
    tier_weights: Mapping[str, NonNegativeFloat | None]
    weigh_by_confidence: bool = False
    unchecked: bool = False

    def __post_init__(self) -> None:
        weights = [weight for weight in self.tier_weights.values() if weight is not None]
        if not weights or min(weights) < 0 or max(weights) == 0:
            raise ConfigError(
                "`data.labels.tier_weights` should hold weights of at least 0, one of them above 0. "
                f"Found {dict(self.tier_weights)}."
            )

    def read(
        self, catalogue: Catalogue, split: Split, fold: int, cache_dir: Path | None = None, workers: int = 1
    ) -> "PseudoTrainingLabels":
        """Read the folder's table and check that it belongs to this data set, split and fold; nothing is stored.

        Raises:
            DataError: It holds no pseudo-labels, or those of other data, another split or fold, or of a picture outside
                the training part, has no picture in a tier with a weight, or its spot check is open or failed.
        """
        del cache_dir, workers
        root = Path(self.folder)
        facts = read_labels_page(root)
        tiers = {row.id: row.tier for row in read_labels(root).rows}
        check_origin(root, facts, tiers, catalogue.classes, split, fold)
        weights = {tier: weight for tier, weight in self.tier_weights.items() if weight}
        if not self.unchecked:
            # those of a refinement round were made from labels that were checked
            verdict = checked(place_of(facts.get("reviewed", "."), root, facts.get("folder")))
            if verdict.get("demote_b"):
                weights.pop("B", None)
        else:
            warnings.warn(f"The labels of `{root}` are used without a passed spot check.", stacklevel=2)
        taught = {name: tier for name, tier in tiers.items() if tier in weights}
        if not taught:
            raise DataError(
                f"`{root}` should have pictures in the tiers {sorted(weights)}. Found none among {len(tiers)} labels. "
                "Loosen `tiers` or the class rules of `hsl label`, or give another tier a weight."
            )
        used = {name: weights[tier] for name, tier in taught.items()}
        return PseudoTrainingLabels(root, used, self.weigh_by_confidence, dict(Counter(sorted(taught.values()))))


class Annotations(TypedDict, total=False):
    """Entries of a sample beside picture and mask; see `hsl.batch.Sample`, where they are tensors."""

    weights: dict[str, NDArray[np.float32]]
    unlabelled: dict[str, NDArray[np.bool_]]
    targets: dict[str, NDArray[np.float32]]


class TrainingLabels(Protocol):
    """What takes the place of the masks of the training part of one fold."""

    @property
    def tiers(self) -> Mapping[str, int] | None:
        """The number of pictures that teach, by tier of pseudo-labels; ``None``: there are no tiers."""

    def relabelled(self, catalogue: Catalogue, training: set[str]) -> Catalogue:
        """The catalogue with other masks, or none, of the training pictures."""

    def teaches(self, name: str) -> bool:
        """Whether any pixel of this picture counts."""

    def maps(self, name: str) -> dict[str, Mask]:
        """``uint8 (h, w)`` by name: what has to be augmented together with picture and mask."""

    def annotate(self, name: str, head: str, mask: Mask, maps: dict[str, Mask]) -> Annotations:
        """Further entries of the sample, of the augmented mask ``uint8 (h, w)`` of ``head`` and the augmented maps."""


@dataclass(frozen=True)
class PseudoTrainingLabels:
    """The pseudo-labels of the training part of one fold.

    Attributes:
        root: Their folder.
        weights: Id -> weight of its pixels; pictures that count nowhere are left out.
        weigh_by_confidence: See `PseudoLabels`.
        tiers: Tier -> number of the pictures with a weight.
    """

    root: Path
    weights: Mapping[str, float]
    weigh_by_confidence: bool
    tiers: Mapping[str, int]

    def relabelled(self, catalogue: Catalogue, training: set[str]) -> Catalogue:
        """No training picture has the mask of the data set: it has a pseudo-label or none."""
        records = tuple(
            replace(record, mask=self._mask(record.id), instances=None) if record.id in training else record
            for record in catalogue.records
        )
        return replace(catalogue, records=records, masks_optional=True, relabelled=frozenset(training))

    def _mask(self, name: str) -> IndexMask | None:
        return IndexMask(FileSource(self.root / "masks" / f"{name}.png")) if self.teaches(name) else None

    def teaches(self, name: str) -> bool:
        """Whether the picture is in a tier with a weight."""
        return name in self.weights

    def maps(self, name: str) -> dict[str, Mask]:
        """The confidence, 255 is sure, where it matters.

        Raises:
            DataError: The file is gone or broken.
        """
        if not self.weigh_by_confidence or not self.teaches(name):
            return {}
        path = self.root / "confidence" / f"{name}.png"
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 2:
            raise DataError(f"`{path}` should be a grey PNG. Found none. Make the labels anew with `hsl label`.")
        return {"confidence": np.asarray(picture, dtype=np.uint8)}

    def annotate(self, name: str, head: str, mask: Mask, maps: dict[str, Mask]) -> Annotations:
        """``weights``: ``(h, w)`` where confidence counts, else one for all pixels, ``(1, 1)``."""
        weight = self.weights.get(name, 0.0)
        if not self.weigh_by_confidence:
            return {"weights": {head: np.full((1, 1), weight, np.float32)}}
        if "confidence" not in maps:  # a picture that counts nowhere has none
            return {"weights": {head: np.zeros(mask.shape, np.float32)}}
        return {"weights": {head: maps["confidence"] * np.float32(weight / 255)}}
