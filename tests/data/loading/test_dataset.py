import re
from pathlib import Path
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
from hsl.data.loading.loader import BatchOrder
from hsl.data.loading.sampling import HardExamples, RareClasses, Weighted
from hsl.data.loading.transforms import EvaluationTransform, Transform, training_transform
from hsl.errors import ConfigError, DataError

SIZES = ((20, 30), (25, 15), (8, 8))
FLIPS: dict[str, Any] = {
    "flips": {"horizontal": 0.5, "vertical": 0.5},
    "rot90": {"probability": 1.0},
    "resized_crop": {"scale": (0.3, 1.0), "ratio": (0.8, 1.2)},
    "rotation": None,
    "colour": None,
    "blur": None,
}
NONE = np.zeros((2, 0), bool)
IDS = tuple("abcdefghijklmnop")


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


def run(folder: Path, rows: list[tuple[str, str, float, int]]) -> str:
    folder.mkdir()
    lines = [f"{name},{part},plain,{loss},{correct}" for name, part, loss, correct in rows]
    (folder / "image_predictions.csv").write_text("\n".join(["id,part,inference,loss,correct", *lines]) + "\n")
    return str(folder)


def test_chances_follow_the_loss_on_pictures_that_were_held_out(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "a", [("p", "val", 3.0, 0), ("x", "test", 9.0, 0)]),
        run(tmp_path / "b", [("q", "val", 1.0, 1)]),
    ]
    np.testing.assert_allclose(HardExamples(runs, share=1.0).chances(["p", "q"], NONE), [0.75, 0.25])
    np.testing.assert_allclose(HardExamples(runs, share=0.5).chances(["p", "q"], NONE), [0.625, 0.375])
    np.testing.assert_allclose(HardExamples(runs, share=1.0, by="error").chances(["p", "q"], NONE), [1, 0])
    np.testing.assert_allclose(HardExamples(runs, by="error").chances(["q"], NONE), [1])  # nothing is wrong: evenly
    with pytest.raises(DataError, match=r"validated x\. Add the runs of the other folds"):
        HardExamples(runs).chances(["p", "x"], NONE)


def test_repeat_factors() -> None:
    # of 16 pictures all show class 0, four class 1, one of these class 2 as well, none class 3
    shown = np.zeros((16, 4), bool)
    shown[:, 0], shown[:4, 1], shown[0, 2] = True, True, True
    factors = np.array([4.0, 2, 2, 2] + [1] * 12)  # sqrt(16), sqrt(4), 1
    np.testing.assert_allclose(RareClasses().chances(IDS, shown), factors / factors.sum())
    factors = np.array([2.0] + [1] * 15)  # only class 2 is in less than a quarter
    np.testing.assert_allclose(RareClasses(threshold=0.25).chances(IDS, shown), factors / factors.sum())
    np.testing.assert_allclose(RareClasses().chances(IDS[:2], np.zeros((2, 3), bool)), [0.5, 0.5])  # all ignored
    for threshold in (0.0, 1.1):
        with pytest.raises(ConfigError, match=r"data\.sampling\.threshold"):
            RareClasses(threshold)


def test_an_epoch_is_drawn_by_these_chances_and_repeats_itself() -> None:
    chances = np.array([0.7, 0.1, 0.1, 0.1])
    order = BatchOrder(4, 2, shuffle=True, seed=1, chances=chances)
    drawn = []
    for epoch in range(500):
        order.set_epoch(epoch)
        first = [key for batch in order for key in batch]
        assert first == [key for batch in order for key in batch]
        assert len(set(first)) == len(first)  # a picture that comes twice is augmented twice
        drawn += [index for _, index, _ in first]
    assert np.mean(np.array(drawn) == 0) == pytest.approx(0.7, abs=0.05)


def weighted(folder: Path, text: str) -> Weighted:
    path = folder / "weights.csv"
    path.write_text(text)
    return Weighted(str(path))


def test_chances_follow_the_weights_of_a_table(tmp_path: Path) -> None:
    found = weighted(tmp_path, "weight,id\n1,r\n3,p\n0,q\n").chances(["p", "q", "r"], NONE)
    np.testing.assert_allclose(found, [0.75, 0, 0.25])
    found = weighted(tmp_path, "id\np\n'=r\n").chances(["p", "q", "=r"], NONE)  # a list: the others are left out
    np.testing.assert_allclose(found, [0.5, 0, 0.5])
    order = BatchOrder(3, 1, shuffle=True, seed=0, chances=found)
    assert {index for batch in order for _, index, _ in batch} <= {0, 2}
    of_patches = weighted(tmp_path, "id,weight\np,1\nq,2\n").chances(["p", "p", "q"], NONE)
    np.testing.assert_allclose(of_patches, [0.25, 0.25, 0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,weight\np,1\nq,1\nx,1\n", "training pictures of this fold only. Found x. Remove them"),
        ("id\nx\n", "Found x. Remove them"),
        ("id,weight\np,1\n", "Found none of q. Give them weight 0"),
        ("id,weight\np,0\nq,0\n", "Found weights of 0 only"),
        ("id,weight\np,1\nq,-1\n", "Found `q` with weight `-1`"),
        ("id,weight\np,1\nq,nan\n", "Found `q` with weight `nan`"),
        ("id,weight\np,1\nq,inf\n", "Found `q` with weight `inf`"),
        ("id,weight\np,1\nq,\n", "Found `q` with weight ``"),
        ("id,weight\np,1\nq,1\np,1\n", "Found `p` the second time"),
        ("name\np\n", "a column `id`. Found 1 rows"),
        ("id\n", "a column `id`. Found 0 rows"),
    ],
)
def test_a_table_of_weights_that_does_not_fit(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        weighted(tmp_path, text).chances(["p", "q"], NONE)
    with pytest.raises(DataError, match="is missing"):
        Weighted(str(tmp_path / "nothing.csv")).chances(["p", "q"], NONE)


def test_errors(tmp_path: Path) -> None:
    for changed in ({"runs": []}, {"share": 0.0}, {"by": "luck"}):
        with pytest.raises(ConfigError, match=r"data\.sampling"):
            HardExamples(**({"runs": ["x"]} | changed))
    with pytest.raises(DataError, match="Name another run"):
        HardExamples([str(tmp_path)]).chances(["p"], NONE)
