"""`hsl ensemble`: the folds of several models combined, each stage scored nested, audited, held against one model."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from omegaconf import DictConfig, OmegaConf

from hsl.batch import IGNORE_INDEX
from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.data.datamodule import DataModule
from hsl.data.files.records import FileSource
from hsl.data.prepared import PreparedData
from hsl.ensembles.dense import ImageMaps
from hsl.ensembles.rows import Rows
from hsl.errors import ConfigError
from hsl.files.io import sha256_of
from hsl.files.output_folder import OutputFolder
from hsl.heads import Head
from hsl.run_folder.ensemble import VERSION, StoredEnsemble, StoredMember, StoredRun, write_ensemble
from hsl.run_folder.layout import best_checkpoint
from hsl.terminal import say
from hsl.verbs.ensemble.gathering import (
    Members,
    foreground_of,
    gather_members,
    out_of_fold_rows,
    probability_map,
    rows_of_test,
)
from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows, open_data, picture_seconds
from hsl.verbs.ensemble.members import Kind, Member
from hsl.verbs.ensemble.opened_files import OpenedFiles
from hsl.verbs.ensemble.planning.planned import check_trained, with_planned
from hsl.verbs.ensemble.showing.page import write_page
from hsl.verbs.ensemble.stages.combining import Isolation
from hsl.verbs.ensemble.stages.head_work import HeadSettings, HeadWork, work_on, work_on_dense
from hsl.verbs.ensemble.stages.variants import MEAN

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
    heads = chosen_heads(cfg)
    settings = RowSettings(allowed_targets(cfg), cfg.data_root, cfg.cache_dir, cfg.inference_name)
    gathered = [_gathered(cfg, kind) for kind in heads]
    for note in dict.fromkeys(note for found in gathered for note in found.notes):
        say(f"! {note}")
    folders = sorted({folder for found in gathered for member in found.members for folder in member.folders})
    with OutputFolder(cfg.output, "ensemble", inputs=folders, resume=True) as output:
        if settings.cache_dir is None:  # each run would read every file again, the test part's too
            settings = replace(settings, cache_dir=str(output.work / ".cache"))
        _, data = open_data(folders[0], settings)
        _ = data.prepared  # every file was read to know its content; from now on none of the test part is opened
        works = []
        with OpenedFiles() as opened:
            call = _Call(cfg, data, stages, settings, output, opened)
            for found in gathered:
                made = _image_head if found.kind == "image" else _dense_head
                works.append(made(found, call))
            works = [replace(work, tested=work.test()) for work in works]
        page = _page(gathered, works, works[0].settings.stages, output.path)  # image heads first: they have orders
        write_page(output.work, output.path, page, works, lambda name: data.original(name)[0])
        write_ensemble(output.work, page)
    say(output.path / "index.html")
    return output.path / "index.html"


def chosen_heads(cfg: DictConfig) -> list[Kind | None]:
    """The kinds of heads that are worked on; none: `gather_members` chooses one.

    Raises:
        ConfigError: there is no such kind.
    """
    known: tuple[Kind, ...] = get_args(Kind)
    if cfg.heads is None:
        return [None]
    wanted = [cfg.heads] if isinstance(cfg.heads, str) else list(cfg.heads)
    if not wanted or not set(wanted) <= set(known):
        raise ConfigError(f"`heads` should be some of {', '.join(known)}. Found `heads = {wanted}`. Choose among them.")
    return [kind for kind in known if kind in wanted]


def _gathered(cfg: DictConfig, kind: Kind | None) -> Members:
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs]
    ignore, stages = list(cfg.ignore), chosen_stages(cfg)
    return gather_members(patterns, ignore, cfg.name_key, kind, cfg.inference_name, stages=stages)


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


@dataclass(frozen=True, eq=False)
class _Call:
    """What every head of one call has in common."""

    cfg: DictConfig
    data: DataModule
    stages: Mapping[str, Any]
    settings: RowSettings
    output: OutputFolder
    opened: OpenedFiles


def _image_head(found: Members, call: _Call) -> HeadWork:
    run = next(iter(found.members[0].runs.values()))
    head = Head(run.image_head, "image", found.classes, found.several)
    contents = _contents(call.data.prepared)
    features = bool(set(FEATURE_STAGES) & set(call.stages))
    own = replace(call.settings, maps=False)
    folders = [folder for member in found.members for folder in member.folders]
    if features:
        keep_rows(folders, "val", own)
    rows = out_of_fold_rows(found, contents, features)

    def test_rows() -> Rows | None:
        if not found.test:
            return None
        if features:
            keep_rows(folders, "test", own)
        return rows_of_test(found, contents, features)

    isolation = _isolation(found, call, dict(zip(rows.ids, rows.groups, strict=True)))
    stages = with_planned(call.stages, rows)
    check_trained(stages)
    chosen = replace(_head_settings(call, call.cfg.image_metric), stages=stages)
    runs, place = dict(found.members[0].runs), head.name
    return work_on(head, rows, test_rows, runs, isolation, chosen, call.output.work / place, call.output.path / place)


def _dense_head(found: Members, call: _Call) -> HeadWork:
    if found.several:
        raise ConfigError(
            "`heads` should not hold dense for members whose classes overlap in a pixel: their maps have no ensemble. "
            "Found such members. Set `heads=[image]`."
        )
    prepared, contents = call.data.prepared, _contents(call.data.prepared)
    head = Head(prepared.head, "dense", found.classes)
    folders = [folder for member in found.members for folder in member.folders]
    keep_rows(folders, "val", call.settings)

    def maps_of(names: Iterable[str]) -> Iterator[ImageMaps]:
        for name in names:
            maps = np.stack([probability_map(found, member, name) for member in found.members])
            _, mask = call.data.original(name)
            if mask is None:
                mask = np.full(maps.shape[-2:], IGNORE_INDEX, np.uint8)
            fold = found.folds.get(name, -1)
            known = foreground_of(found, name, fold)
            eight_bit = np.rint(255 * maps).astype(np.uint8)
            yield ImageMaps(name, prepared.group(name), contents[name], fold, mask, eight_bit, known)

    def test_images() -> Iterator[ImageMaps]:
        keep_rows(folders, "test", call.settings)
        yield from maps_of(found.test)

    isolation = _isolation(found, call, {name: prepared.group(name) for name in found.folds})
    names = [member.name for member in found.members]
    arguments = (dict(found.members[0].runs), isolation, _head_settings(call, call.cfg.metric))
    places = (call.output.work / head.name, call.output.path / head.name)
    last = test_images if found.test else None
    return work_on_dense(head, names, lambda: maps_of(sorted(found.folds)), last, *arguments, *places)


def _head_settings(call: _Call, metric: str) -> HeadSettings:
    cfg = call.cfg
    return HeadSettings(call.stages, cfg.num_parts, metric, cfg.resamples, cfg.seed, cfg.calibration)


def _isolation(found: Members, call: _Call, groups: Mapping[str, str]) -> Isolation:
    return Isolation(
        groups=groups,
        contents=_contents(call.data.prepared),
        trained={member.name: member.trained for member in found.members},
        test_lists={member.name: member.split.test for member in found.members},
        opened=call.opened.paths,
        test_files=_files(call.data.prepared, found.test),
    )


def _contents(data: PreparedData) -> dict[str, str]:
    return dict(zip(data.scan.ids, data.scan.content, strict=True))


def _files(data: PreparedData, ids: Collection[str]) -> set[str]:
    """The files of some pictures and of their masks, as far as they are files."""
    records = [data.catalogue.records[data.places[name]] for name in ids]
    sources = [source for record in records for source in (record.image, record.mask)]
    return {os.path.realpath(source.path) for source in sources if isinstance(source, FileSource)}


def _page(
    gathered: Sequence[Members], works: Sequence[HeadWork], stages: Mapping[str, Any], output: Path
) -> StoredEnsemble:
    run = next(iter(gathered[0].members[0].runs.values()))
    members = {member.name: member for found in gathered for member in found.members}
    return StoredEnsemble(
        version=VERSION,
        data=run.provenance.get("data"),
        split_sha256=str(run.provenance.get("split_sha256")),
        inference=gathered[0].inference,
        members={name: _member(member, output) for name, member in sorted(members.items())},
        heads={work.head.name: work.stored for work in works},
        settings=dict(stages),
        epochs_chosen_on_rows=any(found.epochs_chosen_on_rows for found in gathered),
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
        picture_seconds=picture_seconds(member.folders),
    )
