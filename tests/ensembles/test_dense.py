"""Pixels are sampled, fitted on without their image's part, and counted over whole maps."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from hsl.ensembles import dense
from hsl.ensembles.dense import (
    ImageMaps,
    affordable_pixels,
    combine_maps,
    confusion,
    miou_of,
    pixel_rows,
    run_dense,
    sample_pixels,
)
from hsl.ensembles.isolation import check_sides, judged
from hsl.ensembles.nested import Fit, meta_folds, run_nested
from hsl.ensembles.segmentation_vote import segmentation_vote
from hsl.ensembles.stacking import stacking
from hsl.ensembles.votes import votes

CLASSES, MEMBERS = ("ground", "crack", "hole"), ("a", "b", "c")
FITS: dict[str, Fit] = {
    **votes(), **segmentation_vote(), "stacking/logistic": stacking()["stacking/logistic"],
}  # fmt: skip


def image(number: int, skills: tuple[float, ...] = (2, 1, -1), size: int = 24) -> ImageMaps:
    generator = np.random.default_rng(number)
    mask = np.zeros((size, size), np.uint8)
    mask[4 : 8 + number, 4:14], mask[14:20, 15:20], mask[:2] = 1, 2, 255
    truth = np.moveaxis(np.eye(3)[np.where(mask == 255, 0, mask)], 2, 0)
    logits = np.stack([skill * 2 * truth + generator.normal(size=truth.shape) for skill in skills])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    foreground = np.clip(np.array(skills) / 3, 0, 1)
    maps = np.round(255 * p).astype(np.uint8)
    return ImageMaps(f"i{number}", f"g{number // 2}", f"c{number}", number % 3, mask, maps, foreground)


def images(num: int = 8) -> Iterator[ImageMaps]:
    return (image(number) for number in range(num))


def test_pixels_are_sampled_by_their_class_and_the_id_of_their_image() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:10], mask[50, :50], mask[60, 0] = 255, 1, 2
    index = sample_pixels(mask, "x", 500)
    labels = mask.ravel()[index]
    assert len(index) <= 500
    assert np.bincount(labels).tolist() == [497, 2, 1]
    assert sorted(set(index.tolist())) == index.tolist()
    np.testing.assert_array_equal(index, sample_pixels(mask, "x", 500))
    assert (sample_pixels(mask, "y", 500) != index).any()
    assert len(sample_pixels(mask, "x", 10**6)) == 9000
    assert len(sample_pixels(np.full((4, 4), 255, np.uint8), "x", 9)) == 0
    assert [affordable_pixels(num) for num in (1, 100, 1000, 10**6)] == [2000, 2000, 200, 1]


def test_rows_of_pixels_are_those_of_the_maps() -> None:
    rows = pixel_rows(images(3), MEMBERS, CLASSES, 60)
    assert {name.rpartition("@")[0] for name in rows.ids} == {"i0", "i1", "i2"}
    row = len(rows.ids) // 2
    owner, _, index = rows.ids[row].rpartition("@")
    source = image(int(owner[1:]))
    assert rows.labels[row] == source.mask.ravel()[int(index)]
    values = source.maps.reshape(3, 3, -1)[:, :, int(index)] / 255
    np.testing.assert_allclose(rows.probabilities[:, row], values / values.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(rows.foreground[:, row], source.foreground)
    assert (rows.groups[row], rows.contents[row], rows.folds[row]) == (source.group, source.content, source.fold)


@pytest.mark.parametrize("name", FITS)
def test_counts_are_those_of_each_image_by_the_fit_without_its_part(name: str) -> None:
    rows = pixel_rows(images(), MEMBERS, CLASSES, 200)
    parts = meta_folds(rows, 2)
    result = run_dense(name, FITS[name], rows, parts, images())
    pixels = run_nested(name, FITS[name], rows, parts)
    assert result.choices == pixels.choices
    assert result.ids == tuple(f"i{number}" for number in range(8))
    judged(
        check_sides(
            name, result.trails, {f"i{i}": f"g{i // 2}" for i in range(8)}, {f"i{i}": f"i{i}" for i in range(8)}
        )
    )
    part = dict(zip(rows.groups, parts.tolist(), strict=True))["g1"]
    source = image(3)
    by_hand = combine_maps(FITS[name](rows.take(parts != part)), source.maps, MEMBERS, CLASSES)
    counted = np.zeros((3, 3), np.int64)
    for truth, predicted in zip(source.mask.ravel(), by_hand.reshape(3, -1).argmax(axis=0), strict=True):
        if truth != 255:
            counted[truth, predicted] += 1
    np.testing.assert_array_equal(result.nested[3], counted)
    assert result.nested.sum() == 8 * 22 * 24
    assert abs(miou_of(result.fitted) - miou_of(result.nested)) < 0.05
    single = np.stack([confusion(each.maps[1], each.mask) for each in images()])
    assert miou_of(result.nested) > miou_of(single) or name in ("votes/soft", "votes/hard", "votes/logit")


def test_maps_are_combined_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pixel_rows(images(4), MEMBERS, CLASSES, 100)
    combined = FITS["stacking/logistic"](rows)
    whole = combine_maps(combined, image(9).maps, MEMBERS, CLASSES)
    monkeypatch.setattr(dense, "CHUNK", 100)
    np.testing.assert_allclose(combine_maps(combined, image(9).maps, MEMBERS, CLASSES), whole, rtol=1e-6)
    np.testing.assert_allclose(whole.sum(axis=0), 1, rtol=1e-6)
    soft = combine_maps(votes()["votes/soft"](rows), image(9).maps, MEMBERS, CLASSES)
    np.testing.assert_allclose(soft, image(9).maps.mean(axis=0) / 255, atol=1 / 100)


def test_an_image_without_labels_counts_nothing_and_what_does_not_fit_is_refused() -> None:
    empty = replace(image(8), mask=np.full((24, 24), 255, np.uint8))
    rows = pixel_rows([*images(4), empty], MEMBERS, CLASSES, 50)
    result = run_dense("soft", FITS["votes/soft"], rows, meta_folds(rows, 2), [*images(4), empty])
    assert result.nested[-1].sum() == 0
    with pytest.raises(ValueError, match="At least one pixel should have a label"):
        pixel_rows([empty], MEMBERS, CLASSES)
    with pytest.raises(ValueError, match="Maps of i8 should be uint8"):
        pixel_rows([empty], MEMBERS[:2], CLASSES)
    with pytest.raises(ValueError, match=r"`members` should be sorted, as in the maps. Found b, a, c"):
        pixel_rows([image(1)], ("b", "a", "c"), CLASSES)
    with pytest.raises(ValueError, match=r"below 3. Found 7"):
        pixel_rows([replace(image(1), mask=np.full((24, 24), 7, np.uint8))], MEMBERS, CLASSES)
