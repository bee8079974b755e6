import itertools
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from hsl.batch import IGNORE_INDEX, Batch
from hsl.data.loading.resizing import resize
from hsl.data.loading.transforms import EvaluationTransform, TrainingTransform, normalized, training_transform
from hsl.errors import ConfigError

CONF = Path(__file__).parents[3] / "conf/augmentation"
OFF: dict[str, Any] = dict.fromkeys(("flips", "rot90", "resized_crop", "rotation", "colour", "blur"))
ALL: dict[str, Any] = {
    "flips": {"horizontal": 0.5, "vertical": 0.5},
    "rot90": {"probability": 0.5},
    "resized_crop": {"scale": (0.5, 1.0), "ratio": (0.75, 1.25)},
    "rotation": {"degrees": 20, "fill": 0, "probability": 0.7},
    "colour": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05, "probability": 0.7},
    "blur": {"sigma": (0.5, 2.0), "probability": 0.5},
}


def make(size: tuple[int, int] = (32, 32), **parts: Any) -> TrainingTransform:
    return training_transform(size, **(OFF | parts))


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (48, 32, 3), dtype=np.uint8)


@pytest.fixture
def mask() -> NDArray[np.uint8]:
    """Four blocks of classes 0 to 3."""
    mask = np.zeros((48, 32), np.uint8)
    mask[:, 16:] = 1
    mask[24:] += 2
    return mask


