"""`hsl label`: masks for the training pictures from the class of each picture."""

import contextlib
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from hsl.config.targets import allowed_targets
from hsl.console import PlainConsole
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import FileSource, Record
from hsl.data.labels.image_labels import HEAD
from hsl.data.labels.label_table import TIERS
from hsl.data.prepared import PreparedData
from hsl.data.splits.grouping import name_some
from hsl.errors import DataError
from hsl.pseudo_labels.grabcut import UnseededError, grabcut_each, grabcut_votes
from hsl.pseudo_labels.networks import cam_votes, load_sam, sam_votes
from hsl.pseudo_labels.quality import Judgement, fuse_votes
from hsl.pseudo_labels.store import LabelFolder, check_labels_free
from hsl.verbs.label.classifiers import Classifier, activations, open_classifiers
from hsl.verbs.label.label_audit import tier_counts, write_label_audit
from hsl.verbs.label.settings import check_settings, class_channels, present_sources


def label(cfg: DictConfig) -> None:
    """Label the training part of one fold and write the folder of pseudo-labels; see docs/labels.md.

    Raises:
        ConfigError: a setting breaks a rule, a classifier saw other pictures, or the output is taken.
        DataError: the data do not pass the audit, or GrabCut is asked alone and cannot seed a picture.
    """
    weights = present_sources(cfg)
    check_settings(cfg)
    check_labels_free(Path(cfg.output), cfg.overwrite)
    data: PreparedData = instantiate(cfg.data).prepared
    data.audit.raise_if_stopped()
    labels = _labels(data)
    plan = _Plan.of(cfg, data, weights)
    folder = LabelFolder(Path(cfg.output), plan.settings(cfg, labels), overwrite=cfg.overwrite)
    try:
        plan.fill(folder, labels)
        write_label_audit(folder, data)
        folder.finish()
    finally:
        folder.close()
    _print(folder, set(weights), len(data.parts["train"]) - len(labels))


