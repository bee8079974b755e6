"""One head of the members: its stages, the recommendation, the test part at the end, and what the page shows of it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.callbacks.evaluation import PartResult
from hsl.ensembles.calibration import fit_temperature
from hsl.ensembles.dense import ImageMaps, affordable_pixels, pixel_rows
from hsl.ensembles.nested import meta_folds
from hsl.ensembles.rows import Rows
from hsl.errors import ConfigError
from hsl.files.names import below
from hsl.heads import Head
from hsl.inference.combining import tempered
from hsl.reports.models import Model
from hsl.run_folder.ensemble import StoredCombination, StoredStage, write_ensemble_rows
from hsl.run_folder.run import Run, ScoredOn, read_run
from hsl.terminal import say
from hsl.verbs.ensemble.stages.combining import Isolation, audited_dense, run_stages
from hsl.verbs.ensemble.stages.dense_stages import DenseVariant, add_image, run_dense_stages
from hsl.verbs.ensemble.stages.judging import Recommendation, judge_stages
from hsl.verbs.ensemble.stages.stage_runs import OF_MEMBERS, Predictions, write_dense_stage, write_image_stage
from hsl.verbs.ensemble.stages.variants import BEST, INDIVIDUAL, MEAN, RowVariant
from hsl.verbs.scoring.image_results import tune_thresholds

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
    """What came of a head: ``models`` are the candidates, simplest first; ``single`` the members by themselves.

    ``test`` reads the test part, and is called once no head has anything left to fit; ``tested`` is what it gave.
    """

    head: Head
    settings: HeadSettings
    rows: Rows
    parts: NDArray[np.int64]
    variants: Mapping[str, Any]
    models: Sequence[Model]
    single: Sequence[Model]
    judgement: Recommendation
    stored: StoredCombination
    test: Callable[[], list[Model]]
    tested: Sequence[Model] = ()


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
    """Run all stages of an image head and judge them.

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
    parts = _parts_of(rows, settings)
    variants = {one.name: one for one in run_stages(settings.stages, rows, parts, isolation, folder, earlier)}

    def model_of(variant: RowVariant, test: Predictions | None) -> Model:
        nested = Predictions(variant.rows, variant.nested)
        paths = write_image_stage(below(folder, variant.name), variant.name, nested, test, head, runs)
        return _model(variant.name, paths).on_images()

    def test_of(names: Sequence[str]) -> dict[str, Predictions]:
        test = test_rows()
        return {} if test is None else {name: Predictions(test, variants[name](test)) for name in names}

    work = _concluded(head, settings, rows, parts, variants, model_of, test_of)
    chosen = variants[work.judgement.recommended]
    temperature = None if settings.calibration == "none" else fit_temperature(chosen.nested, rows)
    calibrated = chosen.nested if temperature is None else tempered(chosen.nested, temperature, head.several)
    thresholds = tune_thresholds(calibrated, rows.labels) if head.several else None
    write_ensemble_rows(folder, asdict(rows))
    stored = work.stored.model_copy(update={"temperature": temperature, "thresholds": thresholds})
    return replace(work, stored=stored)


