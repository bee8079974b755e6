"""Data of a run: a prepared data set, and the loaders for training, evaluation and prediction."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from hsl.batch import Batch, Sample
from hsl.data.arguments import Loading, PictureForm, check_arguments
from hsl.data.bands.bands import BandStatistics
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record
from hsl.data.files.scan import Unchanged
from hsl.data.labels.image_labels import HEAD
from hsl.data.loading.cache import PictureCache
from hsl.data.loading.dataset import PictureDataset, collate, unmasked_pictures
from hsl.data.loading.loader import BatchOrder, Loader
from hsl.data.loading.sampling import class_counts, lost_classes, mask_presence
from hsl.data.loading.transforms import EvaluationTransform, TrainingTransform, Transform, masks_by_head, normalized
from hsl.data.loading.workers import choose_num_workers
from hsl.data.patches.patch_sampling import TrainingPatches
from hsl.data.prepared import DataSource, PreparedData
from hsl.errors import DataError

Part = TypeVar("Part")


class DataModule(LightningDataModule):
    """Which samples, whose masks, in what order and form.

    In training a sample is augmented and its mask has the size of the picture. At evaluation the picture is
    brought to ``evaluation_size`` and the mask keeps the size of the source. Batches travel as ``uint8``;
    `on_after_batch_transfer` makes them ``float32`` and ``int64`` on the device.

    Args:
        settings: The arguments of `DataSource`, `PictureForm` and `Loading`, side by side as they stand in a config.

    Raises:
        ConfigError: An argument is outside its range; all of them are named.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        given = inspect.signature(type(self)).bind(**settings).arguments
        self.source, self.loading = _own(DataSource, given), _own(Loading, given)
        self.form = form = _own(PictureForm, given)
        check_arguments(
            form.image_size, self.loading.batch_size, self.source.num_workers, form.normalization, form.evaluation_size
        )
        self._augment = form.augmentation(form.sides)
        self._recorded: BandStatistics | None = None
        self._evaluate = EvaluationTransform(None if form.evaluation_size == "source" else form.sides)
        self._scale: tuple[Tensor, Tensor] | None = None

    @cached_property
    def prepared(self) -> PreparedData:
        """The data set, read once; what the audit found is not judged, see `DataSource.read` for what is raised."""
        return self.source.read()

    def record(self, statistics: BandStatistics | None) -> None:
        """Normalise bands as a run did, from now on, instead of by the training part as it lies now."""
        self._recorded, self._scale = statistics, None

    @property
    def bands(self) -> BandStatistics | None:
        """What named bands are normalised by; ``None`` of red, green and blue alone."""
        return self._recorded or self.prepared.bands

    def prepare(self) -> None:
        """Everything up to the first loader, so that what is wrong shows now.

        Raises:
            DataError: The data set cannot be read, or the audit stops the run.
            ConfigError: There is no such fold, or no room for the cache.
        """
        self.prepared.audit.raise_if_stopped()
        _ = self._pictures  # opened now

    @cached_property
    def _pictures(self) -> PictureCache:
        data = self.prepared
        rows = data.scan.rows(tuple(data.places))
        first = [data.places[name] for ids in data.parts.values() for name in ids]
        how = Decoding.of(data.catalogue)
        return PictureCache(
            data.catalogue.records, data.scan.image_sizes[rows], data.scan.mask_sizes[rows],
            how, kind=self.loading.cache, gigabytes=self.loading.cache_gigabytes,
            cache_dir=self.source.cache_folder, channels=how.num_channels, first=first,
            check=Unchanged.since(data.scan),
        )  # fmt: skip

    def train_dataloader(self) -> Loader:
        """Augmented pictures, or patches of them, in random order. Of named bands colour changes in what is colour."""
        bands, augment = self.bands, self._augment
        if bands is not None and isinstance(augment, TrainingTransform):
            augment = augment.of_bands(bands.bands.colours)
        processed = None if self.trainer is None else self._num_processed
        return self._loader("train", augment, shuffle=True, num_processed=processed)

    def val_dataloader(self) -> Loader:
        """What is looked at in training, as it is evaluated: see `PreparedData.choosing_part`."""
        return self.part_dataloader(self.prepared.choosing_part)

    def test_dataloader(self) -> list[Loader]:
        """One loader for each of `PreparedData.evaluation_parts`."""
        return [self.part_dataloader(part) for part in self.prepared.evaluation_parts]

    def part_dataloader(self, part: str) -> Loader:
        """Any part that is not empty, such as ``"train"`` or ``"val"``, as it is evaluated, ordered by size."""
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
        dataset = unmasked_pictures(records, decoding, self._evaluate, self.source.head, self.loading.seed)
        unknown = np.arange(len(records))[:, None] if self._evaluate.size is None else None  # so each is a batch
        order = BatchOrder(len(records), self.loading.batch_size, shuffle=False, seed=self.loading.seed, sizes=unknown)
        workers = self._choose_workers(len(order), 0)
        return Loader(dataset, order, num_workers=workers, on_broken=on_broken)

    def batches_of(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[Batch]:
        """The same of decoded pictures ``(H, W, 3)``, all at once but for those that keep their own sizes: one by one.

        Ids are their places, as text.
        """
        samples: list[Sample] = []
        for place, image in enumerate(images):
            seen, _ = self._evaluate(image, {}, ())
            tensor = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1)))
            height, width = image.shape[:2]
            samples.append({"id": str(place), "image": tensor, "masks": {}, "size": (height, width)})
        together = len(samples) if self._evaluate.size is not None else 1
        for start in range(0, len(samples), max(1, together)):
            yield collate(samples[start : start + together])

    def original(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """RGB ``uint8 (H, W, 3)`` and mask of one picture at the size of the source. Not to be written."""
        picture, bands = self._pictures[self.prepared.places[name]], self.prepared.catalogue.bands
        image = picture.image if bands is None else bands.rgb(picture.image)
        return image, None if picture.mask is None else self.prepared.heads.global_mask(picture.mask)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """See `normalized`; here the one mask becomes that of every head. The trainer calls it, else do so by hand."""
        del dataloader_idx
        batch = normalized(batch, *self._scale_on(batch["image"]))
        if "masks" in batch:
            batch["masks"] = masks_by_head(self.prepared.heads, batch["masks"][self.source.head])
        return batch

    def _scale_on(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel, ``(C, 1, 1)``, where the pictures are."""
        if self._scale is None or self._scale[0].device != images.device:
            known = self._recorded is not None or "prepared" in vars(self)  # else it predicts without its data
            bands = self.bands if known else None
            given = [self.form.normalization[name] for name in ("mean", "std")]
            values = given if bands is None else [bands.mean, bands.std]
            mean, std = (torch.tensor(list(each)).reshape(-1, 1, 1).to(images.device) for each in values)
            self._scale = mean, std
        return self._scale

    def _loader(
        self, part: str, transform: Transform, *, shuffle: bool, num_processed: Callable[[], int] | None = None
    ) -> Loader:
        data, seed, sampling = self.prepared, self.loading.seed, self.loading.sampling
        ids, labels = data.parts[part], data.training_labels if shuffle else None
        if labels and data.image_labels is None:  # pictures that count nowhere would teach nothing
            ids = tuple(name for name in ids if labels.teaches(name))
        if not ids:
            where = f"The {part} part of `{data.catalogue.name}`, fold {data.fold},"
            raise DataError(f"{where} should hold pictures. Found none. Change `data.split`.")
        ids = ids if shuffle else data.in_order(ids, by_size=self._evaluate.size is None)
        extents = None if shuffle else data.scan.image_sizes[data.scan.rows(ids)]
        places, patches = tuple(data.places[name] for name in ids), None
        if shuffle and self.source.patches is not None:
            patches = TrainingPatches(self.source.patches, data.catalogue, ids, self._pictures, places, seed)
            ids, places = patches.ids, patches.places
        dataset = PictureDataset(
            ids, self._pictures, places, transform, head=data.head, seed=seed, patches=patches,
            image_labels=None if data.image_labels is None else {HEAD: torch.from_numpy(data.image_labels.values)},
            labels=labels, teachers=data.teachers if shuffle else None, fill_masks=data.catalogue.masks_optional,
        )  # fmt: skip
        own_sizes = None if self._evaluate.size else extents
        chances = self._chances(ids) if shuffle and sampling else None
        stream = shuffle and data.catalogue.shuffle_buffer is not None
        order = BatchOrder(
            len(ids),
            self.loading.batch_size,
            shuffle=shuffle,
            seed=seed,
            sizes=own_sizes,
            chances=chances,
            blocks=data.blocks(places) if stream else None,
            buffer=data.catalogue.shuffle_buffer or 0 if stream else 0,
        )
        workers = self._choose_workers(len(order), 0 if extents is None else int(extents.prod(1).max()))
        return Loader(dataset, order, num_workers=workers, num_processed=num_processed)

    def _chances(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """How often each training picture is drawn; classes that no picture is drawn of are said."""
        data = self.prepared
        chances = self.loading.sampling.chances(ids, mask_presence(data.heads, data.scan, ids))
        drawn = [name for name, chance in zip(ids, chances, strict=True) if chance > 0]
        before, after = (class_counts(data.heads, data.scan, names, data.image_labels) for names in (ids, drawn))
        if lost := lost_classes(before, after, {**data.classes, **data.image_classes}):
            warnings.warn(f"`data.sampling` draws no training picture of {', '.join(lost)}.", stacklevel=2)
        return np.asarray(chances)

    def _choose_workers(self, num_batches: int, mask_bytes: int) -> int:
        height, width = self.form.sides
        area = max(height * width, 0 if self._evaluate.size else mask_bytes)
        batch_bytes = self.loading.batch_size * (3 * area + max(area, mask_bytes))
        forked_only = self.loading.cache == "ram"
        return choose_num_workers(self.source.num_workers, num_batches, batch_bytes, forked_only=forked_only)

    def _num_processed(self) -> int:
        """Batches of this epoch whose step is done. Lightning restores it before it makes the loaders."""
        return int(cast(Any, self.trainer).fit_loop.epoch_loop.batch_progress.current.processed)


def _own(part: type[Part], settings: Mapping[str, Any]) -> Part:
    return part(**{name: settings[name] for name in inspect.signature(part).parameters if name in settings})


_SETTINGS = [
    each for part in (DataSource, PictureForm, Loading) for each in inspect.signature(part).parameters.values()
]
# a wrong key or type in a config is then found before anything is built
DataModule.__signature__ = inspect.Signature(_SETTINGS)  # type: ignore[attr-defined]
DataModule.__init__.__annotations__ = {each.name: each.annotation for each in _SETTINGS}