def test_result_follows_from_the_key_alone(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    transform = make(**ALL)
    first = [transform(image, {"a": mask}, (0, 0, index)) for index in range(8)]
    for index in reversed(range(8)):
        again, masks = make(**ALL)(image, {"a": mask}, (0, 0, index))
        np.testing.assert_array_equal(again, first[index][0])
        np.testing.assert_array_equal(masks["a"], first[index][1]["a"])
    pictures = {picture.tobytes() for picture, _ in first}
    assert len(pictures) == 8
    assert transform(image, {"a": mask}, (0, 1, 0))[0].tobytes() not in pictures
    assert transform(image, {"a": mask}, (1, 0, 0))[0].tobytes() not in pictures


def test_parts_draw_independently() -> None:
    """With one seed for each part, both flips would always come together."""
    corner = np.zeros((4, 4, 3), np.uint8)
    corner[0, 0] = 255
    transform = make((4, 4), flips={"horizontal": 0.5, "vertical": 0.5})
    where = [int(transform(corner, {}, (0, 0, i))[0][..., 0].argmax()) for i in range(800)]
    counts = [where.count(place) for place in (0, 3, 12, 15)]
    assert sum(counts) == 800
    assert min(counts) > 200 - 4 * np.sqrt(800 * 0.25 * 0.75)  # four standard deviations


def test_nothing_on_is_resizing(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    out, masks = make((24, 16))(image, {"a": mask}, (0, 0, 0))
    np.testing.assert_array_equal(out, resize(image, (24, 16)))
    np.testing.assert_array_equal(masks["a"], mask[::2, ::2])


@pytest.mark.parametrize(("horizontal", "vertical"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_flips(image: NDArray[np.uint8], mask: NDArray[np.uint8], horizontal: float, vertical: float) -> None:
    transform = make((48, 32), flips={"horizontal": horizontal, "vertical": vertical})
    out, masks = transform(image, {"a": mask}, (0, 0, 0))
    step = (slice(None, None, -1 if vertical else 1), slice(None, None, -1 if horizontal else 1))
    np.testing.assert_array_equal(out, image[step])
    np.testing.assert_array_equal(masks["a"], mask[step])


@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_rot90_gives_all_four_turns(image: NDArray[np.uint8], mask: NDArray[np.uint8], size: tuple[int, int]) -> None:
    if size == (32, 32):
        image, mask = image[:32], mask[:32]
    transform = make(size, rot90={"probability": 1.0})
    found = set()
    for index in range(40):
        out, masks = transform(image, {"a": mask}, (0, 0, index))
        assert out.shape == (*size, 3)
        for turns in range(4):
            expected = resize(np.rot90(image, turns).copy(), size)
            if np.array_equal(out, expected):
                found.add(turns)
                turned = resize(np.rot90(mask, turns)[..., None].repeat(3, 2).copy(), size)[..., 0]
                assert (masks["a"] == turned).mean() > 0.9
    assert found == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [(96, 96), (72, 128)])
def test_masks_move_with_the_picture(size: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    mask = np.repeat(np.repeat(random.integers(0, 4, (6, 4), dtype=np.uint8), 20, 0), 20, 1)
    image = np.repeat((60 + mask * 60)[..., None], 3, 2).astype(np.uint8)
    transform = make(size, **(ALL | {"colour": None, "blur": None}))
    shares = []
    for index in range(30):
        out, masks = transform(image, {"a": mask, "b": 3 - mask}, (0, 0, index))
        assert out.shape == (*size, 3)
        assert masks["a"].shape == masks["b"].shape == size
        valid = masks["a"] != IGNORE_INDEX
        assert set(np.unique(masks["a"][valid])) <= {0, 1, 2, 3}
        np.testing.assert_array_equal(masks["b"][valid], 3 - masks["a"][valid])
        np.testing.assert_array_equal(masks["b"] == IGNORE_INDEX, ~valid)
        same = np.abs(out[..., 0].astype(int) - (60 + masks["a"].astype(int) * 60)) < 31
        shares.append(same[valid].mean())
    assert min(shares) > 0.94  # all but pixels on the borders of the blocks


def test_rotation_ignores_what_comes_from_outside() -> None:
    image, mask = np.full((101, 101, 3), 200, np.uint8), np.ones((101, 101), np.uint8)
    transform = make((101, 101), rotation={"degrees": 45, "fill": 9, "probability": 1.0})
    shares = []
    for index in range(60):
        out, masks = transform(image, {"a": mask}, (0, 0, index))
        outside = masks["a"] == IGNORE_INDEX
        assert (masks["a"][~outside] == 1).all()
        assert (out[~outside] > 100).all()
        assert ((out == 9).all(2) == outside).mean() > 0.97  # all but the edge, which is blended
        shares.append(outside.mean())
    # at 45 degrees a square loses 2 (3 - 2 sqrt 2) / 2 = 17.2 % of its area
    assert 0.14 < max(shares) < 0.175
    assert min(shares) < 0.05


def test_resized_crop_keeps_to_its_ranges() -> None:
    """Coordinates as colours tell which window was cut out."""
    height, width = 200, 100
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(height)[:, None], np.arange(width)
    transform = make((256, 256), resized_crop={"scale": (0.25, 0.5), "ratio": (0.5, 2.0)})
    areas, stretches, tops = [], [], []
    for index in range(300):
        out = transform(image, {}, (0, 0, index))[0].astype(float)
        crop_height, crop_width = (float(np.ptp(out[..., channel])) + 1 for channel in (0, 1))
        areas.append(crop_height * crop_width / (height * width))
        stretches.append(crop_width / crop_height * height / width)
        tops.append(out[..., 0].min())
    assert 0.24 < min(areas) < 0.27
    assert 0.47 < max(areas) < 0.51
    assert 0.48 < min(stretches) < 0.55
    assert 1.8 < max(stretches) < 2.1
    assert np.median(stretches) == pytest.approx(1, abs=0.15)
    assert min(tops) < 5
    assert max(tops) > 95


def test_a_crop_with_a_probability_else_takes_the_whole_picture(image: NDArray[np.uint8]) -> None:
    cut = {"scale": (0.2, 0.5), "ratio": (1.0, 1.0)}
    for probability, low, high in ((0.0, 1, 1), (0.3, 0.64, 0.76), (1.0, 0, 0)):
        transform = make((48, 32), resized_crop=cut | {"probability": probability})
        whole = [np.array_equal(transform(image, {}, (0, 0, index))[0], image) for index in range(400)]
        assert low <= np.mean(whole) <= high


def test_colour_and_blur_leave_masks_alone(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    colour = ALL["colour"] | {"probability": 1.0}
    blur = {"sigma": (1.5, 1.5), "probability": 1.0}
    recoloured, masks = make((48, 32), colour=colour)(image, {"a": mask}, (0, 0, 0))
    assert (recoloured != image).any()
    np.testing.assert_array_equal(masks["a"], mask)
    blurred, masks = make((48, 32), blur=blur)(image, {"a": mask}, (0, 0, 0))
    assert np.diff(blurred.astype(float), axis=0).std() < np.diff(image.astype(float), axis=0).std() / 3
    np.testing.assert_array_equal(masks["a"], mask)


def test_the_window_of_the_blur_has_the_side_asked_for() -> None:
    point = np.zeros((48, 32, 3), np.uint8)
    point[24, 16] = 255
    for kernel in (3, 5):
        blur = {"sigma": (2, 2), "probability": 1.0, "kernel": kernel}
        blurred, _ = make((48, 32), blur=blur)(point, {}, (0,))
        np.testing.assert_allclose(blurred.astype(int), cv2.GaussianBlur(point, (kernel, kernel), 2), atol=1)
    follows, _ = make((48, 32), blur=blur | {"kernel": None})(point, {}, (0,))
    assert np.count_nonzero(follows) > np.count_nonzero(blurred) == 5 * 5 * 3


@pytest.mark.parametrize("off", [None, False])
@pytest.mark.parametrize("name", OFF)
def test_null_and_false_turn_a_part_off(image: NDArray[np.uint8], name: str, off: Any) -> None:
    transform = make((48, 32), **{name: off})
    for index in range(5):
        np.testing.assert_array_equal(transform(image, {}, (0, 0, index))[0], image)


@pytest.mark.parametrize("off", [None, False])
def test_one_flip_alone(image: NDArray[np.uint8], off: Any) -> None:
    sideways, upside_down = (
        make((48, 32), flips={"horizontal": a, "vertical": b})(image, {}, (0, 0, 0))[0] for a, b in [(1, off), (off, 1)]
    )
    np.testing.assert_array_equal(sideways, image[:, ::-1])
    np.testing.assert_array_equal(upside_down, image[::-1])


@pytest.mark.parametrize("off", [None, False])
def test_light_without_colour_and_colour_without_light(image: NDArray[np.uint8], off: Any) -> None:
    """Saturation and hue mean nothing to a grey picture; brightness and contrast keep it grey."""
    grey = image[..., :1].repeat(3, 2)
    no_light, no_colour = {"brightness": off, "contrast": off}, {"saturation": off, "hue": off}
    sure = ALL["colour"] | {"probability": 1.0}
    coloured, lit = (make((48, 32), colour=sure | some) for some in (no_light, no_colour))
    unchanged = make((48, 32), colour=sure | no_light | no_colour)
    for index in range(5):
        assert np.abs(coloured(grey, {}, (0, 0, index))[0].astype(int) - grey).max() <= 1  # rounded
        assert (coloured(image, {}, (0, 0, index))[0] != image).any()
        assert (lit(grey, {}, (0, 0, index))[0] != grey).any()
        np.testing.assert_array_equal(unchanged(image, {}, (0, 0, index))[0], image)


def test_evaluation_resizes_the_picture_only(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    out, masks = EvaluationTransform((10, 20))(image, {"a": mask}, (0, 0, 0))
    assert out.shape == (10, 20, 3)
    assert masks["a"] is mask


def test_resize_averages_what_shrinks_and_interpolates_what_grows() -> None:
    image = np.array([[0, 100, 200, 50]] * 2, np.uint8)[..., None].repeat(3, 2)
    assert resize(image, (2, 2))[0, :, 0].tolist() == [50, 125]
    assert resize(image, (4, 2))[:, :, 0].tolist() == [[50, 125]] * 4
    assert resize(image[:, :2], (2, 4))[0, :, 0].tolist() == [0, 25, 75, 100]
    np.testing.assert_array_equal(resize(image, (2, 4)), image)


def test_cached_pictures_are_not_written(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    """Every part accepts arrays that refuse to be written, as those of the cache do."""
    image.flags.writeable = mask.flags.writeable = False
    sure = {name: part | {"probability": 1.0} if "probability" in part else part for name, part in ALL.items()}
    for size in ((48, 32), (32, 32)):
        transform = make(size, **(sure | {"flips": {"horizontal": 1.0, "vertical": 1.0}}))
        for index in range(10):
            transform(image, {"a": mask}, (0, 0, index))
        for name, part in sure.items():
            make(size, **{name: part})(image, {"a": mask}, (0, 0, 0))


def test_normalized() -> None:
    batch: Batch = {
        "id": ["a"],
        "image": torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1),
        "size": torch.tensor([[1, 1]]),
        "masks": {"s": torch.tensor([[[255]]], dtype=torch.uint8)},
    }
    mean = torch.tensor([0.5, 0.1, 0.5]).reshape(3, 1, 1)
    std = torch.tensor([0.25, 0.5, 0.1]).reshape(3, 1, 1)
    result = normalized(batch, mean, std)
    torch.testing.assert_close(result["image"].flatten(), torch.tensor([-2.0, 0.2, 5.0]))
    assert result["masks"]["s"].dtype == torch.int64
    assert result["masks"]["s"].item() == 255
    assert batch["image"].dtype == torch.uint8
    assert "masks" not in normalized({"id": [], "image": batch["image"], "size": batch["size"]}, mean, std)
    travelling = {"hv": torch.zeros(1, 1, 1), "reconstruction": torch.empty(1, 0)}
    targets = normalized(batch | {"targets": travelling}, mean, std)["targets"]  # type: ignore[typeddict-item]
    torch.testing.assert_close(targets["reconstruction"].flatten(), torch.tensor([0, 0.2, 1]))
    assert normalized(batch | {"targets": {"hv": travelling["hv"]}}, mean, std)["targets"].keys() == {"hv"}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("flips", {"horizontal": 2.0, "vertical": 0.5}, r"`augmentation\.flips = .*horizontal.*2\.0"),
        ("flips", {"sideways": 1.0}, r"sideways.*augmentation\.flips=null"),
        ("rot90", {"probability": -1}, r"`augmentation\.rot90 = "),
        ("resized_crop", {"scale": [0.5, 1.5], "ratio": [1, 1]}, r"`scale` should be a range within \(0, 1"),
        ("resized_crop", {"scale": [0.5, 1.0], "ratio": [2, 1]}, r"`ratio` should be a range above 0"),
        (
            "resized_crop",
            {"scale": [0.5, 1], "ratio": [1, 1], "probability": 2},
            r"`probability` should be in \[0, 1\]",
        ),
        ("blur", {"sigma": [-1, 2], "probability": 0.5}, r"`augmentation\.blur = "),
        (
            "blur",
            {"sigma": [0.1, 1], "probability": 0.5, "kernel": 4},
            r"odd number of at least 3, or null.*kernel = 4",
        ),
        ("colour", {"brightness": 0.1}, r"missing 4 required"),
        ("blur", True, r"`augmentation\.blur = True` cannot be built.*augmentation\.blur=null"),
    ],
)
def test_wrong_parts(name: str, part: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**{name: part})


@pytest.mark.parametrize("option", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_options(option: str, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    """Every option builds, as it is and with each of its parts turned off."""
    config = OmegaConf.load(CONF / f"{option}.yaml")
    for name, off in ((None, None), *itertools.product(OFF, (None, False))):
        changed = config.copy()
        if name is not None:
            changed[name] = off
        transform = hydra.utils.instantiate(changed)(image_size=(16, 16))
        out, masks = transform(image, {"a": mask}, (0, 0, 0))
        assert out.shape == (16, 16, 3)
        assert masks["a"].shape == (16, 16)


def test_option_none_changes_nothing(image: NDArray[np.uint8]) -> None:
    transform: partial[TrainingTransform] = hydra.utils.instantiate(OmegaConf.load(CONF / "none.yaml"))
    for index in range(5):
        np.testing.assert_array_equal(transform(image_size=(48, 32))(image, {}, (0, 0, index))[0], image)
