from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX, Sample
from hsl.data.files.decoding import Picture
from hsl.data.files.records import Record
from hsl.data.loading.cache import PictureCache
from hsl.data.loading.dataset import PictureDataset, collate
from hsl.data.loading.transforms import EvaluationTransform, Transform, training_transform
from hsl.errors import DataError

SIZES = ((20, 30), (25, 15), (8, 8))
FLIPS: dict[str, Any] = {
    "flips": {"horizontal": 0.5, "vertical": 0.5},
    "rot90": {"probability": 1.0},
    "resized_crop": {"scale": (0.3, 1.0), "ratio": (0.8, 1.2)},
    "rotation": None,
    "colour": None,
    "blur": None,
}


class NoBytes:
    def __init__(self, name: str) -> None:
        self.name = name

    def read(self) -> bytes:
        raise DataError(f"`{self.name}` is gone.")

    def stamp(self) -> str:
        return self.name


def picture(index: int) -> Picture:
    random = np.random.default_rng(index)
    image = random.integers(0, 255, (*SIZES[index], 3), dtype=np.uint8)
    return Picture(image, random.integers(0, 3, SIZES[index], dtype=np.uint8))


def make(transform: Transform, *, masks: bool = True, seed: int = 0) -> PictureDataset:
    """The second, the third and the first of three pictures."""
    source = NoBytes("nowhere")
    records = [Record(str(index), source, source if masks else None, None, {}, None) for index in range(3)]

    def decode(record: Record) -> Picture:
        found = picture(int(record.id))
        return found if record.mask else Picture(found.image, None)

    sizes = np.array(SIZES)
    cache = PictureCache(records, sizes, sizes * masks, decode, kind="ram", gigabytes=1)
    return PictureDataset(["b", "c", "a"], cache, [1, 2, 0], transform, head="damage", seed=seed)


def test_evaluation_sample() -> None:
    dataset = make(EvaluationTransform((12, 10)))
    assert len(dataset) == 3
    sample = dataset[0, 0]
    assert sample["id"] == "b"
    assert sample["size"] == (25, 15)
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].shape == (3, 12, 10)
    np.testing.assert_array_equal(sample["masks"]["damage"], picture(1).mask)


def test_picture_of_the_right_size_is_handed_out_unchanged() -> None:
    dataset = make(EvaluationTransform((8, 8)))
    for _ in range(2):
        image = dataset[0, 1]["image"]
        np.testing.assert_array_equal(image, picture(2).image.transpose(2, 0, 1))
        image.zero_()  # a copy: the cache keeps the picture
        dataset[0, 1]["masks"]["damage"].zero_()
    np.testing.assert_array_equal(dataset[0, 1]["masks"]["damage"], picture(2).mask)


def test_training_sample_follows_from_seed_epoch_and_index() -> None:
    def bytes_of(sample: Sample) -> bytes:
        return sample["image"].numpy().tobytes() + sample["masks"]["damage"].numpy().tobytes()

    transform = training_transform((16, 16), **FLIPS)
    keys = [(epoch, index) for epoch in range(4) for index in range(3)]
    first = {key: bytes_of(make(transform)[key]) for key in keys}
    again = make(training_transform((16, 16), **FLIPS))
    assert {key: bytes_of(again[key]) for key in reversed(keys)} == first
    assert len(set(first.values())) == len(keys)
    other = make(transform, seed=1)
    assert all(bytes_of(other[key]) != value for key, value in first.items())
    sample = again[2, 1]
    assert sample["image"].shape[1:] == sample["masks"]["damage"].shape == (16, 16)


def test_batch_of_masks_of_unlike_size_is_padded() -> None:
    dataset = make(EvaluationTransform((12, 10)))
    batch = collate([dataset[0, 0], dataset[0, 2]])
    assert batch["id"] == ["b", "a"]
    assert batch["image"].shape == (2, 3, 12, 10)
    assert batch["size"].tolist() == [[25, 15], [20, 30]]
    masks = batch["masks"]["damage"]
    assert masks.shape == (2, 25, 30)
    assert masks.dtype == torch.uint8
    expected: NDArray[np.uint8] = np.full((2, 25, 30), IGNORE_INDEX, np.uint8)
    expected[0, :25, :15], expected[1, :20, :30] = picture(1).mask, picture(0).mask
    np.testing.assert_array_equal(masks, expected)


def test_batch_of_equal_sizes() -> None:
    dataset = make(training_transform((16, 12), **(FLIPS | {"rot90": None})))
    batch = collate([dataset[0, index] for index in range(3)])
    assert batch["image"].shape == (3, 3, 16, 12)
    assert batch["masks"]["damage"].shape == (3, 16, 12)
    assert (batch["masks"]["damage"] != IGNORE_INDEX).all()


def test_no_masks() -> None:
    dataset = make(EvaluationTransform((12, 10)), masks=False)
    assert dataset[0, 0]["masks"] == {}
    assert "masks" not in collate([dataset[0, 0]])


def test_broken_picture() -> None:
    record = Record("x", NoBytes("x.png"), None, None, {}, None)
    nothing = np.zeros((1, 2), np.int64)
    cache = PictureCache([record], nothing, nothing, lambda record: record.image.read(), kind=None, gigabytes=0)
    dataset = PictureDataset(["x"], cache, [0], EvaluationTransform((8, 8)), head="damage", seed=0)
    with pytest.raises(DataError, match=r"`x\.png` is gone"):
        dataset[0, 0]
