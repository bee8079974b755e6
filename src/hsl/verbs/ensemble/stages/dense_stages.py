"""Stages of a dense head: fitted on sampled pixels, nested, and scored over whole maps, one picture after the other."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsl.batch import Batch
from hsl.callbacks.evaluation import PartResult
from hsl.ensembles.dense import ImageMaps, PartFits, combine_each, fit_parts
from hsl.ensembles.nested import Combined, Fit
from hsl.ensembles.rows import Rows
from hsl.heads import Head
from hsl.inference.combining import FLOOR
from hsl.metrics.pixels.formulas import add_states, confusion_scores
from hsl.verbs.ensemble.stages.variants import INDIVIDUAL, READ, Variant, cannot_be_fitted, stage_fits

APPLY = ("votes", "segmentation_vote", "stacking")
LEARNERS = ("stacking/mlp", "stacking/gradient_boosting")  # of the stacking stage pixels take the logistic one


@dataclass(frozen=True, eq=False)
class DenseVariant(Variant):
    """Of a dense head: ``nested``, the scores of every picture by what was fitted without its part; ``rows`` are the
    sampled pixels, and the gap is one of their mIoU."""

    nested: PartResult


def dense_fits(settings: Mapping[str, Any], rows: Rows) -> dict[str, Fit]:
    """The variants that apply to pixels, the single members first."""
    stages = [INDIVIDUAL, *(name for name in settings if name in APPLY)]
    every = {name: fit for stage in stages for name, fit in stage_fits(settings, stage, rows).items()}
    return {name: fit for name, fit in every.items() if name not in LEARNERS}


def run_dense_stages(
    stages: Mapping[str, Any], rows: Rows, parts: NDArray[np.int64], images: Iterable[ImageMaps], head: Head
) -> list[DenseVariant]:
    """Fit every variant on sampled pixels and apply it to every picture.

    Args:
        stages: the call of each.
        rows: the sampled pixels.
        parts: ``(N,)`` number of the part of each pixel.
        images: the maps of all pictures, read once, one after the other.
        head: the dense head.

    Raises:
        DataError: a stage cannot be fitted on these members.
    """
    every, spent = dense_fits(stages, rows), dict[str, float]()
    fitted: dict[str, PartFits] = {}
    for name, fit in every.items():
        begun = time.perf_counter()
        with cannot_be_fitted(name):
            fitted[name] = fit_parts(fit, rows, parts)
        spent[name] = time.perf_counter() - begun
    nested = {name: PartResult(num_examples=0) for name in every}
    for image in images:
        add_image(nested, [fits.of(image.id) for fits in fitted.values()], image, rows.members, head)
    variants = []
    for name, fits in fitted.items():
        notes = {**fits.final.notes, READ: list(fits.final.members)}
        facts = (notes, fits.trails, fits.choices, _gap(rows, parts, fits), spent[name])
        variants.append(DenseVariant(name, rows, every[name], *facts, nested[name]))
    return variants


def _gap(rows: Rows, parts: NDArray[np.int64], fits: PartFits) -> float:
    """mIoU of the sampled pixels by what was fitted on them, less that by what was fitted on the other parts."""
    nested = np.empty((len(rows.ids), len(rows.classes)))
    for number, combined in fits.without.items():
        nested[parts == number] = combined(rows.take(parts == number))
    scores = []
    for probabilities in (fits.final(rows), nested):
        cells = rows.labels * len(rows.classes) + probabilities.argmax(axis=1)
        counts = np.bincount(cells, minlength=len(rows.classes) ** 2)
        scores.append(float(confusion_scores(counts.reshape(len(rows.classes), -1))["miou"]))
    return scores[0] - scores[1]


def add_image(
    results: Mapping[str, PartResult],
    combinations: Sequence[Combined],
    image: ImageMaps,
    members: Sequence[str],
    head: Head,
) -> None:
    """Score what each combination makes of the maps of one picture, as an evaluation scores logits.

    Args:
        results: by variant, in the order of the combinations.
        combinations: of these members.
        image: the maps.
        members: their names, as in the maps.
        head: the dense head.
    """
    batch = one_picture(image.id, torch.from_numpy(image.mask.astype(np.int64)), head)
    made = combine_each(combinations, image.maps, members, head.classes)
    for result, probabilities in zip(results.values(), made, strict=True):
        result.add(torch.from_numpy(np.maximum(probabilities, FLOOR)).log()[None], batch, head)


def one_picture(name: str, mask: Tensor, head: Head) -> Batch:
    """A batch of one picture with its mask ``(H, W)``, as `PartResult.add` reads it."""
    made: dict[str, Any] = {
        "id": [name],
        "size": torch.tensor([list(mask.shape)]),
        "image": torch.zeros(1),
        "masks": {head.name: mask[None]},
    }
    return cast(Batch, made)


def miou_of(result: PartResult) -> float:
    """Pooled over the pictures."""
    return float(confusion_scores(add_states(result.counts)["matrices"].sum(axis=0))["miou"])
