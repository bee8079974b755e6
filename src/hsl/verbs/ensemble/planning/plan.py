"""`hsl ensemble plan`: what the stages of an ensemble train next, how long it takes, and the scripts."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from numpy.typing import NDArray
from omegaconf import DictConfig

from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.ensembles.cascade import LONGEST
from hsl.ensembles.rows import Rows
from hsl.errors import ConfigError
from hsl.files.cells import csv_of
from hsl.files.io import read_bytes, write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.files.split_file import Split
from hsl.terminal import say
from hsl.verbs.ensemble.gathering import Members, gather_members, out_of_fold_rows
from hsl.verbs.ensemble.members import Member
from hsl.verbs.ensemble.planning.planned import STAGES, first_member, trained_for
from hsl.verbs.ensemble.planning.teachers import mask_teachers, write_targets
from hsl.verbs.ensemble.planning.training_rounds import Round, Series, boosting_series, cascade_series, referee_series
from hsl.verbs.run_scripts import write_scripts

DISTILLATION = "distillation"
TRAINED = (*STAGES, DISTILLATION)
TEACHERS = "teachers"


@dataclass(frozen=True)
class Job:
    """A run that is to be trained: what stands behind train.py, and how long it will take by the runs there are."""

    words: Sequence[str]
    seconds: float


def plan(cfg: DictConfig) -> None:
    """Print what is trained next, and write the tables of weights, the teachers' targets and the scripts.

    Cascade and boosting train one member after the other: plan again once it is trained. Runs that are finished are not
    planned again; their tables are made anew as they were.

    Raises:
        ConfigError: a stage is unknown or named twice, or an override is none of one new member.
        DataError: the runs are no members of one ensemble.
    """
    validate(cfg)
    _check(cfg)
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs]
    found = gather_members(patterns, list(cfg.ignore), cfg.name_key, None, cfg.inference_name, cfg.name)
    for sentence in found.left_out:
        say(f"! {sentence}")
    rows = _rows(cfg, found)
    planned = {one.name: one for one in found.members if trained_for(one.name)}
    trained = {*planned, *(one.name for one in found.students if one.plan == cfg.name)}
    base = [one for one in found.members if one.name not in planned]
    if not base:
        raise ConfigError(f"`runs` should match members beside those of the plan. Found only {', '.join(planned)}.")
    names = [one.name for one in base]
    first = "" if rows is None else first_member(rows, names)
    seconds = _seconds(base)
    with OutputFolder(cfg.output, "ensemble plan") as output:
        jobs: list[Job] = []
        all_series = {} if rows is None else _series(cfg, rows, base[0].split, names, first, trained)
        for stage, series in all_series.items():
            say(f"{stage}: {series.ended or f'{series.rounds[-1].name} is next'}")
            for each in series.rounds:
                if each.name in planned:
                    _check_trained(each, planned[each.name], first)
                _write_tables(each, output.work)
                if each.name not in trained:
                    jobs += [_job(cfg, output.path, each, fold, seconds[fold]) for fold in each.tables]
        if DISTILLATION in cfg.stages:
            masks = cfg.maps or rows is None
            _teach(cfg, output.work / TEACHERS, found, rows, base, masks)
            jobs += _students(cfg, base[0], trained, output.path, seconds, masks)
        if jobs:
            write_scripts(output.work, [job.words for job in jobs], "ensemble plan", "train")
    if not jobs:
        say("Nothing is left to train.")
    else:
        _print(jobs, first if {"cascade", "boosting"} & set(cfg.stages) else "", output.path)
    if planned:
        stages = ",".join(dict.fromkeys(("votes", *map(trained_for, planned))))
        say(shlex.join(["hsl", "ensemble", f"runs=[{','.join(patterns)}]", f"stages=[{stages}]"]))


def _rows(cfg: DictConfig, found: Members) -> Rows | None:
    """Out-of-fold rows; none of members with masks alone, which can do nothing but teach."""
    if found.kind == "image":
        return out_of_fold_rows(found, {name: name for name in found.folds})  # the audit alone asks for contents
    if set(cfg.stages) != {DISTILLATION}:
        raise ConfigError(
            f"`stages` should be [{DISTILLATION}] for members without an image head: the others are of pictures' "
            f"classes. Found `stages = {list(cfg.stages)}`. Set `stages=[{DISTILLATION}]`."
        )
    return None


def _series(
    cfg: DictConfig, rows: Rows, split: Split, base: Sequence[str], first: str, trained: Collection[str]
) -> dict[str, Series]:
    made = {}
    for stage in cfg.stages:
        if stage == "cascade":
            made[stage] = cascade_series(rows, split, first, trained, cfg.rounds.cascade)
        elif stage == "boosting":
            made[stage] = boosting_series(rows, split, first, trained, cfg.rounds.boosting)
        elif stage == "referee":
            made[stage] = referee_series(rows, split, base, trained)
    return made


def _job(cfg: DictConfig, folder: Path, each: Round, fold: int, seconds: float) -> Job:
    table = folder / _table(each.name, fold)
    words = [*cfg.overrides, "data/sampling=weighted", f"data.sampling.table={table}"]
    return Job([*words, f"name={cfg.name}/{each.name}", f"fold={fold}"], seconds)


def _students(
    cfg: DictConfig, first: Member, trained: Collection[str], folder: Path, seconds: Mapping[int, float], masks: bool
) -> list[Job]:
    """Each student and its control, of every fold; the loss of the labels is that of the first member."""
    own = [override for override in cfg.overrides if override.partition("=")[0] == "loss"]
    run = next(iter(first.runs.values()))
    labels = own[-1].partition("=")[2] if own else (run.provenance.get("choices") or {}).get("loss")
    heads = [] if masks else [f"loss.heads=[{run.image_head}]"]
    looks = [f"loss.attention={cfg.attention}"] if cfg.attention else []
    loss = ["loss=distillation", *([f"loss@loss.labels={labels}"] if labels else []), *heads]
    jobs = []
    for number, student in enumerate(map(shlex.split, cfg.students or [""]), start=1):
        own_keys = {"loss", *(word.partition("=")[0] for word in student)}  # the student's word is the last
        words = [override for override in cfg.overrides if override.partition("=")[0] not in own_keys]
        for kind, more in (("student", [f"data.teachers={folder / TEACHERS}", *looks]), ("control", ["loss.alpha=0"])):
            name = f"{kind}_{number}"
            if name not in trained:
                said = [*words, *student, *loss, *more, f"name={cfg.name}/{name}"]
                jobs += [Job([*said, f"fold={fold}"], time) for fold, time in seconds.items()]
    return jobs


def _teach(
    cfg: DictConfig, folder: Path, found: Members, rows: Rows | None, base: Sequence[Member], masks: bool
) -> None:
    """Write the teachers' targets; what they take of passes over the runs is made first."""
    if masks:
        _keep_maps(cfg, base)
    looks = _attention(cfg, base) if cfg.attention else None
    write_targets(folder, rows, found, [one.name for one in base], maps=masks, attention=looks)


