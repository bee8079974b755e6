"""`hsl ensemble`: the folds of several models combined, each stage scored nested, audited, held against one model."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.data.files.records import FileSource
from hsl.data.prepared import PreparedData
from hsl.ensembles.rows import Rows
from hsl.errors import ConfigError
from hsl.files.io import sha256_of
from hsl.files.output_folder import OutputFolder
from hsl.heads import Head
from hsl.run_folder.ensemble import VERSION, StoredEnsemble, StoredMember, StoredRun, write_ensemble
from hsl.run_folder.layout import best_checkpoint
from hsl.terminal import say
from hsl.verbs.ensemble.gathering import Members, gather_members, out_of_fold_rows, rows_of_test
from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows, open_data
from hsl.verbs.ensemble.members import Member
from hsl.verbs.ensemble.opened_files import OpenedFiles
from hsl.verbs.ensemble.page import write_page
from hsl.verbs.ensemble.stages.combining import Isolation
from hsl.verbs.ensemble.stages.head_work import MEAN, HeadSettings, HeadWork, work_on

CALIBRATIONS = ("temperature", "none")
FEATURE_STAGES = ("fusion", "experts")  # what reads pooled features, which a pass over the checkpoints makes
VOTES = MEAN.partition("/")[0]  # always run: the plain mean stands beside all others


def ensemble(cfg: DictConfig) -> Path:
    """Combine the models of the runs that match ``cfg.runs``.

    Returns:
        The page.

    Raises:
        ConfigError: a stage is unknown or named twice, or an argument is out of range.
        DataError: the runs are no members of one ensemble, or an isolation check is violated.
    """
    validate(cfg)
    stages = chosen_stages(cfg)
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs]
    found = gather_members(patterns, list(cfg.ignore), cfg.name_key, "image", cfg.inference_name)
    for note in found.notes:
        say(f"! {note}")
    folders = [folder for member in found.members for folder in member.folders]
    way_out = "Choose another `output`."
    with OutputFolder(cfg.output, "ensemble", inputs=folders, resume=True, way_out=way_out) as output:
        settings = RowSettings(allowed_targets(cfg), cfg.data_root, cfg.cache_dir, cfg.inference_name, maps=False)
        _, data = open_data(folders[0], settings)
        works = [_image_head(found, data.prepared, cfg, stages, settings, output)]
        page = _page(found, works, stages, output.path)
        write_page(output.work, page, works)
        write_ensemble(output.work, page)
    say(output.path / "index.html")
    return output.path / "index.html"


def chosen_stages(cfg: DictConfig) -> dict[str, Any]:
    """The calls of the chosen stages, in the order of the stages; the votes are always among them.

    Raises:
        ConfigError: one is unknown or named twice.
    """
    known: dict[str, Any] = OmegaConf.to_container(cfg.settings, resolve=True)  # type: ignore[assignment]
    stages = [cfg.stages] if isinstance(cfg.stages, str) else list(cfg.stages)
    if len(set(stages)) < len(stages) or not set(stages) <= set(known):
        raise ConfigError(
            f"`stages` should name some of {', '.join(known)}, each once. Found `stages = {stages}`. Leave out what is "
            "not among them, or there already."
        )
    if cfg.calibration not in CALIBRATIONS:
        raise ConfigError(
            f"`calibration` should be one of {', '.join(CALIBRATIONS)}. Found `calibration = {cfg.calibration}`. "
            "Choose one."
        )
    return {name: node for name, node in known.items() if name in (VOTES, *stages)}


def _image_head(
    found: Members,
    data: PreparedData,
    cfg: DictConfig,
    stages: Mapping[str, Any],
    settings: RowSettings,
    output: OutputFolder,
) -> HeadWork:
    run = next(iter(found.members[0].runs.values()))
    head = Head(run.image_head, "image", found.classes, found.several)
    contents = dict(zip(data.scan.ids, data.scan.content, strict=True))
    features = bool(set(FEATURE_STAGES) & set(stages))
    folders = [folder for member in found.members for folder in member.folders]
    with OpenedFiles() as opened:
        if features:
            keep_rows(folders, "val", settings)
        rows = out_of_fold_rows(found, contents, features)

        def test_rows() -> Rows | None:
            if not found.test:
                return None
            if features:
                keep_rows(folders, "test", settings)
            return rows_of_test(found, contents, features)

        isolation = Isolation(
            groups=dict(zip(rows.ids, rows.groups, strict=True)),
            contents=contents,
            trained={member.name: member.trained for member in found.members},
            test_lists={member.name: member.split.test for member in found.members},
            opened=opened.paths,
            test_files=_files(data, found.test),
        )
        chosen = HeadSettings(
            stages, cfg.num_parts, cfg.image_metric, cfg.resamples, cfg.seed, cfg.calibration
        )  # fmt: skip
        runs = dict(found.members[0].runs)
        return work_on(head, rows, test_rows, runs, isolation, chosen, output.work / head.name, output.path / head.name)


def _files(data: PreparedData, ids: Collection[str]) -> set[str]:
    """The files of some pictures and of their masks, as far as they are files."""
    records = [data.catalogue.records[data.places[name]] for name in ids]
    sources = [source for record in records for source in (record.image, record.mask)]
    return {os.path.realpath(source.path) for source in sources if isinstance(source, FileSource)}


def _page(found: Members, works: list[HeadWork], stages: Mapping[str, Any], output: Path) -> StoredEnsemble:
    run = next(iter(found.members[0].runs.values()))
    return StoredEnsemble(
        version=VERSION,
        data=run.provenance.get("data"),
        split_sha256=str(run.provenance.get("split_sha256")),
        inference=found.inference,
        members={member.name: _member(member, output) for member in found.members},
        heads={work.head.name: work.stored for work in works},
        settings=dict(stages),
        epochs_chosen_on_rows=bool(found.epochs_chosen_on_rows),
    )


def _member(member: Member, output: Path) -> StoredMember:
    """The folders relative to the ensemble's, so that both may be moved together."""
    facts = [run.provenance for run in member.runs.values()]
    return StoredMember(
        label=member.name,
        runs={
            fold: StoredRun(
                folder=Path(os.path.relpath(run.folder.resolve(), output.resolve())).as_posix(),
                sha256=sha256_of(best_checkpoint(run.folder)),
            )
            for fold, run in member.runs.items()
        },
        seconds=sum(float(one.get("wall_time_s") or 0) for one in facts),
        parameters=int(facts[0].get("num_parameters") or 0),
    )
