"""`hsl gate`: thresholds and reference of a gate, set on held-out pictures, and how it judges those of other folds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.progress import track

from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.console import PlainConsole
from hsl.errors import ConfigError, DataError
from hsl.exporting.gate import Calibration, Gate, GateModel
from hsl.exporting.gate_fit import (
    ALL,
    FeatureSettings,
    FittedFeatures,
    GateRows,
    HeldOut,
    class_thresholds,
    fit_features,
    judge_held_out,
)
from hsl.exporting.gate_rules import Distance, SegmentationRule
from hsl.exporting.generic_encoder import FrozenEncoder
from hsl.files.cells import csv_of
from hsl.files.io import sha256_of, write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.run_folder.layout import best_checkpoint
from hsl.run_folder.run import Run
from hsl.terminal import say
from hsl.verbs.ensemble.gathering import Members, gather_members
from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows, open_data
from hsl.verbs.ensemble.members import Member
from hsl.verbs.gate.foreign import judge_foreign
from hsl.verbs.gate.out_of_fold import Voters, gate_rows, miou_of
from hsl.verbs.gate.page import Shown, write_gate_page
from hsl.verbs.opening.opening import open_run
from hsl.verbs.profile.profile import MIB, measure

VOTES = (1, 3)
AREA = 512**2
"""Pixels of the picture that `min_component` is given for."""
RANGES: Mapping[str, tuple[float, float]] = {
    "min_miou": (0, 1), "percentile": (0, 50), "default_threshold": (0, 1), "min_component": (0, AREA),
    "min_signal_confidence": (0, 1), "coverage": (0.5, 0.9999), "k": (1, math.inf), "nearest": (0, 100),
}  # fmt: skip


def gate(cfg: DictConfig) -> Path:
    """Calibrate a gate on the out-of-fold predictions of the runs that match ``cfg.runs``.

    Returns:
        The page.

    Raises:
        ConfigError: a setting is out of range, or the encoder has no weights here.
        DataError: the runs are no whole models, none is good enough, or there are too few groups.
    """
    validate(cfg)
    _check(cfg)
    encoder = _encoder(cfg)
    found = _gathered(cfg)
    _check_signals(cfg, found.classes[1:])
    candidates = [_candidate(member, cfg) for member in found.members]
    chosen, why = choose(candidates, list(cfg.tiers), cfg.min_miou, cfg.vote)
    say(why)
    members = [found.members[i] for i in chosen]
    settings = RowSettings(allowed_targets(cfg), cfg.data_root, cfg.cache_dir, cfg.inference_name)
    folders = [folder for member in members for folder in member.folders]
    keep_rows(folders, "val", settings)
    voters = Voters(found, members, open_data(folders[0], settings)[1].prepared)
    rule = _rule(cfg, voters)
    rows = gate_rows(voters, rule, encoder, _told)
    judged, made = _calibrated(cfg, rows, rule, voters, encoder, [candidates[i] for i in chosen], why)
    with OutputFolder(cfg.output, "gate", inputs=folders) as output:
        made.write(output.work)
        encoder.save(output.work)
        write_atomically(output.work / "held_out.csv", csv_of(_table(rows, judged)).encode())
        foreign = judge_foreign(cfg, members, made, encoder)
        write_gate_page(output.work, made, Shown(rows, judged, voters, foreign, cfg.nearest))
    say(output.path / "index.html")
    return output.path / "index.html"


def choose(candidates: Sequence[GateModel], tiers: Sequence[str], least: float, vote: int = 1) -> tuple[list[int], str]:
    """Which models gate, and why, in a sentence.

    One: the best of the lightest memory tier that has one with a mean IoU of at least ``least``. Several: the best,
    whatever their memory.

    Raises:
        DataError: none is good enough, or there are too few to vote.

    Example:
        >>> light, heavy = (GateModel(n, t, 1.0, m, {}) for n, t, m in (("a", "light", 0.6), ("b", "heavy", 0.8)))
        >>> choose([light, heavy], ["light", "heavy"], 0.65)[0], choose([light, heavy], ["light", "heavy"], 0.5)[0]
        ([1], [0])
    """
    order = sorted(range(len(candidates)), key=lambda i: -candidates[i].miou)
    good = [i for i in order if candidates[i].miou >= least]
    if len(good) < vote:
        named = ", ".join(f"{candidates[i].name} {candidates[i].miou:.3f}" for i in order)
        raise DataError(
            f"`runs` should match {vote} {'model' if vote == 1 else 'models'} with a mean IoU of at least {least:g} "
            f"out of fold. Found {named}. Train better ones{', or more' if vote > 1 else ''}, or lower `min_miou`."
        )
    if vote > 1:
        voters = good[:vote]
        return voters, f"The {vote} best models vote by their mean: {_named([candidates[i] for i in voters])}."
    first = min(good, key=lambda i: (tiers.index(str(candidates[i].tier)), -candidates[i].miou))
    tier, lighter = str(candidates[first].tier), tiers[: tiers.index(str(candidates[first].tier))]
    poor = [one for one in candidates if one.tier in lighter]
    passed = f" Lighter ones do not reach {least:g}: {_named(poor)}." if poor else ""
    others = "" if len(candidates) > 1 else " It is the only model."
    return [first], (
        f"{_named([candidates[first]])} gates: the best of the lightest tier ({tier}) with a mean IoU of at least "
        f"{least:g} out of fold.{passed}{others}"
    )


def _named(models: Sequence[GateModel]) -> str:
    return ", ".join(f"{one.name} ({one.miou:.3f})" for one in models)


def _check(cfg: DictConfig) -> None:
    wrong = [
        f"`{key}` should be in [{low:g}, {high:g}]. Found `{key} = {cfg[key]}`."
        for key, (low, high) in RANGES.items()
        if isinstance(cfg[key], bool) or not isinstance(cfg[key], int | float) or not low <= cfg[key] <= high
    ]
    choices: Mapping[str, Sequence[Any]] = {"vote": VOTES, "distance": get_args(Distance)}
    wrong += [
        f"`{key}` should be one of {', '.join(map(str, known))}. Found `{key} = {cfg[key]}`."
        for key, known in choices.items()
        if cfg[key] not in known
    ]
    kinds = [Path(folder).name for folder in cfg.foreign]
    if len(set(kinds)) < len(kinds):
        wrong.append(f"`foreign` should be folders of unlike names, which are the kinds. Found {', '.join(kinds)}.")
    if cfg.percentile == 0:
        wrong.append("`percentile` should be above 0. Found `percentile = 0`.")
    if wrong:
        raise ConfigError(" ".join(wrong))


def _check_signals(cfg: DictConfig, classes: Sequence[str]) -> None:
    if strange := [str(name) for name in cfg.signals if name not in classes]:
        raise ConfigError(
            f"`signals` should name dense classes, some of {', '.join(classes)}. Found {', '.join(strange)}. Choose "
            "among them."
        )


def _encoder(cfg: DictConfig) -> FrozenEncoder:
    side = cfg.data.image_size
    sides = (side, side) if isinstance(side, int) else tuple(side)
    return FrozenEncoder.freeze(instantiate(cfg.encoder, image_size=list(sides)), *sides)


def _gathered(cfg: DictConfig) -> Members:
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs]
    found = gather_members(patterns, list(cfg.ignore), cfg.name_key, "dense", cfg.inference_name, alone=True)
    for note in found.notes:
        say(f"! {note}")
    return found


def _candidate(member: Member, cfg: DictConfig) -> GateModel:
    """A member with its memory, measured as `hsl profile` does, in a training step with the trial decoder."""
    run: Run = member.runs[min(member.runs)]
    trial = cfg.copy()
    OmegaConf.set_struct(trial, False)
    trial.encoder = open_run(str(run.folder), allowed_targets(cfg))[1].encoder
    trial.encoder.image_size = cfg.data.image_size
    say(f"measuring the memory of {member.name}")
    entry = measure(trial)
    hashes = {str(fold): sha256_of(best_checkpoint(run.folder)) for fold, run in sorted(member.runs.items())}
    mib = round(entry["bytes_per_picture"] / MIB, 1)
    return GateModel(member.name, entry["tier"], mib, miou_of(member, cfg.inference_name), hashes)


def _rule(cfg: DictConfig, voters: Voters) -> SegmentationRule:
    """Without thresholds, which the rows set."""
    signals = tuple(map(str, cfg.signals))
    return SegmentationRule(
        voters.head, tuple(voters.found.classes), voters.channels, voters.run.image_head or None, {},
        float(cfg.default_threshold), cfg.min_component / AREA, signals, float(cfg.min_signal_confidence),
    )  # fmt: skip


def _calibrated(
    cfg: DictConfig, rows: GateRows, rule: SegmentationRule, voters: Voters, encoder: FrozenEncoder,
    models: Sequence[GateModel], why: str,
) -> tuple[HeldOut, Gate]:  # fmt: skip
    settings = FeatureSettings(cfg.distance, int(cfg.k), float(cfg.coverage), int(cfg.seed))
    try:
        judged = judge_held_out(rows, rule, float(cfg.percentile), settings)
        fitted = fit_features(rows.features, rows.groups, settings)
    except ValueError as error:
        raise DataError(f"The gate cannot be calibrated. {error} Lower `coverage` or `k`, or gather more.") from error
    thresholds = class_thresholds(rows, float(cfg.percentile))
    rule = replace(rule, thresholds=thresholds)
    facts = _calibration(cfg, rows, fitted, voters)
    return judged, Gate(tuple(models), why, rule, fitted.rule, encoder.facts, facts, fitted.arrays)


def _calibration(cfg: DictConfig, rows: GateRows, fitted: FittedFeatures, voters: Voters) -> Calibration:
    groups, reference = np.array(rows.groups), fitted.reference
    names = sorted({name for labels in rows.labels for name in labels})
    return Calibration(
        data=voters.data.catalogue.name,
        percentile=float(cfg.percentile),
        reference_pictures=int(reference.sum()),
        reference_groups=len(set(groups[reference])),
        calibration_pictures=int((~reference).sum()),
        calibration_groups=len(set(groups[~reference])),
        pictures={name: sum(name in labels for labels in rows.labels) for name in names or [ALL]},
    )


def _table(rows: GateRows, judged: HeldOut) -> pd.DataFrame:
    """How every picture was judged by what the other folds set."""
    return pd.DataFrame(
        {
            "id": rows.ids, "group": rows.groups, "class": ["|".join(names) for names in rows.labels],
            "fold": rows.folds, "accepted": judged.accepted, "segmentation": judged.segmentation,
            "features": judged.feature, **rows.scores, "threshold": judged.limits, "distance": judged.distances,
            "largest_distance": judged.thresholds,
        }
    )  # fmt: skip


def _told(ids: Sequence[str]) -> Iterator[str]:
    console = PlainConsole(stderr=True)
    return iter(track(ids, "gate", console=console, transient=True, disable=not console.is_terminal))