def _keep_maps(cfg: DictConfig, base: Sequence[Member]) -> None:
    """The maps of the members that teach masks, by one pass over every run that did not keep them."""
    dense = mask_teachers(base)
    from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows  # this and `_attention` alone need torch

    settings = RowSettings(allowed_targets(cfg), cfg.data_root, cfg.cache_dir, cfg.inference_name)
    keep_rows([folder for one in dense for folder in one.folders], "val", settings)


def _attention(cfg: DictConfig, base: Sequence[Member]) -> dict[str, NDArray[np.float32]]:
    """Where the members look, by one pass over every run."""
    from hsl.verbs.ensemble.member_rows import RowSettings
    from hsl.verbs.ensemble.planning.attention import mean_attention

    settings = RowSettings(allowed=allowed_targets(cfg), data_root=cfg.data_root, cache_dir=cfg.cache_dir)
    return mean_attention(base, settings)


def _seconds(base: Sequence[Member]) -> dict[int, float]:
    """Fold -> the mean time that the members took there."""
    folds = sorted(base[0].runs)
    return {fold: fmean(float(one.runs[fold].provenance.get("wall_time_s", 0.0)) for one in base) for fold in folds}


def _table(name: str, fold: int) -> Path:
    return Path(name) / f"fold{fold}" / "weights.csv"  # a report takes `fold0` for the fold's own, see `foldless`


def _content(each: Round, fold: int) -> bytes:
    table = each.tables[fold]
    frame = pd.DataFrame({"id": list(table), **({"weight": list(table.values())} if each.weighed else {})})
    return csv_of(frame).encode()


def _write_tables(each: Round, folder: Path) -> None:
    for fold in each.tables:
        write_atomically(folder / _table(each.name, fold), _content(each, fold))


def _check_trained(each: Round, member: Member, first: str) -> None:
    """Refuse a series whose members were planned from others than these, where their tables still tell."""
    for fold, run in member.runs.items():
        sampling = (run.config.get("data") or {}).get("sampling") or {}
        table = Path(str(sampling.get("table")))
        if fold in each.tables and table.is_file() and read_bytes(table) != _content(each, fold):
            raise ConfigError(
                f"`runs` should be the members that `{run.folder}` was planned for. Found others, of which {first} is "
                f"the best: {each.name} was trained on other pictures. Leave the new ones out, or set another `name`."
            )


def _print(jobs: Sequence[Job], first: str, folder: Path) -> None:
    if first:
        say(f"The cascade and boosting begin with {first}.")
    for job in jobs:
        say(f"python train.py {shlex.join(job.words)}  # about {_time(job.seconds)}")
    total, longest = sum(job.seconds for job in jobs), max(job.seconds for job in jobs)
    say(f"{len(jobs)} runs, about {_time(total)} one after the other, {_time(longest)} side by side")
    say(f"bash {folder / 'train.sh'}\nsbatch {folder / 'array.sbatch'}")


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "1 min"


def _check(cfg: DictConfig) -> None:
    stages = list(cfg.stages)
    if not stages or len(set(stages)) < len(stages) or set(stages) - set(TRAINED):
        raise ConfigError(f"`stages` should name some of {', '.join(TRAINED)}, each once. Found `stages = {stages}`.")
    if cfg.rounds.cascade > LONGEST:
        raise ConfigError(f"`rounds.cascade` should be at most {LONGEST}. Found {cfg.rounds.cascade}. Set it lower.")
    if not cfg.overrides:
        raise ConfigError(
            "`overrides` should be what stands behind train.py for a new member. Found none. For example "
            'overrides=["experiment=leaf_classifier","data.root=pictures","encoder=mit_b0"].'
        )
    for override in OverridesParser.create().parse_overrides([*cfg.overrides, *_words(cfg.students)]):
        if override.is_sweep_override() or override.get_key_element() in ("fold", "name"):
            raise ConfigError(
                "`overrides` and `students` should give each key one value, and leave fold and name to the plan. "
                f"Found `{override.input_line}`. Take it out."
            )


def _words(students: Sequence[str]) -> list[str]:
    return [word for student in students for word in shlex.split(student)]
