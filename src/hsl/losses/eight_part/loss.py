"""The eight-part loss: binary segmentation of many small objects from weak labels."""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from hsl.batch import Batch, Objectives, Outputs
from hsl.config.ranges import Fraction, FractionAboveZero, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from hsl.errors import ConfigError
from hsl.losses.eight_part import embedding_parts as embeddings
from hsl.losses.eight_part import pixel_parts as maps
from hsl.losses.eight_part.weak_labels import Pixels, read_pixels, resize_labels, weak_targets
from hsl.losses.functional import as_float
from hsl.losses.protocols import Loss

PARTS = (
    "segmentation",
    "edge",
    "hv",
    "reconstruction",
    "object_embedding",
    "pixel_contrastive",
    "total_variation",
    "small_hole",
)
OWN_HEADS = {
    "hv": "hv",
    "reconstruction": "reconstruction",
    "object_embedding": "object_embedding",
    "pixel_contrastive": "pixel_embedding",
}
TARGETS = ("hv", "reconstruction")


class EightPartLoss(nn.Module, Loss):
    """Evaluates the parts whose weight is above 0 and returns the unweighted scalars; the weighting makes the total.

    | part | what | head beside the dense one |
    |---|---|---|
    | ``segmentation`` | BCE + Dice on annotated and pseudo-labelled pixels, a small weight on the rest | |
    | ``edge`` | BCE where the Sobel magnitude of the mask is above 0 | |
    | ``hv`` | squared error to the normalised distance map, inside objects | ``hv`` |
    | ``reconstruction`` | squared error to the picture in [0, 1] | ``reconstruction`` |
    | ``object_embedding`` | pull of positives to the prototypes of picture and batch | ``object_embedding`` |
    | ``pixel_contrastive`` | InfoNCE, positives against pixels with p < ``t_contrast`` | ``pixel_embedding`` |
    | ``total_variation`` | mean absolute difference of neighbouring probabilities | |
    | ``small_hole`` | ``p (1 - d) + (1 - p) d`` with the 3x3 mean ``d`` of p | |

    The formulas stand in the docstrings of ``pixel_parts`` and ``embedding_parts``. Sums run over batch and space at
    once, ignored pixels count nowhere, and all parts run in float32 under automatic mixed precision. A part without a
    pixel to count is 0 with a gradient path. Probabilities that choose pixels (pseudo-labels, negatives) carry no
    gradient.

    Full labels: without ``batch["unlabelled"]`` each 0 of the mask is background, ``segmentation`` is BCE plus Dice
    over all valid pixels, and neither thresholds nor ``opening`` act on it.

    Args:
        weights: each of the eight parts -> its weight in the total, at least 0; 0 switches it off.
        class_counts: head -> ``int64 (C,)`` valid pixels in the training part; only says which dense heads there are.
        t_pos: an unlabelled pixel with p above it is a pseudo-positive; in (t_neg, 1].
        t_neg: an unlabelled pixel with p below it is a pseudo-negative; in [0, t_pos).
        pseudo_weight: of pseudo-labelled pixels in ``segmentation``.
        rest_weight: of the other unlabelled pixels, times one minus the annotated object share of the picture.
        opening: odd side of the square that opens the pseudo-masks, 0 or 1 is off; see ``weak_labels.opened``.
        batch_weight: of the pull to the prototype of the batch.
        t_contrast: see above, in (0, 1].
        temperature: of InfoNCE, above 0.
        max_pixels: positives, and negatives, of a picture that InfoNCE draws at most.
        head: the dense head, two classes and one logit.
        presence_pixels: of other losses; not read.

    Attributes:
        weights: part -> weight, only those above 0, for the weighting.
        required_heads: the heads that these parts read, the dense one first.

    Raises:
        ConfigError: an argument is out of range, or the head is not one with two classes.
    """

    required_heads: tuple[str, ...]
    training_only = True

    def __init__(
        self,
        weights: Mapping[str, NonNegativeFloat],
        class_counts: Mapping[str, Tensor],
        t_pos: Fraction = 0.8,
        t_neg: Fraction = 0.1,
        pseudo_weight: NonNegativeFloat = 0.3,
        rest_weight: NonNegativeFloat = 0.05,
        opening: NonNegativeInt = 0,
        batch_weight: NonNegativeFloat = 0.5,
        t_contrast: FractionAboveZero = 0.1,
        temperature: PositiveFloat = 0.1,
        max_pixels: PositiveInt = 512,
        head: str = "segmentation",
        presence_pixels: Mapping[str, Tensor] | None = None,  # noqa: ARG002 - the task gives it to every loss
    ) -> None:
        super().__init__()
        _check_weights(weights)
        if head not in class_counts or len(class_counts[head]) != 2:
            found = {name: len(counts) for name, counts in class_counts.items()}
            raise ConfigError(
                "`loss.head` should be a dense head with two classes, background and object. "
                f"Found `loss.head = {head}` and the heads with their numbers of classes {found}."
            )
        _check_ranges(
            {
                "t_neg": (t_neg, 0 <= t_neg < t_pos, "in [0, t_pos)"),
                "t_pos": (t_pos, t_pos <= 1, "at most 1"),
                "pseudo_weight": (pseudo_weight, 0 <= pseudo_weight < math.inf, "at least 0"),
                "rest_weight": (rest_weight, 0 <= rest_weight < math.inf, "at least 0"),
                "opening": (opening, opening == 0 or (opening > 0 and opening % 2 == 1), "0 or an odd number"),
                "batch_weight": (batch_weight, 0 <= batch_weight < math.inf, "at least 0"),
                "t_contrast": (t_contrast, 0 < t_contrast <= 1, "in (0, 1]"),
                "temperature": (temperature, 0 < temperature < math.inf, "above 0"),
                "max_pixels": (max_pixels, max_pixels >= 2, "at least 2"),
            }
        )
        self.weights = {part: float(weights[part]) for part in PARTS if weights[part] > 0}
        self.required_heads = (head, *(OWN_HEADS[part] for part in self.weights if part in OWN_HEADS))
        self.head = head
        self.weak = {
            "t_pos": t_pos,
            "t_neg": t_neg,
            "pseudo_weight": pseudo_weight,
            "rest_weight": rest_weight,
        }
        self.opening = opening
        self.batch_weight = batch_weight
        self.t_contrast = t_contrast
        self.temperature = temperature
        self.max_pixels = max_pixels
        self._lengths_checked = False

    def forward(self, outputs: Outputs, batch: Batch) -> Objectives:
        """Unweighted scalar per part whose weight is above 0.

        Args:
            outputs: the ``required_heads``: logits ``(B, 1, H, W)``, or ``(B, 2, H, W)`` of background and object,
                whose difference is the one logit; ``hv (B, 1, H, W)``, ``reconstruction (B, 3, H,
                W)``, and the embeddings ``(B, D, h, w)``, each of any size and **already of length 1 over D**: this is
                checked at the first call, not made.
            batch: ``masks[head]``, ``int64 (B, H, W)`` of 0, 1 and 255; ``unlabelled[head]``, bool, where annotations
                are missing; ``targets["hv"] (B, H, W)`` and ``targets["reconstruction"] (B, 3, H, W)`` for these parts.

        Raises:
            ValueError: something is missing, shapes or types do not fit, or an embedding is longer than 1.
        """
        if outputs[self.head].shape[1] == 2:
            outputs = {**outputs, self.head: outputs[self.head].diff(dim=1)}
        self._check(outputs, batch)
        with torch.autocast(outputs[self.head].device.type, enabled=False):
            unlabelled = batch.get("unlabelled", {}).get(self.head)
            pixels = read_pixels(outputs[self.head], batch["masks"][self.head], unlabelled)
            return {part: self._compute(part, pixels, outputs, batch) for part in self.weights}

    def _compute(self, part: str, pixels: Pixels, outputs: Outputs, batch: Batch) -> Tensor:
        match part:
            case "segmentation":
                target, weight = weak_targets(pixels, **self.weak, opening=self.opening)
                return maps.segmentation(pixels, target, weight)
            case "edge":
                return maps.edge(pixels)
            case "hv":
                return maps.hv(outputs["hv"], batch["targets"]["hv"], pixels)
            case "reconstruction":
                return maps.reconstruction(outputs["reconstruction"], batch["targets"]["reconstruction"], pixels)
            case "object_embedding":
                return self._object_embedding(as_float(outputs["object_embedding"]), pixels)
            case "pixel_contrastive":
                return self._pixel_contrastive(as_float(outputs["pixel_embedding"]), pixels)
            case "total_variation":
                return maps.total_variation(pixels)
            case _:
                return maps.small_hole(pixels)

    def _object_embedding(self, embedding: Tensor, pixels: Pixels) -> Tensor:
        positive = resize_labels(pixels.positive, _size(embedding))
        return embeddings.object_embedding(embedding, positive, self.batch_weight)

    def _pixel_contrastive(self, embedding: Tensor, pixels: Pixels) -> Tensor:
        size = _size(embedding)
        positive = resize_labels(pixels.positive, size)
        unlikely = resize_labels(pixels.probabilities.detach() < self.t_contrast, size)
        negative = unlikely & resize_labels(pixels.valid, size) & ~positive
        return embeddings.pixel_contrastive(embedding, positive, negative, self.temperature, self.max_pixels)

    def _check(self, outputs: Outputs, batch: Batch) -> None:
        missing = [head for head in self.required_heads if head not in outputs]
        if missing:
            raise ValueError(
                f"`outputs` should hold {list(self.required_heads)}. Found no {missing}. Build these heads."
            )
        if self.head in batch.get("weights", {}):
            raise ValueError(
                "The eight-part loss weighs pixels by what is annotated. Found `batch['weights']` as well. "
                "Choose another loss for labels with tiers."
            )
        targets = batch.get("targets", {})
        for name in TARGETS:
            if name not in self.weights:
                continue
            logits = outputs[self.head]
            shape = logits.shape if name == "hv" else torch.Size((logits.shape[0], 3, *logits.shape[2:]))
            wanted = shape[:1] + shape[2:] if name == "hv" else shape
            if name not in targets or targets[name].shape != wanted or outputs[name].shape != shape:
                found = tuple(targets[name].shape) if name in targets else None
                raise ValueError(
                    f"Part `{name}` needs the output {tuple(shape)} and the target {tuple(wanted)}. Found "
                    f"{tuple(outputs[name].shape)} and {found}. Set `loss.weights.{name}=0` to do without."
                )
        if not self._lengths_checked:  # once: it waits for the device
            for head in {"object_embedding", "pixel_embedding"} & set(self.required_heads):
                _check_length(head, outputs[head])
            self._lengths_checked = True


