"""Which pictures the page shows, with the predictions of all models side by side."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hsl.channels import num_values, shown_classes
from hsl.reports.models import Model
from hsl.reports.page import thumbnails
from hsl.reports.page.pictures import colours_of
from hsl.reports.page.thumbnails import Picture
from hsl.run_folder.layout import PREDICTIONS
from hsl.run_folder.run import Run, ScoredOn

CAP = 600  # thumbnails in the gallery, some 10 kB each


@dataclass(frozen=True)
class Stored:
    """A picture whose input and truth some run left in its folder."""

    id: str
    part: str
    group: str
    input: Path
    truth: Path


@dataclass(frozen=True)
class View:
    """One small picture; without ``uri`` the page shows a gap that says what is missing."""

    title: str
    alt: str
    uri: str | None = None
    model: str = ""
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """A picture on the page; ``classes`` and ``group`` are what the filters ask."""

    id: str
    part: str
    group: str
    classes: Sequence[str]
    views: Sequence[View]
    note: str = ""
    models: Sequence[str] = field(default=())


def stored_pictures(models: Sequence[Model]) -> dict[str, Stored]:
    """The pictures with a stored input and truth, by id; the first run that has one provides it."""
    found: dict[str, Stored] = {}
    for run in (run for model in models for run in model.finished.values()):
        for example in run.examples:
            part = next((part for (part, _), rows in run.images.items() if example.id in rows), None)
            paths = [run.folder / PREDICTIONS / f"{example.stem}_{view}.png" for view in ("input", "truth")]
            if part is not None and example.id not in found and all(map(run.holds, paths)):
                row = next(rows[example.id] for (other, _), rows in run.images.items() if other == part)
                found[example.id] = Stored(example.id, part, row.group, *paths)
    return found


def run_of(model: Model, part: str, name: str) -> Run | None:
    """The run of a model that evaluated a picture with plain inference.

    Where several did (every fold, on the test part), that of the lowest fold and seed that kept its class map.
    """
    found = [run for _, run in sorted(model.finished.items()) if name in run.images.get(ScoredOn(part), {})]
    kept = (run for run in found if any(map(run.holds, _class_maps(run, part, name))))
    return next(kept, found[0] if found else None)


def predicted(run: Run, part: str, name: str) -> Picture | None:
    """The class map of a picture as a run predicted it, none where it is not stored."""
    maps = (thumbnails.read_classes(path) for path in _class_maps(run, part, name) if run.holds(path))
    return next((one for one in maps if one is not None), None)


def _class_maps(run: Run, part: str, name: str) -> list[Path]:
    """Where it may lie: runs from before class maps were kept have those of their best and worst pictures."""
    row = run.images[ScoredOn(part)][name]
    paths = [run.folder / row.prediction] if row.prediction else []
    shown = [one.stem for one in run.examples if one.id == name]
    return paths + [run.folder / PREDICTIONS / f"{stem}_prediction.png" for stem in shown]


def picture_scores(models: Sequence[Model], stored: Mapping[str, Stored]) -> dict[str, dict[str, float]]:
    """Id to label to per-image mIoU, of the stored pictures that every model scored."""
    scores: dict[str, dict[str, float]] = {}
    for name, one in stored.items():
        runs = {model.label: run_of(model, one.part, name) for model in models}
        mious = {label: run.images[ScoredOn(one.part)][name].miou for label, run in runs.items() if run}
        if len(mious) == len(models) and all(math.isfinite(value) for value in mious.values()):
            scores[name] = mious
    return scores


def chosen(scores: Mapping[str, Mapping[str, float]], number: int, blank: Collection[str] = ()) -> dict[str, list[str]]:
    """Ids of the best, the worst and the most disputed pictures; none is shown twice.

    Args:
        scores: id to label to per-image mIoU.
        number: how many of each.
        blank: pictures of one class, which are too easy to be shown as the best.

    Returns:
        ``best`` and ``worst`` by the mean over the models, ``disputed`` by the gap between the best and the worst
        model.

    >>> chosen({"a": {"m": 0.9, "n": 0.9}, "b": {"m": 0.1, "n": 0.2}, "c": {"m": 0.9, "n": 0.1}}, 1)
    {'best': ['a'], 'worst': ['b'], 'disputed': ['c']}
    """
    mean = {name: sum(each.values()) / len(each) for name, each in scores.items()}
    gap = {name: max(each.values()) - min(each.values()) for name, each in scores.items()}
    orders = {
        "best": sorted(set(mean) - set(blank), key=lambda name: (-mean[name], name)),
        "worst": sorted(mean, key=lambda name: (mean[name], name)),
        "disputed": sorted((name for name in gap if gap[name] > 0), key=lambda name: (-gap[name], name)),
    }
    taken: set[str] = set()
    picked: dict[str, list[str]] = {}
    for kind, order in orders.items():
        picked[kind] = [name for name in order if name not in taken][:number]
        taken |= set(picked[kind])
    return picked


def galleries(models: Sequence[Model], classes: Sequence[str], num_pictures: int) -> dict[str, list[Shown]]:
    """Kind (best, worst, disputed) to pictures, each with input, truth and two views per model.

    Args:
        models: in the order of the ranking.
        classes: names of the classes.
        num_pictures: how many of each kind; fewer where the page would hold more than ``CAP`` thumbnails.
    """
    stored = stored_pictures(models)
    scores = picture_scores(models, stored)
    overlapping = any(run.overlapping for model in models for run in model.finished.values())
    number = min(num_pictures, max(1, CAP // (3 * (2 + 2 * len(models)))))
    truths = {name: thumbnails.read_classes(stored[name].truth) for name in scores}
    blank = {name for name, truth in truths.items() if truth is not None and len(np.unique(truth)) == 1}
    return {
        kind: [_shown(stored[name], models, classes, scores[name], overlapping) for name in names]
        for kind, names in chosen(scores, number, blank).items()
    }


def _shown(
    one: Stored, models: Sequence[Model], classes: Sequence[str], scores: Mapping[str, float], overlapping: bool
) -> Shown:
    colours, number = colours_of(classes, overlapping), num_values(len(classes), overlapping)
    picture, truth = thumbnails.read_photo(one.input), thumbnails.read_classes(one.truth)
    views = [
        View("input", f"input {one.id}", None if picture is None else thumbnails.photo(picture)),
        View("truth", f"truth of {one.id}", None if truth is None else thumbnails.class_map(truth, colours)),
    ]
    for model in models:
        run = run_of(model, one.part, one.id)
        mask = None if run is None else predicted(run, one.part, one.id)
        note = f"mIoU {100 * scores[model.label]:.1f} %" + (f", fold {run.fold}" if run else "")
        views += _model_views(model.label, note, one.id, mask, truth, picture, number, colours)
    present = [] if truth is None else shown_classes(thumbnails.classes_in(truth, number), classes, overlapping)
    mean = sum(scores.values()) / len(scores)
    note = f"mean mIoU of the models {100 * mean:.1f} %"
    return Shown(one.id, one.part, one.group, present, views, note)


def _model_views(
    label: str,
    note: str,
    name: str,
    mask: Picture | None,
    truth: Picture | None,
    picture: Picture | None,
    number: int,
    colours: Picture,
) -> list[View]:
    """Prediction and boundary errors of one model, of masks that have ``number`` values in these ``colours``."""
    if mask is None:
        gap = "its prediction is not stored"
        return [View("prediction", gap, None, label, note), View("boundary", gap, None, label)]
    shown = View("prediction", f"prediction of {label} for {name}", thumbnails.class_map(mask, colours), label, note)
    if truth is None:
        return [shown, View("boundary", "no truth to compare with", None, label)]
    fitted = thumbnails.resized(mask, truth.shape)
    errors = thumbnails.boundary_errors(fitted, truth, number, picture)
    return [shown, View("boundary", f"boundary errors of {label} for {name}", errors, label)]
