import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hsl.data.audit.audit import audit
from hsl.data.datamodule import DataModule
from hsl.data.files.decoding import Picture
from hsl.data.files.records import Catalogue
from hsl.data.formats.folder import read_folder
from hsl.data.loading.transforms import training_transform
from hsl.data.patches.patch_sampling import PatchSampling, cut
from hsl.data.splits.folds import kfold
from hsl.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

SIZE, DISTANCE = 16, 10.0
NOTHING: dict[str, Any] = dict.fromkeys(("flips", "rot90", "resized_crop", "rotation", "colour", "blur"))


def sampling(**changed: Any) -> PatchSampling:
    given: dict[str, Any] = {
        "size": SIZE,
        "min_distance": DISTANCE,
        "foreground": ["crack"],
        "renew": "epoch",
        "max_per_picture": None,
    }
    return PatchSampling(**(given | changed))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve pictures in six groups, one of them smaller than a patch. The image tells the mask."""
    folder = tmp_path / "data"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows = ["id,group"]
    for number in range(12):
        height, width = (9, 30) if number == 5 else (50 + number, 62 - number)
        mask = np.zeros((height, width), np.uint8)
        mask[: 20 + number, 2:40] = 1
        mask[:3] = 255
        image = np.random.default_rng(number).integers(0, 200, (height, width, 3), dtype=np.uint8)
        image[..., 2] = mask
        cv2.imwrite(str(folder / f"images/p{number:02}.png"), image)
        cv2.imwrite(str(folder / f"masks/p{number:02}.png"), mask)
        rows.append(f"p{number:02},g{number // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "dataset.yaml").write_text("classes: [clean, crack]\n")
    return folder


@pytest.fixture
def make(root: Path) -> Callable[..., DataModule]:
    def make(patches: PatchSampling | None, **changed: Any) -> DataModule:
        split = partial(
            kfold, num_folds=2, groups="group", stratify=None, test_from="fraction", test_fraction=0.2, seed=0
        )
        given: dict[str, Any] = {
            "root": root,
            "reader": read_folder,
            "split": split,
            "fold": 0,
            "image_size": SIZE,
            "batch_size": 2,
            "num_workers": 0,
            "cache": "ram",
            "cache_gigabytes": 1.0,
            "cache_dir": None,
            "audit": partial(audit, near_duplicates="off"),
            "augmentation": partial(training_transform, **NOTHING),
            "normalization": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
            "seed": 3,
            "patches": patches,
        }
        data = DataModule(**(given | changed))
        data.prepare()
        return data

    return make


def epoch(data: DataModule, number: int) -> list[Any]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def names(batches: list[Any]) -> list[str]:
    return [name for batch in batches for name in batch["id"]]


def test_training_patches_lie_in_training_pictures_only(make: Callable[..., DataModule]) -> None:
    for fold in (0, 1):
        data = make(sampling(), fold=fold)
        sources = {name.split("@")[0] for name in names(epoch(data, 0))}
        assert sources <= set(data.prepared.parts["train"])
        assert len(sources) > 2
        others = {*data.prepared.parts["val"], *data.prepared.parts["test"]}
        assert not sources & others
        assert not {data.prepared.group(name) for name in sources} & {data.prepared.group(name) for name in others}


def test_a_patch_is_what_its_name_says(make: Callable[..., DataModule], root: Path) -> None:
    data = make(sampling())
    for batch in epoch(data, 0):
        assert batch["image"].shape == (2, 3, SIZE, SIZE)
        for name, image, mask in zip(batch["id"], batch["image"], batch["masks"]["segmentation"], strict=True):
            source, corner = name.split("@")
            y, x = map(int, corner.split(","))
            whole = cv2.imread(str(root / f"masks/{source}.png"), cv2.IMREAD_UNCHANGED)
            part = whole[y : y + SIZE, x : x + SIZE]
            np.testing.assert_array_equal(mask[: part.shape[0], : part.shape[1]], part)
            assert (mask[part.shape[0] :] == 255).all()
            inside = mask != 255
            assert torch.equal(image[0][inside], mask[inside]), "the image is cut at the same place"
            assert (part == 1).any()


def test_evaluation_sees_whole_pictures(make: Callable[..., DataModule]) -> None:
    for part in ("train", "val", "test"):
        loaders = [make(patches).part_dataloader(part) for patches in (None, sampling())]
        for one, two in zip(*loaders, strict=True):
            assert one["id"] == two["id"]
            assert torch.equal(one["image"], two["image"])
            assert torch.equal(one["size"], two["size"])


def test_epochs_differ_but_not_in_length(make: Callable[..., DataModule]) -> None:
    data = make(sampling(), batch_size=1)
    first, second, third = (names(epoch(data, number)) for number in range(3))
    assert len(first) == len(second) == len(third) == len(data.train_dataloader())
    assert len(set(first)) == len(first), "the first epoch has every patch once"
    assert set(first) != set(second) != set(third)
    for later in (second, third):
        count = {source: sum(name.startswith(source) for name in first) for source in data.prepared.parts["train"]}
        assert count == {
            source: sum(name.startswith(source) for name in later) for source in data.prepared.parts["train"]
        }
    assert names(epoch(data, 1)) == second, "an epoch follows from its number"


def test_fixed_patches(make: Callable[..., DataModule]) -> None:
    data = make(sampling(renew="fixed"), batch_size=1)
    first, second = (names(epoch(data, number)) for number in (0, 1))
    assert sorted(first) == sorted(second)
    assert first != second
    assert sorted(first) == sorted(names(epoch(make(sampling(), batch_size=1), 0)))


@pytest.mark.parametrize("renew", ["epoch", "fixed"])
def test_workers_change_nothing(make: Callable[..., DataModule], renew: str) -> None:
    several = [make(sampling(renew=renew), num_workers=number).train_dataloader() for number in (0, 1, 2)]
    for number in range(2):
        for loader in several:
            loader.sampler.set_epoch(number)
        for one, *others in zip(*several, strict=True):
            for other in others:
                assert one["id"] == other["id"]
                assert torch.equal(one["image"], other["image"])
                assert torch.equal(one["masks"]["segmentation"], other["masks"]["segmentation"])


def test_goes_on_within_an_epoch(make: Callable[..., DataModule]) -> None:
    whole = names(epoch(make(sampling()), 1))
    loader = make(sampling()).train_dataloader()
    state = {"epoch": 1, "batches": 3, **loader.state_dict()} | {"epoch": 1, "batches": 3}
    loader.load_state_dict(state)
    loader.sampler.set_epoch(1)
    assert names(list(loader)) == whole[6:]
    with pytest.raises(ConfigError, match="num_pictures"):
        make(sampling(min_distance=30)).train_dataloader().load_state_dict(state)


def test_pictures_without_foreground_are_named(
    make: Callable[..., DataModule], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = make(None).prepared.parts["train"]
    empty = train[1]
    shape = cv2.imread(str(root / f"masks/{empty}.png"), cv2.IMREAD_UNCHANGED).shape
    cv2.imwrite(str(root / f"masks/{empty}.png"), np.zeros(shape, np.uint8))
    with caplog.at_level(logging.WARNING):
        batches = epoch(make(sampling()), 0)
    assert f"Training pictures without the classes ['crack'] give no patch: {empty}." in caplog.text
    assert empty not in {name.split("@")[0] for name in names(batches)}
    for name in train:
        shape = cv2.imread(str(root / f"masks/{name}.png"), cv2.IMREAD_UNCHANGED).shape
        cv2.imwrite(str(root / f"masks/{name}.png"), np.zeros(shape, np.uint8))
    data = make(sampling(), audit=partial(audit, near_duplicates="off", missing_classes="warn"))
    with pytest.raises(DataError, match=rf"should show the classes \['crack'\].*None of {len(train)} does"):
        data.train_dataloader()


def test_at_most_so_many_per_picture(make: Callable[..., DataModule]) -> None:
    some = names(epoch(make(sampling(max_per_picture=2), batch_size=1), 0))
    sources = [name.split("@")[0] for name in some]
    assert max(sources.count(source) for source in sources) == 2
    assert set(some) < set(names(epoch(make(sampling(), batch_size=1), 0)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 0}, r"`data\.patches\.size` should be at least 1\. Found `data\.patches\.size = 0`"),
        ({"min_distance": 0.5}, r"`data\.patches\.min_distance` should be at least 1"),
        ({"foreground": []}, r"`data\.patches\.foreground` should be null or name a class"),
        ({"renew": "always"}, r"`data\.patches\.renew` should be epoch or fixed"),
        ({"max_per_picture": 0}, r"`data\.patches\.max_per_picture` should be null or at least 1"),
    ],
)
def test_wrong_settings(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sampling(**changed)


def test_unknown_class(make: Callable[..., DataModule]) -> None:
    with pytest.raises(ConfigError, match=r"Found \['unicorn'\]\. Choose from \['clean', 'crack'\]"):
        make(sampling(foreground=["unicorn"]))


def test_foreground_of_all_classes_leaves_ignored_pixels_out() -> None:
    data = Catalogue("tiles", (), ("clean", "crack"))
    table = sampling(foreground=None).foreground_table(data)
    assert np.flatnonzero(table).tolist() == [0, 1]
    assert np.flatnonzero(sampling().foreground_table(data)).tolist() == [1]


def test_foreground_of_overlapping_channels_is_every_code_that_shows_one() -> None:
    data = Catalogue("leaves", (), ("absent", "leaf", "spot"), overlapping=True)

    def codes(foreground: list[str] | None) -> list[int]:
        return np.flatnonzero(sampling(foreground=foreground).foreground_table(data)).tolist()

    assert codes(None) == [0, 1, 2, 3]
    assert codes(["spot"]) == [2, 3]
    assert codes(["absent", "leaf"]) == [0, 1, 3]


def test_drawn_corners() -> None:
    foreground = np.ones((40, 70), bool)
    centres, corners = sampling().draw(foreground, "p", 0)
    assert (corners >= 0).all()
    assert (corners + SIZE <= foreground.shape).all()
    assert ((centres >= corners) & (centres < corners + SIZE)).all(), "a patch holds its centre"
    assert len(np.unique(corners, axis=0)) == len(corners)
    assert not np.array_equal(sampling().draw(foreground, "q", 0)[0][:5], centres[:5])
    assert not np.array_equal(sampling().draw(foreground, "p", 1)[0][:5], centres[:5])


def test_picture_smaller_than_a_patch_gives_one() -> None:
    centres, corners = sampling(min_distance=2).draw(np.ones((10, 12), bool), "p", 0)
    assert corners.tolist() == [[0, 0]]
    assert len(centres) == 1


def test_no_foreground_no_patch() -> None:
    centres, corners = sampling().draw(np.zeros((10, 12), bool), "p", 0)
    assert centres.shape == corners.shape == (0, 2)


@pytest.mark.parametrize("shape", [(10, 12), (1, 1), (1, 40), (3, 16)])
def test_cut_mirrors_the_picture_and_ignores_what_is_outside(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    patch = cut(Picture(image, image[..., 0] % 3), 0, 0, SIZE)
    assert patch.image.shape == (SIZE, SIZE, 3)
    expected = image[_mirrored(shape[0])][:, _mirrored(shape[1])]
    np.testing.assert_array_equal(patch.image, expected)
    assert patch.mask is not None
    height, width = min(shape[0], SIZE), min(shape[1], SIZE)
    np.testing.assert_array_equal(patch.mask[:height, :width], image[:height, :width, 0] % 3)
    assert (patch.mask == 255).sum() == SIZE * SIZE - height * width


def _mirrored(length: int) -> NDArray[np.int64]:
    period = np.array([*range(length), *range(length - 2, 0, -1)])
    return np.resize(period, SIZE)
