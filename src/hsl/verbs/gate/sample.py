"""`hsl gate sample`: pictures for a gold set, drawn by class and group, with draft masks that a person looks at."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.data.files.records import FileSource
from hsl.data.labels.label_table import PAGE, read_labels_page
from hsl.errors import ConfigError
from hsl.exporting.gate_fit import ALL
from hsl.pseudo_labels.quality import Judgement
from hsl.pseudo_labels.store import LabelFolder
from hsl.terminal import say
from hsl.verbs.ensemble.gathering import gather_members
from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows, open_data
from hsl.verbs.gate.out_of_fold import Voters, mask_of, miou_of
from hsl.verbs.label.review import review

THIRDS = ("little foreground", "some foreground", "much foreground")


def sample(cfg: DictConfig) -> None:
    """Draw the set, or take up the one that lies in ``cfg.output``, and serve its review.

    Raises:
        ConfigError: a number is out of range, or the folder holds a set that other settings drew.
        DataError: the runs are no whole model.
    """
    validate(cfg)
    for key, least in (("per_class", 1), ("more", 0)):
        if isinstance(cfg[key], bool) or not isinstance(cfg[key], int) or cfg[key] < least:
            raise ConfigError(f"`{key}` should be a whole number of at least {least}. Found `{key} = {cfg[key]}`.")
    voters = _voters(cfg)
    settings = _settings(cfg, voters)
    if (Path(cfg.output) / PAGE).is_file():
        _check_same(Path(cfg.output), settings)
    else:
        _write(cfg, voters, settings)
    if cfg.review:
        keys = ("seed", "thresholds", "max_c_share", "host", "port", "open_browser")
        named = {"labels": str(cfg.output), "per_class_and_tier": cfg.per_class + cfg.more}
        review(OmegaConf.create({key: cfg[key] for key in keys} | named))


def draw(
    classes: Mapping[str, str], groups: Mapping[str, str], foreground: Mapping[str, float], per_class: int, more: int,
    seed: int,
) -> list[str]:  # fmt: skip
    """Ids of the sample, sorted.

    Of each class the pictures come in the order of a lottery, a second one of a group only when every group of the
    class has had its turn. The third of the classes (at least one) with the lowest median share of foreground gives
    ``more``.

    Args:
        classes: id to class.
        groups: id to group.
        foreground: id to the predicted share.
        per_class: pictures of a class at most.
        more: further ones of the classes that show least.
        seed: of the lottery, which is a hash: a picture more in the data changes little.
    """
    names = sorted(set(classes.values()))
    own = {name: [one for one, of in classes.items() if of == name] for name in names}
    by_share = sorted(names, key=lambda name: (float(np.median([foreground[one] for one in own[name]])), name))
    rare = set(by_share[: math.ceil(len(names) / 3)])
    chosen: list[str] = []
    for name in names:
        seen: Counter[str] = Counter()
        turns = []
        for one in sorted(own[name], key=lambda one: _lot(one, seed)):
            turns.append((seen[groups[one]], _lot(one, seed), one))
            seen[groups[one]] += 1
        chosen += [one for _, _, one in sorted(turns)[: per_class + more * (name in rare)]]
    return sorted(chosen)


def _lot(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _voters(cfg: DictConfig) -> Voters:
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs]
    found = gather_members(patterns, list(cfg.ignore), cfg.name_key, "dense", cfg.inference_name, alone=True)
    best = max(found.members, key=lambda member: miou_of(member, cfg.inference_name))
    settings = RowSettings(allowed_targets(cfg), cfg.data_root, cfg.cache_dir, cfg.inference_name)
    keep_rows(best.folders, "val", settings)
    return Voters(found, [best], open_data(best.folders[0], settings)[1].prepared)


def _settings(cfg: DictConfig, voters: Voters) -> dict[str, Any]:
    """What ``labels.json`` says; the fold is none, so that no training takes drafts for labels."""
    return {
        "data": voters.data.catalogue.name,
        "classes": list(voters.found.classes),
        "split_sha256": voters.data.fold_assignment.sha256,
        "fold": None,
        "model": voters.members[0].name,
        "parameters": {"per_class": cfg.per_class, "more": cfg.more, "seed": cfg.seed},
    }


def _check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    page = read_labels_page(folder)
    unlike = [key for key, value in json.loads(json.dumps(settings)).items() if page.get(key) != value]
    if unlike:
        raise ConfigError(
            f"`output` should be a new folder, or one with the same sample. Found `{folder}`, of which "
            f"{', '.join(unlike)} differ. Choose another, or the former settings."
        )


def _write(cfg: DictConfig, voters: Voters, settings: Mapping[str, Any]) -> None:
    ids = sorted(voters.found.folds)
    masks = {name: mask_of(voters, name) for name in ids}
    foreground = {name: float((mask != 0).mean()) for name, mask in masks.items()}
    classes = _classes(voters, ids, foreground)
    groups = {name: voters.data.group(name) for name in classes}
    chosen = draw(classes, groups, foreground, cfg.per_class, cfg.more, cfg.seed)
    judgement = Judgement.of({}, {"A": 0.0, "B": 0.0}, settings["classes"], sorted(set(classes.values())))
    folder = LabelFolder(Path(cfg.output), settings)
    try:
        for name in chosen:
            confidence = np.max([plane.max(axis=0) for plane in voters.planes(name)], axis=0)
            row = judgement.row(name, classes[name], masks[name], ["model"], _place(folder, voters, name))
            folder.add(row, masks[name], confidence)
        folder.finish()
    finally:
        folder.close()
    counts = Counter(classes[name] for name in chosen)
    told = ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
    say(f"{len(chosen)} pictures of {len({groups[name] for name in chosen})} groups: {told}. {cfg.output}")


def _classes(voters: Voters, ids: Sequence[str], foreground: Mapping[str, float]) -> dict[str, str]:
    """The image class of each picture, several joined; without labels its third by the share of foreground."""
    labels = dict(zip(ids, voters.labels(ids), strict=True))
    if all(names == [ALL] for names in labels.values()):
        ends = np.quantile([*foreground.values()], [1 / 3, 2 / 3])
        return {name: THIRDS[int(np.searchsorted(ends, share))] for name, share in foreground.items()}
    return {name: " + ".join(names) for name, names in labels.items() if names}


def _place(folder: LabelFolder, voters: Voters, name: str) -> str:
    """Where the review finds the picture: its file; a copy where it is none, or none of 8 bits."""
    record = voters.data.catalogue.records[voters.data.places[name]]
    if isinstance(record.image, FileSource) and voters.data.catalogue.value_range is None:
        return str(record.image.path.resolve())
    return str(folder.keep_image(name, next(voters.images([name]))))
