"""What a reader must know of image heads before believing a comparison."""

import math
from collections.abc import Iterator, Sequence

from hsl.metrics.images.image_counts import COUNTED
from hsl.reports.images.model_scores import ImageScores, head_of, stored_head
from hsl.reports.models import Model
from hsl.run_folder.layout import IMAGE_PREDICTIONS, METRICS
from hsl.run_folder.run import Run, ScoredOn


def left_out(models: Sequence[Model]) -> list[str]:
    """Which models are in no table of pixels, or of image heads, because they have no such head."""
    ready = [model for model in models if model.finished]
    kinds = {
        "a dense head, so they are in no table or plot of pixels": [bool(model.classes) for model in ready],
        "an image head, so they are in no table or plot of image heads": [
            head_of(model) is not None for model in ready
        ],
    }
    return [
        f"Models without {what}: {', '.join(m.label for m, has in zip(ready, known, strict=True) if not has)}."
        for what, known in kinds.items()
        if any(known) and not all(known)
    ]


def unlike_classes(models: Sequence[Model]) -> list[str]:
    """Whether image heads know unlike classes."""
    heads = [head for model in models if (head := head_of(model))]
    unlike = any(head != heads[0] for head in heads)
    return ["The image heads were trained on unlike classes; their scores are not comparable."] if unlike else []


def unscored(models: Sequence[Model], on: ScoredOn) -> list[str]:
    """Which image heads were not scored on what is ranked."""
    absent = [
        model.label
        for model in models
        if head_of(model) and all(stored_head(run, on) is None for run in model.finished.values())
    ]
    return [f"Image heads without scores on {on} inference: {', '.join(absent)}."] if absent else []


def contradictions(run: Run) -> Iterator[str]:
    """Stored scores that do not follow from the stored predictions, which every score here is made from."""
    for key in run.image_pictures:
        on = ScoredOn(*key)
        found, stored = ImageScores.of_run(run, on), stored_head(run, on)
        if found is None or stored is None:
            continue
        told = {name: value for name in COUNTED if (value := stored.scores.get(name)) is not None}
        unlike = [
            f"{name} {value:.4f}, but {found.overall[name]:.4f}"
            for name, value in told.items()
            if not math.isclose(value, found.overall[name], abs_tol=1e-6)
        ]
        if unlike:
            yield (
                f"`{run.folder / METRICS}` contradicts {IMAGE_PREDICTIONS} on {on}: "
                f"{'; '.join(unlike)} by the predictions. The report uses the predictions; evaluate the run again."
            )
