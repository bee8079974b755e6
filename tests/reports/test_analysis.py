"""The room of analyses: numbers and agreement against what is known by hand, drawings, and the page."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import ortho_group

from hsl.reports.analysis.analysis_page import analysis_page
from hsl.reports.analysis.drawings import (
    GAP,
    LEFT,
    SIDE,
    Tile,
    attention_plot,
    heat_map,
    heat_overlay,
    stage_plot,
    thumbnail,
    tile_sheet,
)
from hsl.reports.analysis.numbers import (
    DEAD_BELOW,
    Attention,
    ClassAttention,
    Errors,
    StageActivations,
    attention_share,
    feature_similarity,
    wrong_pictures,
)

CAM = np.array([[0.6, 0.2], [0.2, 1.0]], np.float32)
WRONG = {"a": {"p", "q", "r"}, "b": {"p", "q"}, "c": {"p", "t"}}
IDS = ["p", "q", "r", "s", "t"]


def test_share_of_the_attention_and_of_the_area() -> None:
    found = attention_share(CAM, np.array([[2, 0], [0, 1]], np.uint8))
    assert found == pytest.approx((0.8, 0.5))
    even = attention_share(np.full((5, 7), 0.3), (np.arange(35).reshape(5, 7) % 3 == 0).astype(np.uint8))
    assert even is not None
    assert even.share == pytest.approx(even.area)  # a map without preference is at chance


def test_ignored_pixels_count_nowhere() -> None:
    assert attention_share(CAM, np.array([[2, 0], [0, 255]], np.uint8)) == pytest.approx((0.6, 1 / 3))


def test_nothing_to_share_out() -> None:
    assert attention_share(CAM, np.zeros((2, 2), np.uint8)) is None
    assert attention_share(np.zeros((2, 2)), np.ones((2, 2), np.uint8)) is None
    assert attention_share(CAM, np.full((2, 2), 255, np.uint8)) is None
    with pytest.raises(ValueError, match=r"size of the mask, \(2, 3\)\. Found \(2, 2\)"):
        attention_share(CAM, np.ones((2, 3), np.uint8))


def test_means_of_a_class() -> None:
    found = ClassAttention.of([Attention(0.9, 0.2), None, Attention(0.5, 0.4)])
    assert (found.num_pictures, found.left_out) == (2, 1)
    assert (found.share, found.area, found.ratio) == pytest.approx((0.7, 0.3, 0.7 / 0.3))
    assert ClassAttention.of([None]) == ClassAttention(0, 1, None, None)
    assert ClassAttention.of([]).ratio is None


def test_batches_together_are_the_whole() -> None:
    features = torch.randn(7, 5, 4, 3, generator=torch.Generator().manual_seed(0)) + 3
    features[:, 1] = 0
    features[:, 2] = DEAD_BELOW / 2
    features[:, 3] = 0
    features[6, 3, 2, 1] = -2.0  # one pixel of the last picture wakes it
    stage = StageActivations.of(features[:4]) + StageActivations.of(features[4:])
    assert stage.mean == pytest.approx(features.double().numpy().mean(), rel=1e-12)
    assert stage.std == pytest.approx(features.double().numpy().std(), rel=1e-12)
    assert (stage.num_channels, stage.num_dead, stage.dead_share) == (5, 2, 0.4)
    assert StageActivations.of(features[:4]).num_dead == 3


def test_a_constant_stage_has_no_spread() -> None:
    stage = StageActivations.of(torch.full((2, 3, 1, 1), 0.1))
    assert stage.std == pytest.approx(0, abs=1e-8)
    assert stage.num_dead == 0


def normals(seed: int, pictures: int, size: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(pictures, size))


def hsic(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The U-statistic by its definition: a mean over all ordered choices of four pictures."""
    k, m = first @ first.T, second @ second.T
    chosen = itertools.permutations(range(len(first)), 4)
    return float(np.mean([k[a, b] * (m[a, b] + m[c, d] - 2 * m[a, c]) for a, b, c, d in chosen]))


def test_against_the_sum_over_all_choices_of_four_pictures() -> None:
    features = [normals(0, 8, 3), normals(1, 8, 5), normals(0, 8, 3) ** 2]
    crossed = np.array([[hsic(a, b) for b in features] for a in features])
    own = np.diag(crossed)
    assert feature_similarity(features) == pytest.approx(crossed / np.sqrt(np.outer(own, own)))


def test_rotation_shift_and_scale_change_nothing() -> None:
    first, second = normals(0, 30, 6), normals(1, 30, 4)
    turned = 1e6 * first @ ortho_group.rvs(6, random_state=0) + 5
    found = feature_similarity([first, turned, second])
    assert found[0, 1] == pytest.approx(1)
    assert found[1, 2] == pytest.approx(found[0, 2])
    assert found == pytest.approx(found.T)


def test_unrelated_features_are_unlike_though_they_outnumber_the_pictures() -> None:
    found = [feature_similarity([normals(i, 20, 500), normals(100 + i, 20, 500)])[0, 1] for i in range(50)]
    assert abs(np.mean(found)) < 0.03  # the plain estimate is above 0.9 here
    assert np.max(np.abs(found)) < 0.3


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_too_few_pictures_give_none(pictures: int) -> None:
    assert np.isnan(feature_similarity([normals(0, pictures, 4), normals(1, pictures, 4)])).all()


def test_a_model_that_gives_the_same_for_every_picture_is_like_none() -> None:
    found = feature_similarity([np.ones((6, 3)), normals(0, 6, 3)])
    assert np.isnan(found[0]).all()
    assert np.isnan(found[:, 0]).all()
    assert found[1, 1] == pytest.approx(1)


