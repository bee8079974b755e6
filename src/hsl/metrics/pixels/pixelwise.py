"""Every pixel score of a validation in one update: the sums of the other files, made in one pass."""

import torch
from torch import Tensor
from torchmetrics import Metric

from hsl.config.ranges import PositiveFloat, PositiveInt
from hsl.metrics.finite import broken_images, check_count
from hsl.metrics.pixels.boundary import (
    boundary_counts,
    boundary_maps,
    sizes_of,
)
from hsl.metrics.pixels.calibration import calibrate
from hsl.metrics.pixels.contours import WIDTH_RATIO, boundary_width
from hsl.metrics.pixels.counts import NO_STRAY, check_strays, pair_counts, read_target
from hsl.metrics.pixels.formulas import BOUNDARY_COUNTS, NUM_BINS, STATES, States, pixel_scores


class Pixelwise(Metric):
    """Confusion, error breakdown, boundary and calibration scores, pooled over the data set and all devices.

    On an accelerator ``update`` does not wait for the device; a target outside the classes, or a logit that is
    not finite, is then reported by ``compute`` and ``states``. Memory beyond the logits is a fraction of theirs.

    Args:
        num_classes: C.
        ratio: the distance d of the boundary scores as a share of the picture's diagonal.
        num_bins: bins of the expected calibration error.
    """

    full_state_update = False
    is_differentiable = False

    matrices: Tensor
    boundaries: Tensor
    pixels: Tensor
    confidence: Tensor
    nll: Tensor
    brier: Tensor
    broken: Tensor
    strays: Tensor
    largest: Tensor

    def __init__(self, num_classes: int, ratio: PositiveFloat = WIDTH_RATIO, num_bins: PositiveInt = NUM_BINS) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ratio = ratio
        self.num_bins = num_bins
        states = {
            "matrices": torch.zeros(2, num_classes, num_classes, dtype=torch.int64),
            "boundaries": torch.zeros(len(BOUNDARY_COUNTS), num_classes, dtype=torch.int64),
            "pixels": torch.zeros(2, num_bins, dtype=torch.int64),
            "confidence": torch.zeros(num_bins, dtype=torch.float64),
            "nll": torch.zeros((), dtype=torch.float64),
            "brier": torch.zeros((), dtype=torch.float64),
            "broken": torch.tensor(0),
            "strays": torch.tensor(0),
        }
        for name, zeros in states.items():
            self.add_state(name, zeros, dist_reduce_fx="sum")
        self.add_state("largest", torch.tensor(NO_STRAY), dist_reduce_fx="max")

    def update(
        self, logits: Tensor, target: Tensor, size: Tensor | None = None, prediction: Tensor | None = None
    ) -> None:
        """Add the pictures of a batch.

        Args:
            logits: ``(B, C, H, W)``.
            target: ``int64 (B, H, W)`` in [0, C) or ``IGNORE_INDEX``.
            size: height and width of each picture where the batch is padded. Should lie on the host.
            prediction: integers ``(B, H, W)``, where the predicted class is not that of the largest logit.

        Raises:
            ValueError: shapes do not fit, or (on a CPU) a target is neither a class nor ``IGNORE_INDEX``.
            NonFiniteLogitsError: (on a CPU) a logit is NaN or infinite.
        """
        if logits.shape[1:2] != (self.num_classes,):
            raise ValueError(f"`logits` should be (B, {self.num_classes}, H, W). Found {tuple(logits.shape)}.")
        labels = read_target(target, self.num_classes)
        if not target.is_cuda:
            check_strays(labels.strays, labels.largest, self.num_classes)
        self.strays += labels.strays
        self.largest = torch.maximum(self.largest, labels.largest)
        if logits.is_cuda:
            self.broken += broken_images(logits).sum()
        prediction, calibration = calibrate(logits, labels.classes, self.num_bins, prediction)
        self.pixels += calibration.pixels
        self.confidence += calibration.confidence
        self.nll += calibration.nll
        self.brier += calibration.brier
        for picture, truth, (height, width) in zip(prediction, labels.classes, sizes_of(target, size), strict=True):
            self._add_picture(picture[:height, :width], truth[:height, :width])

    def compute(self) -> dict[str, Tensor]:
        """Scalars of everything seen: the scores of pixels that `hsl.metrics.catalogue` says a validation logs.

        Raises:
            ValueError: a target was neither a class nor ``IGNORE_INDEX``.
            NonFiniteLogitsError: a logit was NaN or infinite.
        """
        check_strays(self.strays, self.largest, self.num_classes)
        scores = pixel_scores(self.states())
        return {name: torch.tensor(score, dtype=torch.float64, device=self.device) for name, score in scores.items()}

    def states(self) -> States:
        """The sums so far, from which `pixel_scores` makes the scores, copied to the host."""
        check_count(self.broken)
        return {name: getattr(self, name).cpu().numpy().copy() for name in STATES}

    def _add_picture(self, prediction: Tensor, classes: Tensor) -> None:
        width = boundary_width(classes.shape[0], classes.shape[1], self.ratio)
        maps = boundary_maps(prediction, classes, self.num_classes, width)
        self.boundaries += boundary_counts(maps, prediction, classes, self.num_classes)
        self.matrices += pair_counts(prediction, classes, self.num_classes, maps.near, 2)