def _size(embedding: Tensor) -> tuple[int, int]:
    return cast(tuple[int, int], tuple(embedding.shape[2:]))


def _check_length(head: str, embedding: Tensor) -> None:
    longest = embedding.detach().float().norm(dim=1).max().item()
    if longest > 1.01:
        raise ValueError(
            f"`outputs[{head!r}]` should have length 1 over its channels. Found {longest:.3g}. "
            "Normalise in the head (`torch.nn.functional.normalize(x, dim=1)`)."
        )


def _check_weights(weights: Mapping[str, float]) -> None:
    if set(weights) != set(PARTS):
        raise ConfigError(f"`loss.weights` should name the parts {list(PARTS)}. Found {sorted(weights)}.")
    broken = {part: weight for part, weight in weights.items() if not 0 <= weight < math.inf}
    if broken or not any(weights.values()):
        raise ConfigError(
            "`loss.weights` should be finite, at least 0, and one of them above 0. "
            f"Found {broken or 'zeros only'}. A part with weight 0 is off."
        )


def _check_ranges(arguments: Mapping[str, tuple[float, bool, str]]) -> None:
    findings = [
        f"`loss.{name}` should be {rule}. Found `loss.{name} = {value}`."
        for name, (value, holds, rule) in arguments.items()
        if not holds
    ]
    if findings:
        raise ConfigError(" ".join(findings))
