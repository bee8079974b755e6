"""Stages of a dense head: fitted on sampled pixels, nested, and scored over whole maps, one picture after the other."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsl.batch import Batch
from hsl.callbacks.evaluation import PartResult
from hsl.ensembles.dense import ImageMaps, affordable_pixels, combine_each, pixel_rows
from hsl.ensembles.nested import Combined, Fit, Trail, meta_folds, refit
from hsl.ensembles.rows import FLOOR, Rows
from hsl.heads import Head
from hsl.metrics.pixels.formulas import add_states, confusion_scores
from hsl.verbs.ensemble.stages.variants import INDIVIDUAL, READ, Variant, stage_fits

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
    stages: Mapping[str, Any],
    images: Callable[[], Iterable[ImageMaps]],
    members: Sequence[str],
    head: Head,
    num_images: int,
    num_parts: int,
    seed: int,
) -> tuple[Rows, NDArray[np.int64], list[DenseVariant]]:
    """Fit every variant on sampled pixels and apply it to every picture.

    Args:
        stages: the call of each.
        images: reads the maps of all pictures, one after the other; called twice.
        members: sorted names, as in the maps.
        head: the dense head.
        num_images: how many pictures there are.
        num_parts: of the nested fits, whole groups.
        seed: of the parts.

    Returns:
        The sampled pixels, their parts, and the variants.
    """
    rows = pixel_rows(images(), members, head.classes, affordable_pixels(num_images))
    parts = meta_folds(rows, num_parts, seed)
    part_of = dict(zip((name.rpartition("@")[0] for name in rows.ids), parts.tolist(), strict=True))
    numbers = sorted(set(part_of.values()))
    fitted, finals = dict[str, dict[int, Combined]](), dict[str, Combined]()
    fits = dense_fits(stages, rows)
    spent = dict.fromkeys(fits, 0.0)
    for name, fit in fits.items():
        begun = time.perf_counter()
        fitted[name] = {number: refit(fit, rows.take(parts != number)) for number in numbers}
        finals[name] = refit(fit, rows)
        spent[name] += time.perf_counter() - begun
    nested = {name: PartResult(num_examples=0) for name in fits}
    for image in images():
        own = [of_parts.get(part_of.get(image.id, -1), finals[name]) for name, of_parts in fitted.items()]
        for result, found in zip(nested.values(), combine_each(own, image.maps, members, head.classes), strict=True):
            add_image(result, found, image, head)
    every = sorted(part_of)
    trails = tuple(
        Trail(tuple(i for i in every if part_of[i] != number), tuple(i for i in every if part_of[i] == number))
        for number in numbers
    )
    variants = []
    for name, fit in fits.items():
        choices = tuple(fitted[name][number].notes for number in numbers)
        gap = _gap(rows, parts, finals[name], fitted[name])
        notes = {**finals[name].notes, READ: list(finals[name].members)}
        facts = (notes, trails, choices, gap, spent[name])
        variants.append(DenseVariant(name, rows, fit, *facts, nested[name]))
    return rows, parts, variants


def _gap(rows: Rows, parts: NDArray[np.int64], final: Combined, of_parts: Mapping[int, Combined]) -> float:
    """mIoU of the sampled pixels by what was fitted on them, less that by what was fitted on the other parts."""
    nested = np.empty((len(rows.ids), len(rows.classes)))
    for number, combined in of_parts.items():
        nested[parts == number] = combined(rows.take(parts == number))
    scores = []
    for probabilities in (final(rows), nested):
        cells = rows.labels * len(rows.classes) + probabilities.argmax(axis=1)
        counts = np.bincount(cells, minlength=len(rows.classes) ** 2)
        scores.append(float(confusion_scores(counts.reshape(len(rows.classes), -1))["miou"]))
    return scores[0] - scores[1]


def add_image(result: PartResult, probabilities: NDArray[np.float32], image: ImageMaps, head: Head) -> None:
    """Score combined probabilities ``(C, H, W)`` of one picture, as an evaluation scores logits."""
    logits = torch.from_numpy(np.maximum(probabilities, FLOOR)).log()[None]
    batch = one_picture(image.id, torch.from_numpy(image.mask.astype(np.int64)), head)
    result.add(logits, batch, head)


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