def work_on_dense(
    head: Head,
    members: Sequence[str],
    images: Callable[[], Iterable[ImageMaps]],
    test_images: Callable[[], Iterable[ImageMaps]] | None,
    runs: Mapping[int, Run],
    isolation: Isolation,
    settings: HeadSettings,
    folder: Path,
    earlier: Path,
) -> HeadWork:
    """The same of a dense head, whose rows are sampled pixels and whose scores are of whole maps.

    Args:
        head: the dense head.
        members: their names, sorted.
        images: reads the out-of-fold maps, one picture after the other, as often as it is called.
        test_images: reads the maps of the test part; none where no pictures were set apart.
        runs: a run of each fold of one of the members.
        isolation: what the audit knows.
        settings: of the stages and the judgement.
        folder: where the head is written.
        earlier: where an earlier call left it.
    """
    folds = {name: fold for fold, run in runs.items() if run.split for name in run.split.folds[fold].val}
    say(f"head {head.name}: {len(members)} members, {len(folds)} pictures")
    source = hashlib.sha256()
    rows = pixel_rows(_hashed(images(), source), members, head.classes, affordable_pixels(len(folds)))
    parts = _parts_of(rows, settings)
    places = (folder, earlier)
    done = run_dense_stages(settings.stages, rows, parts, images, head, source.hexdigest(), places)
    variants = {one.name: one for one in audited_dense(done, folds, isolation, folder)}
    groups = dict(isolation.groups)

    def model_of(variant: DenseVariant, test: PartResult | None) -> Model:
        place = below(folder, variant.name)
        return _model(variant.name, write_dense_stage(place, variant.name, variant.nested, test, head, runs, groups))

    def test_of(names: Sequence[str]) -> dict[str, PartResult]:
        if test_images is None:
            return {}
        results = {name: PartResult(num_examples=0) for name in names}
        for image in test_images():
            groups[image.id] = image.group
            add_image(results, [variants[name].combined for name in names], image, members, head)
        return results

    work = _concluded(head, settings, rows, parts, variants, model_of, test_of)
    write_ensemble_rows(folder, asdict(rows))
    return work


def _hashed(images: Iterable[ImageMaps], into: "hashlib._Hash") -> Iterator[ImageMaps]:
    """The same images; maps and masks go into the hash, of which the sampled pixels are but a part."""
    for image in images:
        into.update(repr((image.id, image.mask.shape, image.maps.shape)).encode())
        into.update(image.mask.tobytes() + image.maps.tobytes())
        yield image


def _concluded(
    head: Head,
    settings: HeadSettings,
    rows: Rows,
    parts: NDArray[np.int64],
    variants: Mapping[str, Any],
    model_of: Callable[[Any, Any], Model],
    test_of: Callable[[Sequence[str]], Mapping[str, Any]],
) -> HeadWork:
    """Judge the variants; the one to take and the baselines wait for the test part."""
    models = {name: model_of(one, None) for name, one in variants.items()}
    alone = [name for name, one in variants.items() if one.stage == INDIVIDUAL and name != BEST]
    bases = [name for name in (BEST, MEAN) if name in variants]  # the audit may withhold one of few rows
    candidates = [*bases, *(name for name in variants if name not in (*bases, *alone))]
    in_order = [models[name] for name in candidates]
    judgement = judge_stages(in_order, settings.metric, settings.resamples, settings.seed)
    say(judgement.sentence)

    def test() -> list[Model]:
        chosen = list(dict.fromkeys((judgement.recommended, *bases)))
        return [model_of(variants[name], predicted) for name, predicted in test_of(chosen).items()]

    stages = {
        name: StoredStage(place=i, scores=_scores(models[name]), notes=dict(variants[name].notes))
        for i, name in enumerate(candidates)
    }
    stored = StoredCombination(
        kind=head.kind, classes=list(head.classes), several=head.several, recommended=judgement.recommended,
        sentence=judgement.sentence, stages=stages,
    )  # fmt: skip
    single = [models[name] for name in alone]
    return HeadWork(head, settings, rows, parts, variants, in_order, single, judgement, stored, test)


def _parts_of(rows: Rows, settings: HeadSettings) -> NDArray[np.int64]:
    """The parts of the nested fits.

    Raises:
        ConfigError: there are too few groups for so many.
    """
    try:
        return meta_folds(rows, settings.num_parts, settings.seed)
    except ValueError as error:
        raise ConfigError(f"{error} The parts are `num_parts`.") from error


def _model(label: str, paths: Sequence[Path]) -> Model:
    """A variant as the report sees a model: a run folder of each fold."""
    read = [read_run(path) for path in paths]
    return Model(label, OF_MEMBERS, read, {(run.fold, run.seed): run for run in read}, {})


def _scores(model: Model) -> dict[str, float | None]:
    """Pooled over the folds; null for NaN."""
    pooled = model.pooled(ON)
    values = {} if pooled is None else pooled.overall
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}
