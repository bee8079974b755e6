"""The failure gallery: merged, split, swapped, missed and spurious objects, where each is worst."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hsl.reports.models import Model
from hsl.reports.page import thumbnails
from hsl.reports.page.galleries import Shown, Stored, View, predicted, run_of, stored_pictures
from hsl.reports.page.thumbnails import Box, Picture
from hsl.run_folder.run import ScoredOn
from hsl.run_folder.stored_counts import ObjectRow

KINDS = {
    "missed": "true objects of which nothing was found, or nothing that fits",
    "spurious": "predicted objects where there is none",
    "merge": "several true objects predicted as one",
    "split": "one true object predicted in pieces",
    "swap": "objects that were found but given another class",
}
FEW = 6  # models; with more, one picture of each kind and model


@dataclass(frozen=True)
class Failure:
    """The failed objects of one kind in one picture; boxes refer to the size of the source."""

    kind: str
    id: str
    number: int
    area: int
    classes: Sequence[int]
    target: Sequence[Box]
    prediction: Sequence[Box]


def failures_of(rows: Iterable[ObjectRow]) -> list[Failure]:
    """Every kind of failure in every picture.

    Args:
        rows: of one part and inference; one without ``failures`` is passed over (the metric failed there, or was not
            asked for).
    """
    found = []
    for row in rows:
        told = row.metrics.failures
        if told is None:
            continue
        for kind in KINDS:
            sides = [side.get(kind, []) for side in (told.false_negatives, told.false_positives)]
            number = sum(sum(counts) for counts in sides)
            if not number:
                continue
            boxes = [each for each in told.objects if each["kind"] == kind]
            classes = sorted({i for counts in sides for i, count in enumerate(counts) if count})
            area = sum(each["area"] for each in boxes)
            target, prediction = (_boxes(boxes, side) for side in ("target", "prediction"))
            found.append(Failure(kind, row.id, number, area, classes, target, prediction))
    return found


def worst(failures: Sequence[Failure], kind: str, number: int) -> list[Failure]:
    """The pictures with the most failed objects of a kind; of equals, the one with the larger objects."""
    mine = [one for one in failures if one.kind == kind]
    return sorted(mine, key=lambda one: (-one.number, -one.area, one.id))[:number]


def failure_counts(rows: Iterable[ObjectRow]) -> dict[str, tuple[int, int]]:
    """Kind to the numbers of false negatives and false positives over all rows."""
    told = [row.metrics.failures for row in rows if row.metrics.failures]
    return {
        kind: (
            sum(sum(each.false_negatives.get(kind, [])) for each in told),
            sum(sum(each.false_positives.get(kind, [])) for each in told),
        )
        for kind in KINDS
    }


def failure_gallery(models: Sequence[Model], classes: Sequence[str], part: str) -> dict[str, list[Shown]]:
    """Kind to pictures: for every model those where the kind is worst.

    Args:
        models: in the order of the ranking.
        classes: names of the classes.
        part: whose rows are shown, with plain inference.
    """
    stored = stored_pictures(models)
    number = 2 if len(models) <= FEW else 1
    gallery: dict[str, list[Shown]] = {kind: [] for kind in KINDS}
    for model in models:
        runs = [run for _, run in sorted(model.finished.items())]
        rows = (row for run in runs for row in run.objects(ScoredOn(part)) if run_of(model, part, row.id) is run)
        failures = failures_of(rows)
        for kind, shown in gallery.items():
            for failure in worst(failures, kind, number):
                shown.append(_shown(model, failure, classes, part, stored.get(failure.id)))
    return gallery


def _shown(model: Model, failure: Failure, classes: Sequence[str], part: str, one: Stored | None) -> Shown:
    run = run_of(model, part, failure.id)
    mask = None if run is None else predicted(run, part, failure.id)
    picture = None if one is None else thumbnails.read_photo(one.input)
    truth = None if one is None else thumbnails.read_classes(one.truth)
    shape = next((each.shape for each in (mask, truth, picture) if each is not None), (1, 1))
    views = [
        _view("input", failure, picture, shape, failure.target, failure.prediction),
        _view("truth", failure, truth, shape, failure.target, ()),
        _view("prediction", failure, mask, shape, (), failure.prediction),
    ]
    group = run.images[ScoredOn(part)][failure.id].group if run else ""
    named = [classes[i] for i in failure.classes if i < len(classes)]
    note = f"{failure.number} {'object' if failure.number == 1 else 'objects'}, {', '.join(named)}"
    return Shown(failure.id, part, group, named, views, note, [model.label])


def _view(
    title: str,
    failure: Failure,
    picture: Picture | None,
    shape: tuple[int, ...],
    solid: Sequence[Box],
    dashed: Sequence[Box],
) -> View:
    if picture is None:
        return View(title, f"the {title} is not stored")
    alt = f"{title} of {failure.id} with {len(solid) + len(dashed)} boxes"
    return View(title, alt, thumbnails.boxed(picture, shape, solid, dashed))


def _boxes(objects: Sequence[Mapping[str, Any]], side: str) -> list[Box]:
    found = []
    for each in objects:
        if each["side"] == side:
            top, left, bottom, right = each["box"]
            found.append((top, left, bottom, right))
    return found
