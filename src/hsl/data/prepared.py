"""Which pictures a run is about: the settings that choose them, and what was read, split and audited once."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hsl.config.ranges import NonNegativeInt, PositiveFloat
from hsl.data.arguments import check_max_megapixels, check_value_range
from hsl.data.audit.audit import Audit
from hsl.data.bands.bands import BandStatistics, histograms_of, statistics_of
from hsl.data.files.decoding import Decoding
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.reading import read_each
from hsl.data.files.records import Catalogue, Record, by_block, ruled, select
from hsl.data.files.scan import Scan, scan
from hsl.data.labels.image_labels import HEAD, ImageLabels, read_image_labels
from hsl.data.labels.object_labels import ObjectLabels
from hsl.data.labels.pseudo_labels import PseudoLabels, TrainingLabels
from hsl.data.labels.teacher_targets import Teachers
from hsl.data.loading.sampling import Counts, class_counts, presence
from hsl.data.patches.patch_sampling import PatchSampling
from hsl.data.splits.folds import stored_split
from hsl.data.tasks import Heads, heads_of
from hsl.files.split_file import Split


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """The settings that choose pictures, their split and their labels; they say nothing of how pictures are loaded.

    Args:
        root: Folder of the data set, or its name on a hub.
        reader: ``reader(root) -> Catalogue``.
        split: ``split(catalogue, scan) -> Split``.
        fold: Number of the fold.
        audit: ``audit(catalogue, scan, split, fold, image_labels=columns) -> Audit``.
        num_workers: Processes that scan and load, for each process that trains; or ``"auto"``.
        cache_dir: Folder for what outlives the run: scan, fold assignment, disk cache. ``None``: nothing does.
        head: The head that the masks belong to; with tasks the global one.
        tasks: What several heads read of the masks, see `hsl.data.tasks.read_heads`.
        patches: What is cut out of the training pictures; ``None``: they stay whole.
        image_labels: The column, or columns, that say what a picture as a whole shows; see `read_image_labels`.
        labels: What takes the place of the training masks; ``None``: nothing does.
        teachers: Folder of what teachers say of the training pictures; ``None``: there are none.
        only: Attributes and the values that a picture may have of them; others are left out, see `select`.
        value_range: What becomes black and white in pictures of more than 8 bits; ``None``: as the data set says.
        max_megapixels: A larger picture or mask is refused before it is decoded.

    Raises:
        ConfigError: An argument is outside its range.
    """

    root: str | Path
    reader: Callable[[str | Path], Catalogue]
    split: Callable[[Catalogue, Scan], Split]
    fold: NonNegativeInt
    audit: Callable[..., Audit]
    num_workers: NonNegativeInt | Literal["auto"]
    cache_dir: str | Path | None
    head: str = "segmentation"
    tasks: str | Path | None = None
    patches: PatchSampling | None = None
    image_labels: str | Sequence[str] | None = None
    labels: PseudoLabels | ObjectLabels | None = None
    teachers: str | None = None
    only: Mapping[str, str | Sequence[str]] | None = None
    value_range: Sequence[float] | None = None
    max_megapixels: PositiveFloat = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        check_value_range(self.value_range, "data.value_range")
        check_max_megapixels(self.max_megapixels, "data.max_megapixels")

    @property
    def cache_folder(self) -> Path | None:
        """``cache_dir`` as a path."""
        return None if self.cache_dir is None else Path(self.cache_dir)

    def read(self) -> "PreparedData":
        """Read, scan, split and audit the data set, without judging what the audit found.

        Raises:
            DataError: The data set cannot be read.
            ConfigError: There is no such fold.
        """
        catalogue = select(self.reader(self.root), self.only or {})
        catalogue = ruled(catalogue, check_value_range(self.value_range, "data.value_range"), self.max_megapixels)
        heads = heads_of(catalogue, self.tasks, self.head)
        if self.patches:
            self.patches.foreground_table(catalogue)  # a wrong name is refused before all the rest
        workers = os.cpu_count() or 1 if self.num_workers == "auto" else max(1, self.num_workers)
        scanned = scan(catalogue, self.cache_folder, workers)
        split = stored_split(self.split, catalogue, scanned, self.cache_folder)
        training = set(split.parts(self.fold)["train"])
        columns = self.image_labels
        image_labels = None if columns is None else read_image_labels(columns, catalogue.records)
        labels: TrainingLabels | None = None
        if self.labels is not None:  # the split is that of the data set; only then are training masks replaced
            labels = self.labels.read(catalogue, split, self.fold, self.cache_folder, workers)
            catalogue = labels.relabelled(catalogue, training)
            scanned = scan(catalogue, self.cache_folder, workers)
        audit = self.audit(catalogue, scanned, split, self.fold, image_labels=columns)
        teachers = None
        if self.teachers is not None:
            known = {**heads.classes, **({} if image_labels is None else {HEAD: image_labels.classes})}
            teachers = Teachers.read(Path(self.teachers), split, self.fold, known)
        return PreparedData(catalogue, heads, scanned, split, self.fold, image_labels, labels, audit, teachers)


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A data set as a run sees it.

    Attributes:
        catalogue: Its pictures; training masks are replaced where there are ``training_labels``.
        heads: How the heads read the masks.
        scan: Of the catalogue.
        fold_assignment: All folds.
        fold: Number of the fold.
        image_labels: What the pictures as a whole show; ``None``: nothing is known of that.
        training_labels: What takes the place of the training masks; ``None``: nothing does.
        audit: What was found in this fold; whether it stops a run is for the caller to ask.
        teachers: What teachers say of the training pictures; ``None``: there are none.
    """

    catalogue: Catalogue
    heads: Heads
    scan: Scan
    fold_assignment: Split
    fold: int
    image_labels: ImageLabels | None
    training_labels: TrainingLabels | None
    audit: Audit
    teachers: Teachers | None = None

    @cached_property
    def bands(self) -> BandStatistics | None:
        """What named bands are normalised by: the pictures of the training part, each read once; ``None`` without.

        Raises:
            DataError: A picture cannot be read.
        """
        bands = self.catalogue.bands
        if bands is None:
            return None
        records = [self.catalogue.records[self.places[name]] for name in self.parts["train"]]
        count = functools.partial(_histograms, how=Decoding.of(self.catalogue))
        each = read_each("statistics of the channels", records, count, os.cpu_count() or 1)
        return statistics_of(bands, np.sum([*each], axis=0))

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Ids of ``train``, ``val`` and ``test``, and of ``stop`` where the fold has such a part."""
        return self.fold_assignment.parts(self.fold)

    @cached_property
    def places(self) -> dict[str, int]:
        """By id the place of a picture in the catalogue."""
        return {record.id: place for place, record in enumerate(self.catalogue.records)}

    def in_order(self, ids: Sequence[str], *, by_size: bool) -> tuple[str, ...]:
        """Ids as they are evaluated: by size, then name; a stream by block, and by size before only where that counts.

        Args:
            ids: Of pictures.
            by_size: Whether a batch holds pictures of one size only.
        """
        if self.catalogue.shuffle_buffer is None:
            return self.scan.by_size(ids)
        ordered = by_block(self.catalogue.records, [self.places[name] for name in sorted(ids)])
        if by_size:
            sizes = self.scan.image_sizes.tolist()
            ordered.sort(key=lambda place: sizes[place])
        return tuple(self.catalogue.records[place].id for place in ordered)

    def blocks(self, places: Sequence[int]) -> NDArray[np.int64]:
        """The blocks of the records at some places, of a stream."""
        return np.array([self.catalogue.records[place].block or 0 for place in places], np.int64)

    @property
    def head(self) -> str:
        """The head that the masks belong to; with tasks the global one."""
        return self.heads.global_head

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Class names by head."""
        return dict(self.heads.classes)

    @property
    def image_classes(self) -> dict[str, tuple[str, ...]]:
        """Class names of the head that says what a picture as a whole shows; empty without ``image_labels``."""
        return {} if self.image_labels is None else {HEAD: self.image_labels.classes}

    @property
    def label_tiers(self) -> Mapping[str, int] | None:
        """Of pseudo-labels the number of pictures that teach, by tier; ``None`` without pseudo-labels."""
        return None if self.training_labels is None else self.training_labels.tiers

    @property
    def evaluation_parts(self) -> tuple[str, ...]:
        """The parts that are scored after training, the one that chooses first: ``stop``, ``val``, ``test``; not all
        are there."""
        return tuple(part for part in ("stop", "val", "test") if self.parts.get(part))

    @property
    def choosing_part(self) -> str:
        """What is looked at while a model is trained, to choose the epoch and all else: ``stop``, or else ``val``."""
        return "stop" if "stop" in self.parts else "val"

    @property
    def class_counts(self) -> Counts:
        """How often each class occurs in the training part; see `hsl.data.loading.sampling`."""
        return class_counts(self.heads, self.scan, self.parts["train"], self.image_labels)

    @property
    def presence_pixels(self) -> Counts:
        """What a class could at most have got in the training part; see `hsl.data.loading.sampling.presence`."""
        return presence(self.heads, self.scan, self.parts["train"], self.image_labels)

    def pixels_per_part(self) -> dict[str, NDArray[np.int64]]:
        """By part ``int64 (C,)``: pixels of each class of `head`, ignored ones left out; empty parts are left out."""
        return {
            part: class_counts(self.heads, self.scan, ids, None)[self.head] for part, ids in self.parts.items() if ids
        }

    def group(self, name: str) -> str:
        """The group of one picture: the value of the attribute that the split keeps whole, else its id."""
        record = self.catalogue.records[self.places[name]]
        return record.attributes.get(self.fold_assignment.groups or "", name)

    def instances(self, name: str) -> NDArray[Any] | None:
        """Object ids ``(H, W)`` of one picture, where the data set has them."""
        source = self.catalogue.records[self.places[name]].instances
        return None if source is None else Decoding.of(self.catalogue).instances(source)


def _histograms(record: Record, how: Decoding) -> NDArray[np.int64]:
    return histograms_of(how.image_of(record.image.read(), record.image.name))
