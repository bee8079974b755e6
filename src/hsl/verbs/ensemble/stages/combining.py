"""All stages of one head, each audited before anything of it is written, and what they allow to be said."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hydra.errors import InstantiationException
from numpy.typing import NDArray

from hsl.ensembles.isolation import (
    Check,
    check_complete,
    check_decline,
    check_gap,
    check_out_of_fold,
    check_sides,
    check_test_list,
    check_test_unopened,
    judged,
)
from hsl.ensembles.nested import Fit, Trail, score_of
from hsl.ensembles.rows import Rows
from hsl.errors import ConfigError
from hsl.run_folder.ensemble import write_isolation
from hsl.terminal import say
from hsl.verbs.ensemble.stages.dense_stages import DenseStage, DenseVariant, keep_dense_stage, miou_of
from hsl.verbs.ensemble.stages.variants import (
    INDIVIDUAL,
    RowVariant,
    cannot_be_fitted,
    digest_of,
    keep_stage,
    kept_stage,
    run_stage,
    stage_fits,
)

REPORTED = ("warning", "violation", "not checked")
FIRST = "not below the stage before"  # of the first stage there is nothing to check


@dataclass(frozen=True, eq=False)
class Isolation:
    """What the audit knows besides the rows.

    Attributes:
        groups: id -> group, of all images outside the test part.
        contents: id -> hash of the image.
        trained: member -> fold -> ids that it trained on or stopped by.
        test_lists: member -> ids of its test part.
        opened: every file that was opened until now; ``None``: nobody watched.
        test_files: those of the test part.
    """

    groups: Mapping[str, str]
    contents: Mapping[str, str]
    trained: Mapping[str, Mapping[int, Collection[str]]]
    test_lists: Mapping[str, Collection[str]]
    opened: Callable[[], Collection[str] | None]
    test_files: Collection[str]

    def of_stage(
        self,
        stage: str,
        trails: Sequence[Trail],
        folds: Mapping[str, int],
        scores: Mapping[str, tuple[float, float]],
        before: float | None,
    ) -> list[Check]:
        """Every check of one stage.

        Args:
            stage: its name.
            trails: of its fits; ids of images.
            folds: id -> number of the fold that predicted it.
            scores: by variant, on the rows that it was fitted on, and nested.
            before: the best nested score of the stage before; ``None``: this is the first.
        """
        test = next(iter(self.test_lists.values()))
        checks = check_sides(stage, trails, self.groups, self.contents)
        checks += [
            check_out_of_fold(stage, folds, self.trained, self.groups),
            check_complete(stage, folds, self.groups.keys() - set(test)),
            check_test_list(stage, test, self.test_lists),
            check_test_unopened(stage, self.opened(), self.test_files),
        ]
        checks += [check_gap(name, *both) for name, both in scores.items()]
        best = max((nested for _, nested in scores.values()), default=math.nan)
        return [*checks, check_decline(stage, best, before)]


def tell(stage: str, checks: Sequence[Check], scores: Mapping[str, float], kept: bool = False) -> None:
    """Say what a stage gave, and which checks were not passed."""
    told = ", ".join(f"{name} {100 * score:.1f}" for name, score in scores.items())
    say(f"{stage}{' (kept)' if kept else ''}: {told or 'no score'}")
    for check in checks:
        if check.status in REPORTED and check.check != FIRST:
            left = ": its score is withheld" if check.status == "violation" else ""
            say(f"! {check.stage}: {check.check}: {check.status}: {check.found}{left}")


def run_stages(
    settings: Mapping[str, Any],
    rows: Rows,
    parts: NDArray[np.int64],
    isolation: Isolation,
    folder: Path,
    earlier: Path,
) -> list[RowVariant]:
    """Run the stages of a head in their order; one whose inputs have not changed since is taken up.

    Args:
        settings: the call of each stage, as plain values, in their order. The individual members come first.
        rows: out-of-fold rows of the members.
        parts: ``(N,)`` parts of the nested fits.
        isolation: what the audit knows.
        folder: of the head, for what is written.
        earlier: where an earlier call has left its stages.

    A variant that scores far better on the rows that it was fitted on than nested is left out, and that is said.

    Raises:
        DataError: what was fitted could know what it is scored on. ``isolation.json`` says how; nothing of the stage is
            written.
    """
    done: list[RowVariant] = []
    checks: list[Check] = []
    for stage in (INDIVIDUAL, *settings):
        fits = _stage_fits(settings, stage, rows)
        digest = digest_of(rows, parts, settings, stage)
        places = (folder, earlier)
        kept = next(filter(None, (kept_stage(place, stage, fits, rows, digest) for place in places)), None)
        with cannot_be_fitted(stage):
            variants, withheld = kept or (run_stage(fits, rows, parts), [])
        before = max((score_of(one.nested, rows) for one in done if one.stage == done[-1].stage), default=None)
        trails = variants[0].trails if variants else ()
        scores = {one.name: (score_of(one.fitted, rows), score_of(one.nested, rows)) for one in variants}
        folds = dict(zip(rows.ids, rows.folds.tolist(), strict=True))
        own = isolation.of_stage(stage, trails, folds, scores, before)
        own += [Check(**check) for check in withheld]
        checks += own
        write_isolation(folder, [asdict(check) for check in checks])
        judged(check for check in own if check.stage not in fits)
        violated = [check for check in own if check.status == "violation"]
        variants = [one for one in variants if one.name not in {check.stage for check in violated}]
        keep_stage(folder, stage, variants, digest, trails, [asdict(check) for check in violated])
        done += variants
        tell(stage, own, {one.name: scores[one.name][1] for one in variants}, kept is not None)
    return done


def audited_dense(
    stages: Sequence[DenseStage], folds: Mapping[str, int], isolation: Isolation, folder: Path
) -> list[DenseVariant]:
    """The variants of a dense head that pass the audit, see `run_stages`; what each stage gave is kept.

    Args:
        stages: in their order.
        folds: id of each image -> number of the fold that predicted it.
        isolation: what the audit knows.
        folder: of the head.
    """
    checks: list[Check] = []
    passed: list[DenseVariant] = []
    before = None
    for stage in stages:
        nested = {one.name: miou_of(one.nested) for one in stage.variants}
        scores = {one.name: (nested[one.name] + one.gap, nested[one.name]) for one in stage.variants}
        trails = stage.variants[0].trails if stage.variants else ()
        own = isolation.of_stage(stage.name, trails, folds, scores, before)
        before = max(nested.values(), default=before)
        own += [Check(**check) for check in stage.withheld]
        checks += own
        write_isolation(folder, [asdict(check) for check in checks])
        judged(check for check in own if check.stage == stage.name)
        violated = [check for check in own if check.status == "violation"]
        good = [one for one in stage.variants if one.name not in {check.stage for check in violated}]
        keep_dense_stage(folder, replace(stage, variants=good, withheld=[asdict(check) for check in violated]))
        passed += good
        tell(stage.name, own, {one.name: nested[one.name] for one in good}, stage.kept)
    return passed


def _stage_fits(settings: Mapping[str, Any], stage: str, rows: Rows) -> dict[str, Fit]:
    try:
        return stage_fits(settings, stage, rows)
    except InstantiationException as error:  # around what the stage itself has to say of its settings
        cause = error.__cause__ or error
        raise ConfigError(f"`settings.{stage}` does not do: {cause} Or leave it out with `stages=[...]`.") from error
