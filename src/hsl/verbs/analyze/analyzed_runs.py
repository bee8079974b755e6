"""The runs and pictures of an analysis: checked to go together, then one run after the other looked into."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Catalogue, Record
from hsl.data.labels.image_labels import HEAD
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError, DataError
from hsl.files.split_file import read_split
from hsl.metrics.images.image_scores import one_hot_labels
from hsl.reports.analysis.drawings import Picture, thumbnail
from hsl.run_folder.layout import BEST, CHECKPOINTS, METRICS, SPLITS
from hsl.run_folder.provenance import read_provenance
from hsl.verbs.opening.opening import building_from, open_run, place_data
from hsl.verbs.scoring.results import check_same_split

PARTS = ("train", "val")


def open_runs(paths: Sequence[str], allowed: Collection[str]) -> list["OpenedRun"]:
    """Read what the runs say of themselves, without their weights.

    Args:
        paths: their folders.
        allowed: the callables that their configs may name.

    Raises:
        ConfigError: there is none, one is named twice or has no image head or has not finished, or their data, split,
            fold or image classes differ.
    """
    if not paths:
        raise ConfigError(
            "`runs` should name the run folders of one or more classifiers. Found none. They lie below `outputs/`."
        )
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise ConfigError(f"`runs` should name each run folder once. Found `runs = {list(paths)}`. Delete the copies.")
    opened = [OpenedRun(path, *open_run(path, allowed)) for path in paths]
    found = [f"`{one.path}` {finding}" for one in opened for finding in one.findings()]
    if found:
        raise ConfigError(
            f"`runs` should be finished runs with an image head. Found: {'; '.join(found)}. Leave these out, or train "
            "them with `task=classifier` or `task=dual_head`."
        )
    first = opened[0].identity
    unlike = [
        f"`{one.path}` has {name} {value}, `{opened[0].path}` {first[name]}"
        for one in opened[1:]
        for name, value in one.identity.items()
        if value != first[name]
    ]
    if unlike:
        raise ConfigError(
            "`runs` should be of the same data, split, fold and image classes, so that they are asked about pictures "
            f"that none, or each, was trained on. Found: {'; '.join(unlike)}. Leave these out."
        )
    return opened


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run folder: as it was named, as a path, and its config."""

    path: str
    folder: Path
    cfg: DictConfig

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What the provenance says."""
        return read_provenance(self.folder)

    def findings(self) -> Iterator[str]:
        """Why the run cannot be analysed."""
        classes = self.facts.get("image_classes", {}).get(HEAD)
        if HEAD not in OmegaConf.select(self.cfg, "task.network.heads", default={}) or not classes:
            yield "has no head for the class of a picture"
            return
        needed = [SPLITS, str(CHECKPOINTS / BEST)] + [METRICS] * bool(self.facts["several"])
        for name in needed:
            if not (self.folder / name).is_file():
                yield f"has no {name}"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What all runs of an analysis have in common."""
        split = read_split(self.folder / SPLITS)
        return {
            "the data": split.sha256[:12],
            "the fold assignment": split.assignment[:12],
            "fold": self.facts["fold"],
            "the image classes": list(self.facts["image_classes"][HEAD]),
            "`data.image_labels`": OmegaConf.to_container(self.cfg.data).get("image_labels"),  # type: ignore[union-attr]
        }

    @property
    def encoder(self) -> str:
        """Its name."""
        return str(self.cfg.encoder.name)


def run_labels(runs: Sequence[OpenedRun]) -> list[str]:
    """A name for each run: that of its config where it is the only one, else with fold and time, else its path."""
    names = [str(one.cfg.name) for one in runs]
    tails = ["/".join(one.folder.resolve().parts[-3:]) for one in runs]
    paths = [str(one.folder.resolve()) for one in runs]
    return next((labels for labels in (names, tails) if len(set(labels)) == len(labels)), paths)


@dataclass(frozen=True, eq=False)
class AnalysedPictures:
    """The pictures of one part whose class is known.

    Attributes:
        catalogue: their data set.
        records: the pictures.
        classes: K names.
        several: whether a picture may show several classes.
        target: ``(N, K)`` of 0 and 1, NaN where it is not known.
        num_unknown: pictures of the part that are left out.
        examples: by class the places of the pictures that are shown, alike for every run.
    """

    catalogue: Catalogue
    records: Sequence[Record]
    classes: Sequence[str]
    several: bool
    target: NDArray[np.float64]
    num_unknown: int
    examples: Mapping[int, Sequence[int]]
    _thumbnails: dict[int, Picture] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """Of the pictures."""
        return [record.id for record in self.records]

    def thumbnail(self, place: int) -> Picture:
        """A picture as large as a tile of a sheet."""
        if place not in self._thumbnails:
            source = self.records[place].image
            self._thumbnails[place] = thumbnail(Decoding.of(self.catalogue).image(source))
        return self._thumbnails[place]

    def mask(self, place: int) -> NDArray[np.uint8] | None:
        """The mask of the data set, where there is one."""
        source = self.records[place].mask
        return None if source is None else Decoding.of(self.catalogue).mask(source)

    def names(self, shown: NDArray[Any]) -> str:
        """Classes ``(K,)`` that are shown, in words."""
        return ", ".join(name for name, value in zip(self.classes, shown, strict=True) if value == 1) or "none"


def read_part(
    run: OpenedRun, part: str, num_examples: int, data_root: str | None, cache_dir: str | None
) -> AnalysedPictures:
    """The pictures of a part of the data that a run was trained on, with the masks of the data set.

    Raises:
        ConfigError: the data, their split or their image classes are no longer those of the run.
        DataError: the class of no picture of the part is known.
    """
    cfg = run.cfg.copy()
    cfg.data.labels = None  # pseudo-labels are no truth
    place_data(cfg, data_root, cache_dir)
    with building_from(run.folder):
        data: PreparedData = instantiate(cfg.data).prepared
    check_same_split(run.folder, data.fold_assignment)
    labels, classes = data.image_labels, run.identity["the image classes"]
    if labels is None or list(labels.classes) != classes:
        found = [] if labels is None else list(labels.classes)
        raise ConfigError(
            f"The image classes should be those that the run was trained on, {classes}. Found {found}. Restore the "
            "labels of the data set."
        )
    place = {record.id: i for i, record in enumerate(data.catalogue.records)}
    places = [place[name] for name in sorted(data.parts[part])]
    values = labels.values[places]
    target = values.astype(np.float64) if labels.several else one_hot_labels(values, len(classes))
    known = np.flatnonzero(~np.isnan(target).all(axis=1))
    if not len(known):
        raise DataError(
            f"The {part} part of `{data.catalogue.name}`, fold {data.fold}, should hold pictures whose class is known. "
            f"Found none among {len(places)}. Complete labels.csv, or analyse the other part."
        )
    target = target[known]
    return AnalysedPictures(
        catalogue=data.catalogue,
        records=[data.catalogue.records[places[i]] for i in known],
        classes=classes,
        several=labels.several,
        target=target,
        num_unknown=len(places) - len(known),
        examples={k: _spread(np.flatnonzero(target[:, k] == 1), num_examples) for k in range(len(classes))},
    )


def _spread(places: NDArray[np.int64], number: int) -> list[int]:
    """So many of them at most, evenly from the first to the last."""
    chosen = np.unique(np.linspace(0, len(places) - 1, min(number, len(places))).round().astype(int))
    return [int(places[i]) for i in chosen]
