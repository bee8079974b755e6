"""`hsl audit ensemble=DIR`: the isolation of a finished ensemble, looked at again from what lies on the disk."""

from collections import Counter
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from hsl.ensembles.isolation import Check, judged
from hsl.ensembles.nested import Trail, score_of
from hsl.ensembles.rows import Rows
from hsl.errors import DataError
from hsl.files.split_file import read_split
from hsl.reports.tables.score_tables import Column, Table
from hsl.run_folder.ensemble import StoredEnsemble, read_ensemble, read_ensemble_rows, read_stage
from hsl.run_folder.layout import ISOLATION, SPLITS
from hsl.terminal import say
from hsl.verbs.ensemble.stages.combining import Isolation
from hsl.verbs.ensemble.stages.variants import INDIVIDUAL


def audit_ensemble(cfg: DictConfig) -> None:
    """Check every stage of an image head that was kept, and that the members' splits are still those of the rows.

    Which files were opened can only be watched while an ensemble is made; that row is ``not checked``. Of a dense head
    the table of its own run is what there is, which is said.

    Raises:
        ConfigError: ``ensemble`` is no ensemble.
        DataError: a check is violated, or something is gone or damaged.
    """
    folder = Path(cfg.ensemble)
    page = read_ensemble(folder)
    checks = []
    for name, head in page.heads.items():
        if head.kind == "image":
            checks += _of_head(folder, name, page)
        else:
            say(f"! {name}: the stages of a dense head are audited while they run; see its {ISOLATION}.")
    columns = [Column(key, key) for key in ("stage", "check", "status", "found")]
    rows = [[check.stage, check.check, check.status, check.found] for check in checks if check.status != "passed"]
    if rows:
        say(Table("isolation", "What did not pass.", columns, rows).to_markdown())
    counts = Counter(check.status for check in checks)
    say(", ".join(f"{number} {status}" for status, number in counts.items()))
    judged(checks)


def _of_head(folder: Path, name: str, page: StoredEnsemble) -> list[Check]:
    rows = Rows(**read_ensemble_rows(folder / name))
    splits = {
        member: {fold: read_split(folder / run.folder / SPLITS) for fold, run in one.runs.items()}
        for member, one in page.members.items()
        if member in rows.members
    }
    trained = {
        member: {fold: (*split.folds[fold].train, *split.folds[fold].stop) for fold, split in folds.items()}
        for member, folds in splits.items()
    }
    isolation = Isolation(
        groups=dict(zip(rows.ids, rows.groups, strict=True)),
        contents=dict(zip(rows.ids, rows.contents, strict=True)),
        trained=trained,
        test_lists={member: next(iter(folds.values())).test for member, folds in splits.items()},
        opened=lambda: None,
        test_files=(),
    )
    predicted_by = dict(zip(rows.ids, rows.folds.tolist(), strict=True))
    checks: list[Check] = []
    before = None
    for stage in (INDIVIDUAL, *page.settings):
        found = read_stage(folder / name, stage, None)
        if found is None:
            raise DataError(
                f"`{folder / name / stage}` should hold what the stage gave, whole. Run `hsl ensemble` again."
            )
        content, arrays = found
        scores = {}
        for i, one in enumerate(content["variants"]):
            fitted, nested = (np.asarray(arrays[f"{kind}_{i}"]) for kind in ("fitted", "nested"))
            scores[one["name"]] = (score_of(fitted, rows), score_of(nested, rows))
        trails = [Trail(tuple(fitted), tuple(applied)) for fitted, applied in content["trails"]]
        checks += isolation.of_stage(stage, trails, predicted_by, scores, before)
        before = max((nested for _, nested in scores.values()), default=before)
    return checks
