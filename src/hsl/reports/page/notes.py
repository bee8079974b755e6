"""What a reader must know before believing a comparison."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hsl.metrics.images.image_counts import COUNTED
from hsl.metrics.pixels.pixel_counts import CONFUSION_METRICS, EMPTY_ONE, METRICS
from hsl.reports.models import Model
from hsl.reports.page import facts
from hsl.reports.page.facts import degraded, weighting_hints
from hsl.reports.scores import Scores, counted
from hsl.run_folder import layout
from hsl.run_folder.run import Run, ScoredOn

FEW_GROUPS = 3
SHOWN = 3  # models that the answer lists


@dataclass(frozen=True)
class Note:
    """``level`` is warning (a figure may mislead) or info; ``short`` is what the answer says of it, in a few words."""

    level: str
    text: str
    short: str = ""


def notes_on(runs: Sequence[Run], models: Sequence[Model], on: ScoredOn) -> list[Note]:
    """Everything to be said, warnings first; ``on`` is what is ranked and compared."""
    heads = [head for model in models if (head := model.on_images()).classes]
    found = [
        *_missing(models),
        *_unlike(models),
        *_refused(models),
        *_runs(runs, models),
        *(Note("warning", text) for text in facts.unchecked(runs)),
        *_ungrouped(models),
        *_few_groups(models, on),
        *_failed_objects(models, on),
        *(Note("warning", text) for text in facts.reverted(models)),
        *_unlike_image_classes(heads),
        *_method(models, on.part),
        *(Note("warning", text) for text in degraded(models)),
        *(Note("info", text) for text in weighting_hints(models)),
        *_left_out(models),
        *_unscored(heads, on),
        *(Note("info", text) for text in facts.memory(models)),
    ]
    return sorted(found, key=lambda note: note.level != "warning")


def _missing(models: Sequence[Model]) -> Iterator[Note]:
    gaps = [model for model in models if model.missing]
    short = ", ".join(f"{len(model.missing)} of {model.num_folds} of {model.label}" for model in gaps[:SHOWN])
    short = f"folds are missing ({short}{f', and of {len(gaps) - SHOWN} others' if len(gaps) > SHOWN else ''})"
    for model in gaps:
        listed = "; ".join(f"fold {fold}: {reason}" for fold, reason in model.missing.items())
        text = f"{model.label}: {len(model.missing)} of {model.num_folds} folds missing. {listed}."
        yield Note("warning", text, short)
    folds = {tuple(model.folds) for model in models if model.finished}
    if len(folds) > 1:
        yield Note(
            "warning",
            "The models were not scored on the same folds, so their means are over unlike pictures. Only "
            "models with every fold that any model has are ranked.",
            "the models were scored on unlike folds",
        )


def _unlike(models: Sequence[Model]) -> Iterator[Note]:
    ready = [model for model in models if model.finished]
    starts = {model.pretrained for model in ready}
    if len(starts) > 1:
        listed = "; ".join(f"{model.label}: {model.initialisation}" for model in ready)
        yield Note(
            "warning",
            "UNLIKE INITIALISATION: some models are pretrained, some start from random weights; the "
            f"comparison shows the initialisation as much as the architecture. {listed}.",
            "the models have unlike first weights",
        )
    elif starts == {False}:
        yield Note("info", "Every model started from random weights.")
    assignments = {model.split.assignment for model in ready if model.split}
    hashes = {str(run.provenance.get("split_sha256")) for model in ready for run in model.finished.values()}
    if len(assignments) > 1 or len(hashes) > 1:
        yield Note(
            "warning",
            "The models do not all share one split of one data set; those that do not are unpaired.",
            "the models do not share one split",
        )
    scored = {tuple(model.classes) for model in ready if model.classes}
    if len(scored) > 1:
        text = "The models were trained on unlike class lists; their mIoU is not comparable."
        yield Note("warning", text, "the models know unlike classes")


def _refused(models: Sequence[Model]) -> Iterator[Note]:
    for model in models:
        if model.refused:
            text = f"{model.label} has no mean over folds: {model.refused}. The folds stand alone."
            yield Note("warning", text, f"{model.label} has no mean over folds")


def _runs(runs: Sequence[Run], models: Sequence[Model]) -> Iterator[Note]:
    for run in runs:
        if not run.config:
            yield Note("warning", f"A run folder could not be read and is in no table. {run.reason}")
        for problem in run.problems:
            yield Note("info", problem)
        yield from _contradictions(run)
        yield from _contradictions(run.on_image_head())
        for task in run.tasks:
            yield from _contradictions(run.on_task(task), f" of {task}")
    used = {run.folder for model in models for run in model.finished.values()}
    older = [str(run.folder) for run in runs if run.status == "finished" and run.folder not in used]
    if older:
        yield Note("info", f"Newer runs of the same model, fold and seed take the place of: {', '.join(older)}.")
    commits = {str((run.provenance.get("git") or {}).get("commit")) for run in runs if run.status == "finished"}
    if len(commits) > 1:
        yield Note("info", f"The runs were made by {len(commits)} different commits; see provenance.")
    if any((run.provenance.get("git") or {}).get("dirty") for run in runs if run.status == "finished"):
        yield Note("info", "Some runs were made with uncommitted changes; see provenance.")


def _contradictions(run: Run, of_task: str = "") -> Iterator[Note]:
    """The stored scores must follow from the stored counts, which every score here is taken from."""
    every = [(part, way) for part, ways in (run.metrics.parts if run.metrics else {}).items() for way in ways]
    file, what = f"the counts{of_task} of the run", "counts"
    if run.of_images:
        file, what = layout.IMAGE_PREDICTIONS, "predictions"
    for on in (ScoredOn(*each) for each in every):
        found, stored, pictures = Scores.of_run(run, on), run.stored(on), counted(run, on)
        if found is None or stored is None or (run.of_images and pictures is None):
            continue
        made = COUNTED if run.of_images else (*METRICS, *EMPTY_ONE) if pictures else CONFUSION_METRICS
        names = [name for name in made if name in stored.scores]
        names = [name for name in names if not run.of_images or stored.scores[name] is not None]
        pairs = [(name, _nan_for_none(stored.scores[name]), found.overall[name]) for name in names]
        unlike = [f"{name} {told:.4f}, but {own:.4f}" for name, told, own in pairs if not _is_close(told, own)]
        if unlike:
            yield Note(
                "warning",
                f"`{run.folder / layout.METRICS}` contradicts {file} on {on}: {'; '.join(unlike)} by the {what}. "
                f"The report uses the {what}; evaluate the run again.",
            )
        rows = run.images.get(on)
        if not run.of_images and pictures and rows and pictures.places.keys() != rows.keys():
            files = f"{layout.PIXEL_COUNTS} and {layout.PER_IMAGE}"
            yield Note("warning", f"`{run.folder}`: {files} hold unlike pictures of {on.part}.")


def _is_close(told: float, own: float) -> bool:
    return math.isclose(told, own, abs_tol=1e-6) or (math.isnan(told) and math.isnan(own))


def _nan_for_none(value: float | None) -> float:
    return math.nan if value is None else value


def _ungrouped(models: Sequence[Model]) -> Iterator[Note]:
    if any(model.split and model.split.groups is None for model in models if model.finished):
        yield Note(
            "warning",
            "The split knows no groups, so every picture counts as independent. Where several pictures show one "
            "source, the parts of a split are not, and intervals and verdicts are too sure. Give each picture its "
            "source in a column and name that in `data.split.groups`.",
            "without groups every picture counts as independent",
        )


def _few_groups(models: Sequence[Model], on: ScoredOn) -> Iterator[Note]:
    """Three views of one object are one sample: a class in fewer than 3 groups is hardly scored at all."""
    said: dict[tuple[str, int], str] = {}
    for model in models:
        for fold in model.folds if model.split else ():
            run = model.seeds(fold)[0]
            numbers = num_groups(run, on)
            few = [f"{name} ({num})" for name, num in zip(model.classes, numbers, strict=False) if num < FEW_GROUPS]
            if few and model.split:
                said.setdefault((model.split.assignment, fold), f"fold {fold}: {', '.join(few)}")
    if said:
        yield Note(
            "warning",
            f"Fewer than {FEW_GROUPS} groups of the {on.part} part hold a class (their number in brackets), so its "
            f"score, and an interval over groups, rests on next to nothing. {'; '.join(said.values())}.",
        )


def num_groups(run: Run, on: ScoredOn) -> list[int]:
    """How many groups have a picture whose truth holds the class, per class; empty without pixel counts."""
    pictures, rows = run.pictures.get(on), run.images.get(on, {})
    if pictures is None:
        return []
    present = pictures.confusion.sum(-1) > 0
    groups = [rows[name].group if name in rows else name for name in pictures.ids]
    return [len({group for group, held in zip(groups, column, strict=True) if held}) for column in present.T]


def _failed_objects(models: Sequence[Model], on: ScoredOn) -> Iterator[Note]:
    for model in models:
        ids = sorted({row.id for row in model.objects(on) if row.errors})
        if ids:
            yield Note(
                "warning",
                f"{model.label}: an object metric failed on {len(ids)} pictures, which it does not score: "
                f"{', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}. See `errors` in {layout.OBJECTS}.",
            )


def _method(models: Sequence[Model], part: str) -> Iterator[Note]:
    for model in models:
        counts = {fold: len(model.seeds(fold)) for fold in model.folds}
        if max(counts.values(), default=1) > 1:
            listed = ", ".join(f"fold {fold}: {number}" for fold, number in counts.items())
            yield Note(
                "info",
                f"{model.label}: several seeds per fold ({listed}). They are averaged within their fold "
                "first; the spread shown is that between folds.",
            )
        if len(model.folds) == 1:
            yield Note("info", f"{model.label}: one fold only, so there is no spread over folds.")
    splits = [run.split for model in models for run in model.finished.values()]
    if part == "val" and not all(split is not None and split.has_stop_part for split in splits):
        yield Note(
            "info",
            "The validation part chose each run's checkpoint (early stopping, best epoch), so its scores are "
            "somewhat optimistic; the held-out test part is not.",
        )


def _left_out(models: Sequence[Model]) -> Iterator[Note]:
    """Which models are in no table of pixels, or of image heads, because they have no such head."""
    ready = [model for model in models if model.finished]
    kinds = {
        "a dense head, so they are in no table or plot of pixels": [bool(model.classes) for model in ready],
        "an image head, so they are in no table or plot of image heads": [bool(m.on_images().classes) for m in ready],
    }
    for what, known in kinds.items():
        if any(known) and not all(known):
            without = [model.label for model, has in zip(ready, known, strict=True) if not has]
            yield Note("info", f"Models without {what}: {', '.join(without)}.")


def _unlike_image_classes(heads: Sequence[Model]) -> Iterator[Note]:
    if len({(*head.classes, head.several) for head in heads}) > 1:
        text = "The image heads were trained on unlike classes; their scores are not comparable."
        yield Note("warning", text)


def _unscored(heads: Sequence[Model], on: ScoredOn) -> Iterator[Note]:
    absent = [head.label for head in heads if all(run.stored(on) is None for run in head.finished.values())]
    if absent:
        yield Note("info", f"Image heads without scores on {on} inference: {', '.join(absent)}.")


def _is_replaced(run: Run, models: Sequence[Model]) -> bool:
    """Whether another run of the same model, fold and seed has finished."""
    return any((run.fold, run.seed) in model.finished for model in models if run in model.runs)


def warnings_of(notes: Sequence[Note], runs: Sequence[Run], models: Sequence[Model]) -> list[str]:
    """What changes the reading of an answer, a few words each; a run whose place another one takes does not."""
    found = list(dict.fromkeys(note.short for note in notes if note.short))
    undone = [run for run in runs if run.status != "finished" and not (run.config and _is_replaced(run, models))]
    if undone:
        are = "is" if len(undone) == 1 else "are"
        found.append(f"{len(undone)} of {len(runs)} runs {are} unfinished or could not be read")
    return found


def few_resamples(resamples: int, num_pairs: int) -> list[Note]:
    """Whether the bootstrap can hold so many pairs to what they are held to."""
    wanted = 20 * num_pairs
    if resamples >= wanted:
        return []
    text = (
        f"`resamples` should be at least {wanted} for {num_pairs} pairs of models. Found `resamples = {resamples}`: "
        "no pair can have a winner. Raise it."
    )
    return [Note("warning", text, f"{resamples} resamples are too few for {num_pairs} pairs")]