def errors() -> Errors:
    return Errors(IDS, list(WRONG), np.array([[name in wrong for name in IDS] for wrong in WRONG.values()]))


def test_pictures_that_all_or_only_one_get_wrong() -> None:
    assert errors().wrong_in_all == ["p"]
    assert errors().wrong_in_one == {"a": ["r"], "b": [], "c": ["t"]}
    assert errors().num_wrong.tolist() == [3, 2, 1, 0, 1]


def test_overlap_is_the_jaccard_index_of_the_sets() -> None:
    expected = [[len(one & other) / len(one | other) for other in WRONG.values()] for one in WRONG.values()]
    assert errors().overlap == pytest.approx(np.array(expected))


def test_models_without_errors_have_no_overlap() -> None:
    found = Errors(["p", "q"], ["a", "b"], np.array([[False, False], [True, False]]))
    assert np.isnan(found.overlap[0, 0])
    assert found.overlap[1].tolist() == [0, 1]
    assert found.wrong_in_all == []
    assert found.wrong_in_one == {"a": [], "b": ["p"]}


def test_wrong_is_any_known_class_predicted_otherwise() -> None:
    single = np.eye(3)[[0, 1, 2]]
    assert wrong_pictures(single, np.eye(3, dtype=bool)[[0, 2, 2]]).tolist() == [False, True, False]
    several = np.array([[1, 0, np.nan], [1, 1, 0], [np.nan, np.nan, np.nan], [0, 0, 0]])
    predicted = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=bool)
    assert wrong_pictures(several, predicted).tolist() == [False, True, False, False]


def drawn(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_heat_covers_the_picture_where_the_model_looks() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    cam = np.zeros((4, 6))
    cam[:, 3:] = 1
    shown = heat_overlay(image, cam).astype(int)
    assert shown.shape == image.shape
    assert (shown[:, :20] == 100).all()  # grey stays grey, and clear where the heat is 0
    assert (np.abs(shown[:, 40:] - 100).sum(-1) > 100).all()


def test_a_heat_map_gets_brighter_and_keeps_its_shape() -> None:
    ramp = heat_map(np.linspace(0, 1, 12)[None].repeat(6, 0))
    assert ramp.shape == (SIDE // 2, SIDE, 3)
    light = ramp[SIDE // 4].astype(int).sum(1)
    assert light[0] < 30
    assert light[-1] > 500
    assert np.all(np.diff(light[:: SIDE // 6]) > 0)


def test_a_sheet_has_a_place_for_each_tile(tmp_path: Path) -> None:
    red, wide = np.zeros((9, 9, 3), np.uint8), np.zeros((5, 50, 3), np.uint8)
    red[..., 0], wide[..., 1] = 255, 255
    rows = [("rust", [Tile(red, ["p1", "0.90"]), Tile(thumbnail(wide))]), ("a very long name " * 5, [Tile(None)])]
    tile_sheet(tmp_path / "new" / "sheet.png", "title", ["mean", "example"], rows)
    sheet = drawn(tmp_path / "new" / "sheet.png")
    left = GAP + LEFT
    assert ((sheet[:, left : left + SIDE] == [255, 0, 0]).all(-1)).sum() == SIDE * SIDE
    assert ((sheet[:, left + SIDE + GAP :] == [0, 255, 0]).all(-1)).sum() >= SIDE * (SIDE // 10)
    tile_sheet(tmp_path / "plain.png", "title", [""], [("", [Tile(red)])], heat_scale=False)
    assert (drawn(tmp_path / "plain.png")[100:, GAP : GAP + SIDE] == [255, 0, 0]).all(-1).any()


def test_plots_with_gaps(tmp_path: Path) -> None:
    runs = {f"run {i}": {"rust": ClassAttention(3, 0, 0.1 * i, 0.3), "none": ClassAttention(0, 2, None, None)}
            for i in range(1, 10)}  # fmt: skip
    attention_plot(tmp_path / "attention.png", runs)
    live, dead = StageActivations.of(torch.randn(2, 3, 4, 4)), StageActivations.of(torch.zeros(2, 3, 4, 4))
    stage_plot(tmp_path / "stages.png", {"a": {2: live, 4: dead}, "b": {4: live}})
    for name in ("attention", "stages"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 0


def test_a_page_without_masks_and_errors_says_so() -> None:
    run = {"label": "a|b", "encoder": "mit_b0", "run": "outputs/a", "num_wrong": 0, "error_rate": 0.0,
           "heat_maps": "heat.png", "attention": None, "stages": {"4": {
               "num_channels": 8, "mean": 0.125, "std": None, "num_dead": 2, "dead_share": 0.25}}}  # fmt: skip
    text = analysis_page({
        "data": "leaves", "part": "val", "fold": 0, "num_pictures": 3, "classes": {"rust": 3}, "notes": ["no masks"],
        "runs": [run], "files": {"overview": "o.png", "stages_plot": "s.png"}, "definitions": {"wrong": "is wrong"},
        "errors": {"wrong_in_all": [], "wrong_in_one": {"a|b": []}, "overlap": [[None]]},
        "feature_similarity": [[0.25]],
    })  # fmt: skip
    assert "Note: no masks" in text
    assert "Left out: no picture" in text
    assert "| a\\|b | 4 | 8 | 0.125 | – | 2 | 25.0 % |" in text
    assert "Wrong in every run: none." in text
    assert "| a\\|b | – |" in text
    assert "| a\\|b | 0.25 |" in text
