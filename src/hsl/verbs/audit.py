"""`hsl audit`: a data set and its split, checked without training, and without torch; the parts compared by class."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig

from hsl.config.validation import validate
from hsl.data.arguments import Loading, PictureForm
from hsl.data.audit.audit_views import print_table, write_contact_sheets
from hsl.data.audit.twins import find_twins
from hsl.data.audit.unusual import unusual_pictures
from hsl.data.importing.found_groups import FoundGroups, find_groups, labels_rows
from hsl.data.labels.image_labels import HEAD
from hsl.data.prepared import DataSource, PreparedData
from hsl.errors import ConfigError
from hsl.files.cells import csv_text
from hsl.files.io import write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.reports.statistics.part_tests import PartCounts, compare_parts
from hsl.reports.tables.comparison_tables import parts_table, told
from hsl.reports.tables.score_tables import write_table
from hsl.run_folder.layout import AUDIT
from hsl.run_folder.provenance import PartTests, write_audit, write_parts
from hsl.terminal import say

_SOURCE = inspect.signature(DataSource).parameters
_SETTINGS = [
    each for part in (DataSource, PictureForm, Loading) for each in inspect.signature(part).parameters.values()
]


def audit(cfg: DictConfig) -> None:
    """Check a data set and its split without training; stops with exit code 2 on a finding that would stop a run.

    With ``ensemble`` what is checked is a finished ensemble, see `hsl.verbs.ensemble.ensemble_audit`.
    """
    validate(cfg)
    if cfg.groups not in (None, "found"):
        raise ConfigError(f"`groups` should be null or found. Found `groups = {cfg.groups}`. To split by a column set "
                          f"`data.split.groups={cfg.groups}`.")  # fmt: skip
    if cfg.ensemble is not None:
        from hsl.verbs.ensemble.ensemble_audit import audit_ensemble  # the audit of data needs none of it

        audit_ensemble(cfg)
        return
    source: DataSource = instantiate(cfg.data)
    with OutputFolder(cfg.output, "audit", inputs=[cfg.data.root]) as output:
        data = source.read()
        findings = data.audit
        write_audit(output.work, findings.to_json())
        write_contact_sheets(findings, data.catalogue, output.work)
        parts = part_tests(data)
        write_parts(output.work, parts)
        write_table(parts_table([parts]), output.work)
        _write_page(output.work, data, parts, source.cache_folder)
        if cfg.groups is not None:
            groups = find_groups(data.catalogue, data.scan, findings.threshold, source.cache_folder)
            write_atomically(output.work / "labels.csv", csv_text(*labels_rows(data.catalogue, groups)))
    print_table(findings)
    for sentence in told(parts):
        say(sentence)
    if cfg.groups is not None:
        _tell_of_groups(groups, output.path, str(cfg.data.root))
    say(f"{output.path / AUDIT}, and as a page {output.path / 'index.html'}")
    findings.raise_if_stopped()


def _write_page(folder: Path, data: PreparedData, parts: PartTests, cache_dir: Path | None) -> None:
    from hsl.reports.page.audit_page import (  # brings matplotlib: not before the data are read
        PAIRS,
        Audited,
        write_audit_page,
    )

    threshold = None if data.audit.near_duplicates == "off" else data.audit.threshold
    twins = find_twins(data.catalogue, data.scan, threshold, cache_dir, PAIRS)
    unusual = unusual_pictures(data.catalogue, data.scan)
    write_audit_page(folder / "index.html", Audited(data.audit, data.catalogue, parts, twins, unusual))


def _tell_of_groups(groups: FoundGroups, folder: Path, root: str) -> None:
    shared = groups.shared
    say(f"{sum(shared.values())} of {len(groups.group)} pictures belong to {len(shared)} groups of two or more.")
    for name, number in groups.not_taken.items():
        say(f"The name `{name}` is shared by {number} pictures, too many to be of one thing: it joins none.")
    say(f"{folder / 'labels.csv'} holds them, with the reason of each. Look at it; put it in the place of "
        f"`{root}/labels.csv`, whose columns it keeps.")  # fmt: skip


def data_source(**settings: Any) -> DataSource:
    """What ``data`` is here: the settings of a data option that choose pictures, split and labels."""
    return DataSource(**{name: settings[name] for name in _SOURCE if name in settings})


def unbuilt(**settings: Any) -> None:
    """What ``augmentation`` and ``encoder`` are here: named as for a run, but not needed."""


# a wrong key or type in a config is then found before anything is read, as in a run
data_source.__signature__ = inspect.Signature(_SETTINGS)  # type: ignore[attr-defined]
data_source.__annotations__ = {each.name: each.annotation for each in _SETTINGS}


def part_tests(data: PreparedData) -> PartTests:
    """Compare the parts of an inspected data set in the classes of its masks and of its image labels.

    The unit is the group that the split keeps whole; a picture where it keeps none. With pseudo-labels the training
    part is what is trained on.
    """
    unit = "groups" if data.fold_assignment.groups else "pictures"
    groups = {part: _groups(data, ids) for part, ids in data.parts.items() if ids}
    tests = []
    masks = {part: _of_masks(data, part, index) for part, index in groups.items()}
    if any(each.known.any() for each in masks.values()):
        tests += compare_parts(data.head, data.classes[data.head], masks, unit)
    if data.image_labels is not None:
        labels = {part: _of_labels(data, part, index) for part, index in groups.items()}
        one_class = not data.image_labels.several
        tests += compare_parts(HEAD, data.image_labels.classes, labels, unit, one_class=one_class)
    return PartTests(data=data.catalogue.name, fold=data.fold, unit=unit, tests=tests)


def _groups(data: PreparedData, ids: Sequence[str]) -> NDArray[np.int64]:
    """Number of the group of each picture."""
    attributes = {record.id: record.attributes for record in data.catalogue.records}
    values = [attributes[name].get(data.fold_assignment.groups or "", name) for name in ids]
    return np.unique(values, return_inverse=True)[1]


def _of_masks(data: PreparedData, part: str, index: NDArray[np.int64]) -> PartCounts:
    counts = data.heads.count(data.scan.class_counts[data.scan.rows(data.parts[part])])[data.head]
    pixels = _summed(counts, index)
    known = np.broadcast_to(pixels.sum(1, keepdims=True) > 0, pixels.shape)
    return PartCounts(pixels, pixels > 0, known)


def _of_labels(data: PreparedData, part: str, index: NDArray[np.int64]) -> PartCounts:
    place = {record.id: i for i, record in enumerate(data.catalogue.records)}
    chosen = [place[name] for name in data.parts[part]]
    labels: Any = data.image_labels
    return PartCounts(None, _summed(labels.shown()[chosen], index) > 0, _summed(labels.known()[chosen], index) > 0)


def _summed(counts: NDArray[Any], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Over the pictures of each group."""
    total = np.zeros((int(index.max()) + 1, counts.shape[1]), np.int64)
    np.add.at(total, index, counts)
    return total
