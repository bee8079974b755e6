"""What a reader must know before believing a comparison."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hsl.metrics.pixels.pixel_counts import CONFUSION_METRICS, EMPTY_ONE
from hsl.reports.images import image_notes
from hsl.reports.models import OVERALL, Model, Scores
from hsl.reports.page import event_hints, facts
from hsl.reports.page.weighting_hints import degraded, hints
from hsl.run_folder.layout import METRICS, OBJECTS, PER_IMAGE, PIXEL_COUNTS
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
    found = [
        *_missing(models),
        *_unlike(models),
        *_refused(models),
        *_runs(runs, models),
        *(Note("warning", text) for text in facts.unchecked(runs)),
        *_ungrouped(models),
        *_few_groups(models, on),
        *_failed_objects(models, on),
        *(Note("warning", text) for text in event_hints.reverted(models)),
        *(Note("warning", text) for text in image_notes.unlike_classes(models)),
        *_method(models, on.part),
        *(Note("warning", text) for text in degraded(models)),
        *(Note("info", text) for text in hints(models)),
        *(Note("info", text) for text in image_notes.left_out(models)),
        *(Note("info", text) for text in image_notes.unscored(models, on)),
        *(Note("info", text) for text in event_hints.memory(models)),
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
        yield from (Note("warning", text) for text in image_notes.contradictions(run))
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
    for part, inferences in (run.metrics.parts if run.metrics else {}).items():
        for inference, stored in inferences.items():
            on = ScoredOn(part, inference)
            found = Scores.of_run(run, on)
            known = (*OVERALL, *EMPTY_ONE) if (on) in run.pictures else CONFUSION_METRICS
            unlike = []
            for name in known if found else ():
                told, counted = _nan_for_none(stored.scores.get(name)), found.overall[name] if found else math.nan
                both_unknown = math.isnan(told) and math.isnan(counted)
                if name in stored.scores and not both_unknown and not math.isclose(told, counted, abs_tol=1e-6):
                    unlike.append(f"{name} {told:.4f}, but {counted:.4f}")
            if unlike:
                yield Note(
                    "warning",
                    f"`{run.folder / METRICS}` contradicts the counts{of_task} of the run on {on}: "
                    f"{'; '.join(unlike)} by the counts. The report uses the counts; evaluate the run again.",
                )
            pictures, rows = run.pictures.get(on), run.images.get(on)
            if pictures and rows and pictures.places.keys() != rows.keys():
                yield Note("warning", f"`{run.folder}`: {PIXEL_COUNTS} and {PER_IMAGE} hold unlike pictures of {part}.")


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
                f"{', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}. See `errors` in {OBJECTS}.",
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
    if part == "val" and any(model.finished for model in models):
        yield Note(
            "info",
            "The validation part chose each run's checkpoint (early stopping, best epoch), so its scores are "
            "somewhat optimistic; the held-out test part is not.",
        )


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
