"""One head of the members: its stages, the recommendation, the test part at the end, and what the page shows of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.ensembles.calibration import fit_temperature, tempered
from hsl.ensembles.nested import meta_folds
from hsl.ensembles.rows import Rows
from hsl.errors import ConfigError
from hsl.files.names import below
from hsl.heads import Head
from hsl.reports.models import Model
from hsl.run_folder.ensemble import StoredCombination, StoredStage, write_ensemble_rows
from hsl.run_folder.run import Run, ScoredOn, read_run
from hsl.terminal import say
from hsl.verbs.ensemble.stages.combining import Isolation, run_stages
from hsl.verbs.ensemble.stages.judging import Judgement, judge_stages
from hsl.verbs.ensemble.stages.stage_runs import OF_MEMBERS, Predictions, write_image_stage
from hsl.verbs.ensemble.stages.variants import BEST, INDIVIDUAL, Variant
from hsl.verbs.scoring.image_results import tune_thresholds

MEAN = "votes/soft"
ON = ScoredOn("val")


@dataclass(frozen=True)
class HeadSettings:
    """How a head is worked on: calls of the stages in their order, parts of the nesting, the score that decides."""

    stages: Mapping[str, Any]
    num_parts: int
    metric: str
    resamples: int
    seed: int
    calibration: str


@dataclass(frozen=True, eq=False)
class HeadWork:
    """What came of a head: ``models`` are the candidates, simplest first; ``single`` the members by themselves."""

    head: Head
    settings: HeadSettings
    rows: Rows
    parts: NDArray[np.int64]
    variants: Mapping[str, Variant]
    models: Sequence[Model]
    single: Sequence[Model]
    judgement: Judgement
    stored: StoredCombination
    test: Rows | None = None
    tested: Sequence[Model] = field(default_factory=list)


def work_on(
    head: Head,
    rows: Rows,
    test_rows: Callable[[], Rows | None],
    runs: Mapping[int, Run],
    isolation: Isolation,
    settings: HeadSettings,
    folder: Path,
    earlier: Path,
) -> HeadWork:
    """Run all stages of an image head, judge them, and look at the test part once, at the end.

    Args:
        head: the image head.
        rows: out-of-fold rows of the members.
        test_rows: reads those of the test part; none where no pictures were set apart.
        runs: a run of each fold of one of the members.
        isolation: what the audit knows.
        settings: of the stages and the judgement.
        folder: where the head is written.
        earlier: where an earlier call left it.
    """
    say(f"head {head.name}: {rows.num_members} members, {len(rows.ids)} pictures, {len(set(rows.groups))} groups")
    try:
        parts = meta_folds(rows, settings.num_parts, settings.seed)
    except ValueError as error:
        raise ConfigError(f"{error} It is `num_parts`.") from error
    done = run_stages(settings.stages, rows, parts, isolation, folder, earlier)
    variants = {one.name: one for one in done}
    write_ensemble_rows(folder, asdict(rows))
    models = {name: _model(folder, one, None, head, runs) for name, one in variants.items()}
    alone = [name for name, one in variants.items() if one.stage == INDIVIDUAL and name != BEST]
    candidates = [BEST, MEAN, *(name for name in variants if name not in (BEST, MEAN, *alone))]
    in_order = [models[name] for name in candidates]
    judgement = judge_stages(in_order, settings.metric, settings.resamples, settings.seed)
    chosen = variants[judgement.recommended]
    say(judgement.sentence)
    test = test_rows()
    tested = []
    if test is not None:
        for name in dict.fromkeys((judgement.recommended, BEST, MEAN)):
            predictions = Predictions(test, variants[name](test))
            tested.append(_model(folder, variants[name], predictions, head, runs))
    temperature = None if settings.calibration == "none" else fit_temperature(chosen.nested, rows)
    calibrated = chosen.nested if temperature is None else tempered(chosen.nested, temperature, head.several)
    thresholds = tune_thresholds(calibrated, rows.labels) if head.several else None
    stages = {
        name: StoredStage(place=i, scores=_scores(models[name]), notes=dict(variants[name].notes))
        for i, name in enumerate(candidates)
    }
    stored = StoredCombination(
        kind=head.kind, classes=list(head.classes), several=head.several, recommended=judgement.recommended,
        sentence=judgement.sentence, temperature=temperature, thresholds=thresholds, stages=stages,
    )  # fmt: skip
    single = [models[name] for name in alone]
    return HeadWork(head, settings, rows, parts, variants, in_order, single, judgement, stored, test, tested)


def _model(folder: Path, variant: Variant, test: Predictions | None, head: Head, runs: Mapping[int, Run]) -> Model:
    """A variant as the report sees a model: a run folder of each fold."""
    nested = Predictions(variant.rows, variant.nested)
    paths = write_image_stage(below(folder, variant.name), variant.name, nested, test, head, runs)
    read = [read_run(path) for path in paths]
    finished = {(run.fold, run.seed): run for run in read}
    return Model(variant.name, OF_MEMBERS, read, finished, {}).on_images()


def _scores(model: Model) -> dict[str, float | None]:
    """Pooled over the folds; null for NaN."""
    pooled = model.pooled(ON)
    values = {} if pooled is None else pooled.overall
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}
