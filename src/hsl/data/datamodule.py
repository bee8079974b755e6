"""Data of a run: catalogue, split and audit, then loaders for training, evaluation and prediction."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray

from hsl.batch import Batch
from hsl.config.ranges import Limit, NonNegativeInt, PositiveFloat, PositiveInt, Seed
from hsl.data.arguments import check_arguments, check_max_megapixels, check_value_range
from hsl.data.audit.audit import Audit
from hsl.data.files.decoding import Decoding
from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.files.records import Catalogue, Record, ruled, select
from hsl.data.files.scan import Scan, scan
from hsl.data.files.unchanged import Unchanged
from hsl.data.labels.image_labels import HEAD, read_image_labels
from hsl.data.labels.object_labels import ObjectLabels
from hsl.data.labels.pseudo_labels import PseudoLabels, PseudoTrainingLabels
from hsl.data.loading.cache import PictureCache
from hsl.data.loading.class_counts import Counts, class_counts, presence, shown
from hsl.data.loading.dataset import PictureDataset, unmasked_pictures
from hsl.data.loading.loader import BatchOrder, Loader
from hsl.data.loading.sampling import Sampling
from hsl.data.loading.transforms import EvaluationTransform, Transform, masks_by_head, normalized
from hsl.data.loading.workers import choose_num_workers
from hsl.data.patches.patch_sampling import PatchSampling, TrainingPatches
from hsl.data.splits.folds import Split, stored_split
from hsl.data.tasks import heads_of
from hsl.errors import DataError

PARTS = ("train", "val", "test")


class DataModule(LightningDataModule):
    """Which samples, whose masks, in what order and form.

    In training a sample is augmented and its mask has the size of the picture. At evaluation the picture is
    brought to ``evaluation_size`` and the mask keeps the size of the source. Batches travel as ``uint8``;
    `on_after_batch_transfer` makes them ``float32`` and ``int64`` on the device.

    Args:
        root: Folder of the data set, or its name on a hub.
        reader: ``reader(root) -> Catalogue``.
        split: ``split(catalogue, scan) -> Split``.
        fold: Number of the fold.
        image_size: Side in pixels, or height and width, of what the network sees.
        batch_size: The effective batch: pictures per step over all processes.
        num_workers: Processes that load, for each process that trains; or ``"auto"``, see `choose_num_workers`.
        cache: Where decoded pictures are kept: ``"ram"``, ``"disk"`` or ``None``.
        cache_gigabytes: Bound of the cache, for each process that trains.
        cache_dir: Folder for what outlives the run: scan, fold assignment, disk cache. ``None``: nothing does.
        audit: ``audit(catalogue, scan, split, fold, image_labels=columns) -> Audit``.
        augmentation: ``augmentation(image_size) -> Transform`` of the training pictures.
        normalization: ``mean`` and ``std`` per channel, of pictures in [0, 1].
        seed: Of the order and the augmentation.
        head: The head that the masks belong to; with tasks the global one.
        tasks: What several heads read of the masks, see `hsl.data.tasks.read_heads`.
        patches: What is cut out of the training pictures; ``None``: they stay whole.
        evaluation_size: ``"image_size"``, or ``"source"``: pictures keep their size, batches hold one size only.
        image_labels: The column, or columns, that say what a picture as a whole shows; see `read_image_labels`.
        sampling: How often a training picture is drawn; ``None``: each comes once an epoch.
        only: Attributes and the values that a picture may have of them; others are left out, see `select`.
        labels: What takes the place of the training masks; ``None``: nothing does.
        value_range: What becomes black and white in pictures of more than 8 bits; ``None``: as the data set says.
        max_megapixels: A larger picture or mask is refused before it is decoded.

    Raises:
        ConfigError: An argument is outside its range; all of them are named.
    """

    def __init__(
        self,
        root: str | Path,
        reader: Callable[[str | Path], Catalogue],
        split: Callable[[Catalogue, Scan], Split],
        fold: NonNegativeInt,
        image_size: PositiveInt | Sequence[PositiveInt],
        batch_size: PositiveInt,
        num_workers: NonNegativeInt | Literal["auto"],
        cache: str | None,
        cache_gigabytes: Limit,
        cache_dir: str | Path | None,
        audit: Callable[..., Audit],
        augmentation: Callable[[tuple[int, int]], Transform],
        normalization: Mapping[str, Sequence[float]],
        seed: Seed,
        head: str = "segmentation",
        tasks: str | Path | None = None,
        patches: PatchSampling | None = None,
        evaluation_size: str = "image_size",
        image_labels: str | Sequence[str] | None = None,
        labels: PseudoLabels | ObjectLabels | None = None,
        sampling: Sampling | None = None,
        only: Mapping[str, str | Sequence[str]] | None = None,
        value_range: Sequence[float] | None = None,
        max_megapixels: PositiveFloat = MAX_MEGAPIXELS,
    ) -> None:
        super().__init__()
        check_arguments(image_size, batch_size, num_workers, normalization, evaluation_size)
        self.root, self.fold, self.head, self.seed = root, fold, head, seed
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_size, self.batch_size = (int(height), int(width)), batch_size
        self._value_range = check_value_range(value_range, "data.value_range")
        self.max_megapixels = check_max_megapixels(max_megapixels, "data.max_megapixels")
        self._reader, self._only, self._split, self._audit = reader, only or {}, split, audit
        self._num_workers, self._tasks, self._patches = num_workers, tasks, patches
        self._columns, self.pseudo_labels, self._sampling = image_labels, labels, sampling
        self._cache, self._cache_gigabytes = cache, cache_gigabytes
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        self._augment = augmentation(self.image_size)
        self._evaluate = EvaluationTransform(None if evaluation_size == "source" else self.image_size)
        self._mean, self._std = (torch.tensor(list(normalization[name])).reshape(3, 1, 1) for name in ("mean", "std"))
        self._inspected = self._prepared = False

    def inspect(self) -> None:
        """Read, scan, split and audit the data set, without judging what the audit found. Works once.

        Raises:
            DataError: The data set cannot be read.
            ConfigError: There is no such fold.
        """
        if self._inspected:
            return
        self.catalogue = ruled(select(self._reader(self.root), self._only), self._value_range, self.max_megapixels)
        self.heads = heads_of(self.catalogue, self._tasks, self.head)
        if self._patches:
            self._patches.foreground_table(self.catalogue)  # a wrong name is refused before all the rest
        workers = os.cpu_count() or 1 if self._num_workers == "auto" else max(1, int(self._num_workers))
        self.scan = scan(self.catalogue, self._cache_dir, workers)
        self.fold_assignment = stored_split(self._split, self.catalogue, self.scan, self._cache_dir)
        self.parts = self.fold_assignment.parts(self.fold)
        columns = self._columns
        self.image_labels = None if columns is None else read_image_labels(columns, self.catalogue.records)
        self._training_labels = None
        self.label_tiers: Mapping[str, int] | None = None  # of pseudo-labels: the pictures that teach, by tier
        if self.pseudo_labels is not None:  # the split is that of the data set; only then are training masks replaced
            where = self.fold_assignment, self.fold, self._cache_dir, workers
            self._training_labels = self.pseudo_labels.read(self.catalogue, *where)
            if isinstance(self._training_labels, PseudoTrainingLabels):
                self.label_tiers = self._training_labels.tiers
            self.catalogue = self._training_labels.relabelled(self.catalogue, set(self.parts["train"]))
            self.scan = scan(self.catalogue, self._cache_dir, workers)
        self.audit = self._audit(self.catalogue, self.scan, self.fold_assignment, self.fold, image_labels=columns)
        self._inspected = True

    def prepare(self) -> None:
        """Everything up to the first loader. Works once.

        Raises:
            DataError: The data set cannot be read, or the audit stops the run.
            ConfigError: There is no such fold, or no room for the cache.
        """
        if self._prepared:
            return
        self.inspect()
        self.audit.raise_if_stopped()
        self._place = {record.id: place for place, record in enumerate(self.catalogue.records)}
        rows = self.scan.rows(tuple(self._place))
        first = [self._place[name] for part in PARTS for name in self.parts[part]]
        self._pictures = PictureCache(
            self.catalogue.records, self.scan.image_sizes[rows], self.scan.mask_sizes[rows],
            Decoding.of(self.catalogue), kind=self._cache, gigabytes=self._cache_gigabytes, cache_dir=self._cache_dir,
            first=first, check=Unchanged.since(self.scan),
        )  # fmt: skip
        self._prepared = True

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Class names by head."""
        return dict(self.heads.classes)

    @property
    def image_classes(self) -> dict[str, tuple[str, ...]]:
        """Class names of the head that says what a picture as a whole shows; empty without ``image_labels``."""
        return {} if self.image_labels is None else {HEAD: self.image_labels.classes}

    @property
    def class_counts(self) -> Counts:
        """How often each class occurs in the training part; see `hsl.data.loading.class_counts`."""
        return class_counts(self.heads, self.scan, self.parts["train"], self.image_labels)

    @property
    def presence_pixels(self) -> Counts:
        """What a class could at most have got in the training part; see `hsl.data.loading.class_counts.presence`."""
        return presence(self.heads, self.scan, self.parts["train"], self.image_labels)

    def pixels_per_part(self) -> dict[str, NDArray[np.int64]]:
        """By part ``int64 (C,)``: pixels of each class of `head`, ignored ones left out; empty parts are left out."""
        counted = {part: class_counts(self.heads, self.scan, ids, None) for part, ids in self.parts.items() if ids}
        return {part: counts[self.head] for part, counts in counted.items()}

    def group(self, name: str) -> str:
        """The group of one picture: the value of the attribute that the split keeps whole, else its id."""
        record = self.catalogue.records[self._place[name]]
        return record.attributes.get(self.fold_assignment.groups or "", name)

    def train_dataloader(self) -> Loader:
        """Augmented pictures, or patches of them, in random order."""
        processed = None if self.trainer is None else self._num_processed
        return self._loader("train", self._augment, shuffle=True, num_processed=processed)

    def val_dataloader(self) -> Loader:
        """The validation part as it is evaluated."""
        return self.part_dataloader("val")

    @property
    def evaluation_parts(self) -> tuple[str, ...]:
        """The parts that are scored after training: ``val``, and ``test`` where pictures were set apart."""
        return ("val", "test") if self.parts["test"] else ("val",)

    def test_dataloader(self) -> list[Loader]:
        """One loader for each of `evaluation_parts`."""
        return [self.part_dataloader(part) for part in self.evaluation_parts]

    def part_dataloader(self, part: str) -> Loader:
        """Any part that is not empty, ``"train"``, ``"val"`` or ``"test"``, as it is evaluated, ordered by size."""
        return self._loader(part, self._evaluate, shuffle=False)

    def predict_dataloader(  # type: ignore[override]
        self,
        records: Sequence[Record],
        decoding: Decoding,
        *,
        on_broken: Callable[[DataError], None] | None = None,
    ) -> Loader:
        """Pictures from outside the data set, in order. Needs no `prepare`.

        Args:
            records: Their masks, if any, are not read.
            decoding: How they are decoded.
            on_broken: Called for each picture that cannot be read, which is then left out; default: it is raised.
        """
        dataset = unmasked_pictures(records, decoding, self._evaluate, self.head, self.seed)
        unknown = np.arange(len(records))[:, None] if self._evaluate.size is None else None  # so each is a batch
        order = BatchOrder(len(records), self.batch_size, shuffle=False, seed=self.seed, sizes=unknown)
        workers = self._choose_workers(len(order), 0)
        return Loader(dataset, order, num_workers=workers, on_broken=on_broken)

    def original(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """RGB ``uint8 (H, W, 3)`` and mask of one picture at the size of the source. Not to be written."""
        picture = self._pictures[self._place[name]]
        return picture.image, None if picture.mask is None else self.heads.global_mask(picture.mask)

    def instances(self, name: str) -> NDArray[Any] | None:
        """Object ids ``(H, W)`` of one picture, where the data set has them."""
        source = self.catalogue.records[self._place[name]].instances
        return None if source is None else Decoding.of(self.catalogue).instances(source)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """See `normalized`; here the one mask becomes that of every head. The trainer calls it, else do so by hand."""
        del dataloader_idx
        if self._mean.device != (device := batch["image"].device):
            self._mean, self._std = self._mean.to(device), self._std.to(device)
        batch = normalized(batch, self._mean, self._std)
        if "masks" in batch:
            batch["masks"] = masks_by_head(self.heads, batch["masks"][self.head])
        return batch

    def _loader(
        self, part: str, transform: Transform, *, shuffle: bool, num_processed: Callable[[], int] | None = None
    ) -> Loader:
        ids = self.parts[part]
        labels = self._training_labels if shuffle else None
        if labels and self.image_labels is None:  # pictures that count nowhere would teach nothing
            ids = tuple(name for name in ids if labels.teaches(name))
        if not ids:
            where = f"The {part} part of `{self.catalogue.name}`, fold {self.fold},"
            raise DataError(f"{where} should hold pictures. Found none. Change `data.split`.")
        ids = ids if shuffle else self.scan.by_size(ids)
        extents = None if shuffle else self.scan.image_sizes[self.scan.rows(ids)]
        places, patches = tuple(self._place[name] for name in ids), None
        if shuffle and self._patches is not None:
            patches = TrainingPatches(self._patches, self.catalogue, ids, self._pictures, places, self.seed)
            ids, places = patches.ids, patches.places
        dataset = PictureDataset(
            ids, self._pictures, places, transform, head=self.head, seed=self.seed, patches=patches,
            image_labels=None if self.image_labels is None else {HEAD: torch.from_numpy(self.image_labels.values)},
            labels=labels, fill_masks=self.catalogue.masks_optional,
        )  # fmt: skip
        own_sizes = None if self._evaluate.size else extents
        chances = self._sampling.chances(ids, shown(self.heads, self.scan, ids)) if shuffle and self._sampling else None
        order = BatchOrder(len(ids), self.batch_size, shuffle=shuffle, seed=self.seed, sizes=own_sizes, chances=chances)
        workers = self._choose_workers(len(order), 0 if extents is None else int(extents.prod(1).max()))
        return Loader(dataset, order, num_workers=workers, num_processed=num_processed)

    def _choose_workers(self, num_batches: int, mask_bytes: int) -> int:
        area = max(self.image_size[0] * self.image_size[1], 0 if self._evaluate.size else mask_bytes)
        batch_bytes = self.batch_size * (3 * area + max(area, mask_bytes))
        return choose_num_workers(self._num_workers, num_batches, batch_bytes, forked_only=self._cache == "ram")

    def _num_processed(self) -> int:
        """Batches of this epoch whose step is done. Lightning restores it before it makes the loaders."""
        return int(cast(Any, self.trainer).fit_loop.epoch_loop.batch_progress.current.processed)