@dataclass(frozen=True, eq=False)
class _Plan:
    """Everything that labels, built and checked before the first picture is."""

    data: PreparedData
    weights: Mapping[str, float]
    judgement: Judgement
    uncertain_below: float
    channels: Mapping[str, int]
    seeds: Any
    classifiers: Sequence[Classifier]
    sam: Any
    workers: int

    @classmethod
    def of(cls, cfg: DictConfig, data: PreparedData, weights: Mapping[str, float]) -> "_Plan":
        names = data.image_classes[HEAD]
        rules = {label: text for label, text in (cfg.rules or {}).items() if text is not None}
        classes, seeds = data.catalogue.classes, None
        if "grabcut" in weights:
            seeds = instantiate(cfg.seeds, _convert_="all")
            with contextlib.suppress(UnseededError):  # a picture of one pixel: names of no class are refused now
                grabcut_votes(np.zeros((1, 1, 3), np.uint8), seeds, classes)
        return cls(
            data=data,
            weights=weights,
            judgement=Judgement.of(rules, cfg.tiers, classes, names),
            uncertain_below=cfg.uncertain_below,
            channels=class_channels(cfg.channels or {}, data) if "gradcam" in weights else {},
            seeds=seeds,
            sam=load_sam(cfg.sam) if "sam" in weights else None,
            classifiers=open_classifiers(cfg.classifiers, data, allowed_targets(cfg)) if "gradcam" in weights else (),
            workers=len(os.sched_getaffinity(0)) if cfg.workers == "auto" else cfg.workers,
        )

    def settings(self, cfg: DictConfig, labels: Mapping[str, int]) -> dict[str, Any]:
        """What `labels.json` says; with any of it changed, labels are made anew."""
        split, names = self.data.fold_assignment, self.data.image_classes[HEAD]
        said = json.dumps(sorted((name, names[place]) for name, place in labels.items()))
        return {
            "data": self.data.catalogue.name,
            "classes": list(self.data.catalogue.classes),
            "split_sha256": split.sha256,
            "fold": self.data.fold,
            "round": 0,
            "sources": dict(self.weights),
            "uncertain_below": self.uncertain_below,
            "tiers": dict(self.judgement.tiers),
            "rules": {label: text for label, text in (cfg.rules or {}).items() if text is not None},
            "classifiers": [{"run": str(one.run), "sha256": one.sha256} for one in self.classifiers],
            "parameters": {
                "image_classes": list(names),
                "image_labels_sha256": hashlib.sha256(said.encode()).hexdigest(),
                "channels": {label: self.data.catalogue.classes[c] for label, c in self.channels.items()},
                "seeds": OmegaConf.to_container(cfg.seeds, resolve=True) if "grabcut" in self.weights else None,
                "sam": cfg.sam if "sam" in self.weights else None,
            },
        }

    def fill(self, folder: LabelFolder, labels: Mapping[str, int]) -> None:
        """Label the pictures that have no label yet.

        Raises:
            DataError: a picture cannot be read, or no source has a say in it; nothing is left of the labels then.
        """
        todo = {name: place for name, place in labels.items() if name not in folder.rows}
        records, console = self._records(todo), PlainConsole(stderr=True)
        shown = track(
            zip(records, self._grabcut(records), self._cams(records, todo), strict=True), "labelling", len(records),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        without = []
        for record, colours, cam in shown:
            if colours is None and cam is None:
                without.append(record.id)
            elif not without:
                self._add(folder, record, self.data.image_classes[HEAD][labels[record.id]], colours, cam)
        if without:
            folder.discard()
            raise DataError(
                "GrabCut should find seeds in every picture where there is no classifier. It finds none in "
                f"{len(without)}: {name_some(without)}. Widen the colours of `seeds`, or give `classifiers`."
            )

    def _add(self, folder: LabelFolder, record: Record, name: str, colours: Any, cam: Any) -> None:
        classes, votes = self.data.catalogue.classes, {}
        if colours is not None:
            votes["grabcut"] = colours
        if cam is not None:
            votes["gradcam"] = cam_votes(cam, self.channels[name], len(classes))
        if self.sam is not None:
            together = sum(self.weights[source] * one for source, one in votes.items())
            votes["sam"] = sam_votes(self.sam, self._image(record), np.asarray(together, np.float32))
        mask, confidence = fuse_votes(votes, self.weights, self.uncertain_below)
        place = self._place(folder, record)
        folder.add(self.judgement.row(record.id, name, mask, list(votes), place), mask, confidence)

    def _place(self, folder: LabelFolder, record: Record) -> str:
        """Where the review finds the picture: its file; a copy where it is none, or none of 8 bits."""
        if isinstance(record.image, FileSource) and self.data.catalogue.value_range is None:
            return str(record.image.path.resolve())
        return str(folder.keep_image(record.id, self._image(record)))

    def _grabcut(self, records: Sequence[Record]) -> Iterator[Any]:
        if self.seeds is None:
            return itertools.repeat(None, len(records))
        catalogue = self.data.catalogue
        return grabcut_each(records, self.seeds, catalogue.classes, Decoding.of(catalogue), self.workers)

    def _cams(self, records: Sequence[Record], labels: Mapping[str, int]) -> Iterator[Any]:
        if not self.classifiers:
            return itertools.repeat(None, len(records))
        places = torch.tensor([labels[record.id] for record in records])
        return activations(self.classifiers, records, places, Decoding.of(self.data.catalogue))

    def _records(self, labels: Mapping[str, int]) -> list[Record]:
        return [record for record in self.data.catalogue.records if record.id in labels]

    def _image(self, record: Record) -> NDArray[Any]:
        return Decoding.of(self.data.catalogue).image(record.image)


def _labels(data: PreparedData) -> dict[str, int]:
    """Image class of the training pictures of which it is known; no other picture is ever labelled."""
    if data.image_labels is None:
        raise RuntimeError("the data have no image labels")
    training = set(data.parts["train"])
    places = zip(data.catalogue.records, data.image_labels.values.tolist(), strict=True)
    known = {record.id: place for record, place in places if record.id in training and place >= 0}
    if not known:
        raise DataError(
            f"A training picture of `{data.catalogue.name}` should have a class in the column `data.image_labels`. "
            "Found none. Complete labels.csv."
        )
    return known


def _print(folder: LabelFolder, weights: set[str], num_unknown: int) -> None:
    rows, console = list(folder.rows.values()), PlainConsole()
    counts = tier_counts(rows)
    table = Table("class", *(f"tier {tier}" for tier in TIERS), "pictures")
    for name, tiers in [*counts.items(), ("all", Counter(row.tier for row in rows))]:
        table.add_row(escape(name), *(str(tiers[tier]) for tier in TIERS), str(tiers.total()))
    console.print(table)
    console.print(f"sources: {', '.join(sorted(weights))}")
    unseeded_ids = [row.id for row in rows if "grabcut" in weights and "grabcut" not in row.sources.split()]
    if unseeded_ids:
        console.print(
            f"GrabCut found no seeds in {len(unseeded_ids)} pictures, which the other sources labelled: "
            f"{name_some(unseeded_ids)}"
        )
    if num_unknown:
        console.print(f"{num_unknown} training pictures have no class and therefore no label")
    console.print(str(folder.path), soft_wrap=True)
