"""What is compared of an artefact and `hsl predict`: rules on plain numbers."""

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from hsl.errors import UserError
from hsl.verbs.export import quantised
from hsl.verbs.export.gated import check_gate
from hsl.verbs.export.parity import borders, check_iou, check_row, class_iou


def test_the_iou_of_a_class_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truths, maps = rng.integers(0, 3, (2, 4, 9, 7)), rng.integers(0, 3, (2, 4, 9, 7)).astype(np.uint8)
    found = class_iou(list(truths[0]), list(maps[0]), 4)
    wanted = jaccard_score(truths[0].ravel(), maps[0].ravel(), average=None)
    np.testing.assert_allclose(found[:3], wanted)
    assert np.isnan(found[3])
    truths[0][:, 0] = 255
    np.testing.assert_allclose(
        class_iou(list(truths[0]), list(maps[0]), 3),
        jaccard_score(truths[0][:, 1:].ravel(), maps[0][:, 1:].ravel(), average=None),
    )


def test_borders_do_not_know_the_numbers_of_objects() -> None:
    objects = np.array([[0, 1, 1, 2], [0, 1, 1, 2], [3, 3, 0, 0]], np.uint16)
    renamed = np.array([0, 9, 4, 7], np.uint16)[objects]
    np.testing.assert_array_equal(borders(objects), borders(renamed))
    merged = np.where(objects == 2, 1, objects).astype(np.uint16)
    assert (borders(objects) != borders(merged)).sum() == 1


def test_a_loss_above_the_margin_is_refused() -> None:
    quantised.check_loss("segmentation", "miou", -0.009)
    with pytest.raises(UserError, match=r"at most 0\.01 of its miou .* Found 0\.0200"):
        quantised.check_loss("segmentation", "miou", -0.02)
    quantised.check_spread("segmentation", 0.1)
    with pytest.raises(UserError, match="are alike"):
        quantised.check_spread("segmentation", 0.0)


def test_numbers_above_a_rule_are_refused_and_nan_too() -> None:
    row = {"id": "p", "height": 4, "width": 5, "batch": 1, "changed_pixels": {"a": 0.001}, "image_probability": {}}
    check_row(row)
    for broken in ({"changed_pixels": {"a": 0.0011}}, {"image_probability": {"b": 0.002}},
                   {"image_probability": {"b": float("nan")}}):  # fmt: skip
        with pytest.raises(UserError, match=r"`p` \(4 x 5, batch 1\) should have .* Found .*Nothing was written"):
            check_row({**row, **broken})
    told = {"head": "a", "class": "rust", "scale": 1.0, "batch": 4, "torch": 0.5, "artefact": 0.5009}
    check_iou(told)
    with pytest.raises(UserError, match="The class `rust` of `a` should have the IoU"):
        check_iou({**told, "artefact": 0.5012})


def test_a_gate_that_says_something_else_is_refused() -> None:
    row = {"features": 0.001, "torch": "accepted", "artefact": "accepted"}
    check_gate("`p`", row)
    for broken in (0.0011, float("nan")):
        with pytest.raises(UserError, match=r"`p` should have the features .* to 0\.001 of their length\. Found"):
            check_gate("`p`", {**row, "features": broken})
    with pytest.raises(UserError, match=r"`p` should be accepted by the gate.* says rejected\. Nothing was written"):
        check_gate("`p`", {**row, "artefact": "rejected"})
