"""Stages of a dense head: fitted on sampled pixels, nested, and scored over whole maps, one picture after the other."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsl.batch import Batch
from hsl.callbacks.evaluation import PartResult
from hsl.ensembles.dense import ImageMaps, PartFits, combine_each, fit_parts
from hsl.ensembles.nested import Combined, Fit, Trail
from hsl.ensembles.rows import Rows
from hsl.heads import Head
from hsl.inference.combining import FLOOR
from hsl.metrics.pixels.formulas import STATES, add_states, confusion_scores
from hsl.run_folder.ensemble import read_stage, write_stage
from hsl.verbs.ensemble.stages.variants import INDIVIDUAL, READ, Variant, cannot_be_fitted, digest_of, stage_fits

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


@dataclass(frozen=True, eq=False)
class DenseStage:
    """What a stage gave.

    Attributes:
        name: of the stage.
        digest: of its inputs.
        variants: its ways of combining.
        withheld: checks of the audit, as plain values, for which an earlier call left variants out.
        kept: whether it was taken up from there.
    """

    name: str
    digest: str
    variants: Sequence[DenseVariant]
    withheld: Sequence[Mapping[str, Any]] = ()
    kept: bool = False


def run_dense_stages(
    stages: Mapping[str, Any],
    rows: Rows,
    parts: NDArray[np.int64],
    images: Callable[[], Iterable[ImageMaps]],
    head: Head,
    source: str,
    earlier: Sequence[Path],
) -> list[DenseStage]:
    """Fit every variant on sampled pixels and apply it to every picture; a stage with unchanged inputs is taken up.

    Args:
        stages: the call of each.
        rows: the sampled pixels.
        parts: ``(N,)`` number of the part of each pixel.
        images: the maps of all pictures, read once, one after the other, where a stage is to run.
        head: the dense head.
        source: a hash of all maps and masks.
        earlier: folders of the head where earlier calls have left their stages.

    Raises:
        DataError: a stage cannot be fitted on these members.
    """
    every = dense_fits(stages, rows)
    names = list(dict.fromkeys(name.partition("/")[0] for name in every))
    digests = {stage: f"{digest_of(rows, parts, stages, stage)} {source}" for stage in names}
    found = {stage: _kept(earlier, stage, every, rows, digests[stage]) for stage in names}
    missing = {name: fit for name, fit in every.items() if found[name.partition("/")[0]] is None}
    made = _run(missing, rows, parts, images(), head) if missing else []
    return [
        found[stage] or DenseStage(stage, digests[stage], [one for one in made if one.stage == stage])
        for stage in names
    ]


def keep_dense_stage(folder: Path, done: DenseStage) -> None:
    """Write what a stage gave, of its variants that passed the audit, so that a later call can take it up."""
    arrays: dict[str, NDArray[Any]] = {}
    for i, one in enumerate(done.variants):
        arrays |= {f"ids_{i}": np.array(one.nested.ids, np.str_), f"confidences_{i}": np.array(one.nested.confidences)}
        arrays |= {f"{key}_{i}": np.stack([each[key] for each in one.nested.counts]) for key in STATES}
    page = {
        "digest": done.digest,
        "variants": [
            {"name": one.name, "notes": dict(one.notes), "choices": list(one.choices), "gap": one.gap,
             "seconds": one.seconds, "trails": [[trail.fitted_ids, trail.applied_ids] for trail in one.trails]}
            for one in done.variants
        ],
        "withheld": list(done.withheld),
    }  # fmt: skip
    write_stage(folder, done.name, page, arrays)


def _kept(places: Sequence[Path], stage: str, fits: Mapping[str, Fit], rows: Rows, digest: str) -> DenseStage | None:
    stored = next(filter(None, (read_stage(place, stage, digest) for place in places)), None)
    if stored is None:
        return None
    page, arrays = stored
    variants = []
    for i, one in enumerate(page["variants"]):
        nested = PartResult(num_examples=0)
        nested.ids = arrays[f"ids_{i}"].astype(str).tolist()
        nested.confidences = arrays[f"confidences_{i}"].tolist()
        nested.counts = [{key: arrays[f"{key}_{i}"][k] for key in STATES} for k in range(len(nested.ids))]
        trails = [Trail(tuple(fitted), tuple(applied)) for fitted, applied in one["trails"]]
        facts = (one["notes"], trails, one["choices"], one["gap"], one["seconds"])
        variants.append(DenseVariant(one["name"], rows, fits[one["name"]], *facts, nested))
    return DenseStage(stage, digest, variants, page["withheld"], kept=True)


def _run(
    fits: Mapping[str, Fit], rows: Rows, parts: NDArray[np.int64], images: Iterable[ImageMaps], head: Head
) -> list[DenseVariant]:
    spent = dict[str, float]()
    fitted: dict[str, PartFits] = {}
    for name, fit in fits.items():
        begun = time.perf_counter()
        with cannot_be_fitted(name):
            fitted[name] = fit_parts(fit, rows, parts)
        spent[name] = time.perf_counter() - begun
    nested = {name: PartResult(num_examples=0) for name in fits}
    for image in images:
        add_image(nested, [each.of(image.id) for each in fitted.values()], image, rows.members, head)
    variants = []
    for name, each in fitted.items():
        notes = {**each.final.notes, READ: list(each.final.members)}
        facts = (notes, each.trails, each.choices, _gap(rows, parts, each), spent[name])
        variants.append(DenseVariant(name, rows, fits[name], *facts, nested[name]))
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
