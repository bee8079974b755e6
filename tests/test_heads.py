"""Which of its heads a problem learns, in which all are scored, and channels as bits of one number."""

import numpy as np
import pytest

from hsl.channels import channel_mask, class_pixels, code_names, holds, num_values, pack, shown_classes
from hsl.heads import Head, Problem

DAMAGE, KIND = Head("damage", "dense", ("clean", "damage")), Head("kind", "dense", ("other", "stain"))
SHARED, LABEL = Head("segmentation", "dense", ("clean", "crack", "stain")), Head("label", "image", ("a", "b"))
CODES = Head("segmentation", "dense", ("absent", "damage", "kind"), several=True)


@pytest.mark.parametrize(
    ("heads", "learned", "readings", "scored", "channels"),
    [
        ((SHARED,), "segmentation", "", SHARED, ()),
        ((SHARED, LABEL), "segmentation label", "", SHARED, ()),
        ((LABEL,), "label", "", None, ()),
        ((DAMAGE, KIND, SHARED), "damage kind", "", SHARED, ()),
        ((DAMAGE, KIND, SHARED, LABEL), "segmentation label", "damage kind", SHARED, ()),
        ((DAMAGE, KIND, CODES), "kind damage", "", CODES, ("kind", "damage")),
    ],
    ids=["one head", "dual head", "classifier", "fused", "flat", "channels"],
)
def test_problems(
    heads: tuple[Head, ...], learned: str, readings: str, scored: Head, channels: tuple[str, ...]
) -> None:
    problem = Problem(heads, dict.fromkeys(learned.split()), {}, readings=dict.fromkeys(readings.split()))  # type: ignore[arg-type]
    assert [head.name for head in problem.learned] == learned.split()
    assert (problem.scored_head, problem.channels) == (scored, channels)


@pytest.mark.parametrize("number", [2, 5, 7])
def test_what_is_packed_is_read_again(number: int) -> None:
    planes = np.random.default_rng(0).random((number, 9, 11)) < 0.5
    codes = pack(list(planes))
    assert codes.max() < num_values(number + 1, overlapping=True) <= 128
    assert np.array_equal(np.moveaxis(holds(number)[codes], -1, 0), planes)
    for bit, plane in enumerate(planes):
        assert np.array_equal(channel_mask(codes, bit) == 255, plane)
    assert not holds(number)[255].any()


def test_pixels_of_classes_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 8, (4, 50)).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.1] = 255
    histograms = np.stack([np.bincount(row, minlength=256) for row in codes])
    expected = [
        [0, *(sum(value != 255 and value >> k & 1 for value in row) for k in range(3))] for row in codes.tolist()
    ]
    for row, values in zip(expected, codes, strict=True):
        row[0] = 3 * int((values != 255).sum()) - sum(row)
    assert class_pixels(histograms, 4, overlapping=True).tolist() == expected
    assert class_pixels(histograms, 4, overlapping=False).tolist() == histograms[:, :4].tolist()


def test_names() -> None:
    classes = ["absent", "a", "b", "c"]
    assert code_names(classes)[5:] == ["a + c", "b + c", "a + b + c"]
    assert shown_classes([4, 1], classes, overlapping=True) == ["a", "c"]
    assert shown_classes([0, 2], classes, overlapping=False) == ["absent", "b"]
