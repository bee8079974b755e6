"""The map-style data set of one part of a split, and how its samples become batches."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate, default_convert

from hsl.batch import IGNORE_INDEX, Batch, Sample
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record
from hsl.data.labels.pseudo_labels import TrainingLabels
from hsl.data.labels.teacher_targets import Teachers
from hsl.data.loading.cache import PictureCache
from hsl.data.loading.transforms import Transform
from hsl.data.patches.patch_sampling import TrainingPatches

Key = tuple[int, ...]  # see `BatchOrder`
"""Epoch and place in the part: all that a sample may depend on besides the run's seed."""


class PictureDataset(Dataset[Sample]):
    """Pictures with their masks, one head.

    A sample follows from (seed, epoch, index) alone: not from the number of workers, nor from which samples
    were drawn before it. So a resumed epoch goes on exactly as the uninterrupted one.

    Args:
        ids: Names of the samples.
        pictures: The decoded pictures of the whole catalogue.
        places: For each sample its place in ``pictures``.
        transform: What is done to each sample.
        head: The head that the masks belong to.
        seed: The run's seed.
        patches: What is cut out of the pictures; ``None``: they stay whole.
        image_labels: By head what is known of each picture as a whole, ``(N, ...)`` in the order of ``pictures``.
        labels: What the pixels of each mask weigh; ``None``: all the same.
        teachers: What teachers say of each picture; ``None``: there are none.
        fill_masks: Whether a picture without a mask gets one that is ``IGNORE_INDEX`` everywhere.
    """

    def __init__(
        self,
        ids: Sequence[str],
        pictures: PictureCache,
        places: Sequence[int],
        transform: Transform,
        *,
        head: str,
        seed: int,
        patches: TrainingPatches | None = None,
        image_labels: Mapping[str, Tensor] | None = None,
        labels: TrainingLabels | None = None,
        teachers: Teachers | None = None,
        fill_masks: bool = False,
    ) -> None:
        self._ids, self._pictures, self._places = tuple(ids), pictures, tuple(places)
        self._transform, self._head, self._seed = transform, head, seed
        self._patches, self._labels, self._teachers, self._fill_masks = patches, labels, teachers, fill_masks
        self._image_labels = dict(image_labels or {})

    def __len__(self) -> int:
        return len(self._ids)

    def expect(self, keys: Sequence[Key]) -> None:
        """Tell the cache which samples are asked for next; see `PictureCache.expect`."""
        self._pictures.expect(self._places[key[1]] for key in keys)

    def __getitem__(self, key: Key) -> Sample:
        """The sample of an (epoch, index, ...); pictures and masks are ``uint8``, a sample without mask has no
        masks.

        Raises:
            DataError: The picture cannot be read.
        """
        epoch, index = key[:2]
        source, place = self._ids[index], self._places[index]
        name, picture = source, self._pictures[place]
        maps = {} if self._labels is None else self._labels.maps(source)
        if self._teachers is not None:
            maps = maps | self._teachers.maps(source, picture.image.shape[:2])
        if self._patches is not None:
            name, picture, maps = self._patches.cut(picture, maps, index, epoch)
        height, width = picture.image.shape[:2]
        masks = {} if picture.mask is None else {self._head: picture.mask}
        if self._fill_masks and not masks:
            masks = {self._head: np.full((height, width), IGNORE_INDEX, np.uint8)}
        image, masks = self._transform(picture.image, masks | maps, (self._seed, *key))
        maps = {key: masks.pop(key) for key in maps}
        sample: Sample = {
            "id": name,
            "image": _tensor(image.transpose(2, 0, 1)),
            "masks": {head: _tensor(mask) for head, mask in masks.items()},
            "size": (height, width),
        }
        if self._image_labels:
            sample["labels"] = {head: values[place] for head, values in self._image_labels.items()}
        if self._labels is not None:
            annotations: Any = self._labels.annotate(source, self._head, masks[self._head], maps)
            cast(Any, sample).update(default_convert(annotations))  # type: ignore[no-untyped-call]
        if self._teachers is not None:
            sample["teachers"] = default_convert(self._teachers.annotate(source, maps))  # type: ignore[no-untyped-call]
        return sample


def unmasked_pictures(
    records: Sequence[Record],
    decoding: Decoding,
    transform: Transform,
    head: str,
    seed: int,
) -> PictureDataset:
    """Pictures from outside the data set, in order. Their masks, if any, are not read; nothing is cached."""
    unmasked = [Record(record.id, record.image, None, None, {}, None) for record in records]
    nothing = np.zeros((len(records), 2), dtype=np.int64)
    pictures = PictureCache(unmasked, nothing, nothing, decoding, kind=None, gigabytes=0)
    ids = [record.id for record in records]
    return PictureDataset(ids, pictures, range(len(records)), transform, head=head, seed=seed)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples -> a batch that is still ``uint8`` (see ``transforms.normalized``).

    Masks of unlike size are padded at the bottom and right with ``IGNORE_INDEX``. If no sample has a mask
    there are none.
    """
    batch: Batch = {
        "id": [sample["id"] for sample in samples],
        "image": default_collate([sample["image"] for sample in samples]),
        "size": torch.tensor([sample["size"] for sample in samples]),
    }
    heads = samples[0]["masks"].keys()
    if heads:
        batch["masks"] = {head: _stacked([sample["masks"][head] for sample in samples]) for head in heads}
    for key in ("labels", "weights", "unlabelled", "targets", "teachers"):
        if key in samples[0]:
            batch[key] = default_collate([sample[key] for sample in samples])
    return batch


def _stacked(masks: Sequence[Tensor]) -> Tensor:
    height, width = (max(mask.shape[side] for mask in masks) for side in (0, 1))
    if all(mask.shape == (height, width) for mask in masks):
        stacked: Tensor = default_collate(list(masks))
        return stacked
    padded = masks[0].new_full((len(masks), height, width), IGNORE_INDEX)
    for row, mask in zip(padded, masks, strict=True):
        row[: mask.shape[0], : mask.shape[1]] = mask
    return padded


def _tensor(array: NDArray[np.uint8]) -> Tensor:
    """Copies what lies in the cache, which nobody may write to."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
