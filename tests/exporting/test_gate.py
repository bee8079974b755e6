"""The gate's file, its rules, and what it refuses."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsl.errors import DataError
from hsl.exporting.gate import Calibration, Gate, GateModel, GenericEncoder
from hsl.exporting.gate_rules import (
    FeatureRule,
    SegmentationRule,
    largest_region,
    mahalanobis_distances,
    neighbour_distances,
)
from hsl.exporting.prediction import Prediction
from hsl.heads import Head

DENSE = Head("segmentation", "dense", ("background", "leaf", "rust"))
IMAGE = Head("classification", "image", ("healthy", "rust"))


@pytest.fixture
def gate() -> Gate:
    reference = np.random.default_rng(0).normal(1, 0.1, (12, 4)).astype(np.float32)
    return Gate(
        models=(GateModel("resnet10t", "light", 41.5, 0.8, {"0": "ab" * 32}),),
        chosen="The lightest.",
        segmentation=SegmentationRule(
            "segmentation",
            tuple(DENSE.classes),
            (),
            "classification",
            {"healthy": 0.3, "rust": 0.1},
            0.15,
            0.02,
            ("rust",),
            0.3,
        ),
        feature=FeatureRule("neighbours", 3, 0.2, 0.99),
        encoder=GenericEncoder("lite0", "package:x", "cd" * 32, "ef" * 32, 8, 4, (0.5,) * 3, (0.5,) * 3, 4),
        calibration=Calibration("leaves", 5, 12, 12, 20, 10, {"healthy": 15, "rust": 17}),
        arrays={"reference": reference},
    )


def said(foreground: float, label: int = 0, rust: float = 0.0) -> Prediction:
    """10 x 10 pixels: the first rows are leaf, and rust has a probability in the first 3 pixels."""
    maps = np.zeros((3, 10, 10), np.float32)
    rows = round(10 * foreground)
    maps[1, :rows], maps[0, rows:] = 1, 1
    maps[2, 0, :3] = rust
    return Prediction(
        {h.name: h for h in (DENSE, IMAGE)}, {DENSE.name: maps, IMAGE.name: np.eye(2, dtype=np.float32)[label]}
    )


NEAR, FAR = np.ones(4, np.float32), np.array([1, -1, 0, 0], np.float32)


def test_a_picture_passes_where_both_rules_accept(gate: Gate) -> None:
    accepted = gate.judge(said(0.4), NEAR)
    assert accepted.accepted
    assert not accepted.reasons
    assert accepted.scores["foreground"] == pytest.approx(0.4)
    assert accepted.scores["component"] == pytest.approx(0.4)
    assert accepted.scores["threshold"] == 0.3
    far = gate.judge(said(0.4), FAR)
    assert not far.accepted
    assert len(far.reasons) == 1
    assert "distance to the 3 nearest" in far.reasons[0]
    assert "at most 0.2." in far.reasons[0]
    both = gate.judge(said(0), FAR)
    assert [reason.partition(" ")[0] for reason in both.reasons] == ["Foreground", "The", "The"]


def test_the_class_of_the_picture_chooses_the_threshold(gate: Gate) -> None:
    assert gate.judge(said(0.2, label=1), NEAR).accepted
    refused = gate.judge(said(0.2, label=0), NEAR)
    assert refused.reasons == ("Foreground should be at least 30.00% of the picture (class healthy). Found 20.00%.",)
    without = replace(gate, segmentation=replace(gate.segmentation, image_head=None))
    assert without.judge(said(0.2, label=0), NEAR).accepted, "the class is not known: the lowest holds"
    unlisted = replace(gate.segmentation, thresholds={"rust": 0.1})
    assert unlisted.threshold(["healthy"]) == ("healthy", 0.15)


def test_a_signal_accepts_by_itself(gate: Gate) -> None:
    assert not gate.judge(said(0, rust=0.29), NEAR).accepted
    assert gate.judge(said(0, rust=0.31), NEAR).accepted
    assert not gate.judge(said(0, rust=0.31), FAR).accepted, "the features accept too, or it is refused"
    larger = replace(gate, segmentation=replace(gate.segmentation, min_component=0.04))
    assert not larger.judge(said(0, rust=0.31), NEAR).accepted, "3 of 100 pixels are no region"


def test_scattered_foreground_is_no_picture(gate: Gate) -> None:
    maps = np.zeros((3, 10, 10), np.float32)
    maps[0] = 1
    maps[1, ::2, ::2] = 2
    scattered = Prediction(said(0).heads, {DENSE.name: maps, IMAGE.name: np.array([0, 1], np.float32)})
    assert (
        "largest region of foreground (or of rust) should be at least 2.00%" in gate.judge(scattered, NEAR).reasons[0]
    )


def test_channels_that_overlap_are_foreground_together(gate: Gate) -> None:
    heads = {name: Head(name, "dense", ("absent", name)) for name in ("tissue", "lesion")}
    rule = replace(gate.segmentation, channels=("tissue", "lesion"), signals=("lesion",), image_head=None)
    planes = np.zeros((2, 2, 2, 4), np.float32)
    planes[0, 1, 0, :2], planes[1, 1, 1, :1] = 0.5, 0.9
    scores = rule.scores(Prediction(heads, dict(zip(heads, planes, strict=True))))
    assert scores == {"foreground": 3 / 8, "component": 3 / 8, "signal": 1 / 8}
    replace(gate, segmentation=rule).check_classes(heads)
    with pytest.raises(DataError, match="should have the head `lesion`"):
        replace(gate, segmentation=rule).check_classes({"tissue": heads["tissue"]})


def test_distances_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(1)
    reference, rows = rng.normal(size=(30, 5)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    for row, distance in zip(rows, neighbour_distances(rows, reference, 4), strict=True):
        each = sorted(np.linalg.norm(row / np.linalg.norm(row) - one / np.linalg.norm(one)) for one in reference)
        assert distance == pytest.approx(np.mean(each[:4]), abs=1e-6)
    mean, precision = reference.mean(0), np.linalg.inv(np.cov(reference.T)).astype(np.float32)
    for row, distance in zip(rows, mahalanobis_distances(rows, mean, precision), strict=True):
        assert distance == pytest.approx(np.sqrt((row - mean) @ precision @ (row - mean)), rel=1e-5)
    assert largest_region(np.zeros((3, 3), bool)) == 0


def test_an_image_is_seen_in_one_size(gate: Gate) -> None:
    shown = gate.encoder.input_of(np.full((50, 20, 3), (0, 255, 51), np.uint8))
    assert shown.shape == (1, 3, 8, 4)
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown[0, :, 0, 0], [-1, 1, -0.6], atol=1e-6)


def test_features_of_another_encoder_are_refused(gate: Gate) -> None:
    with pytest.raises(DataError, match=r"should be an array \(4,\). Found an array \(5,\). Make them with .* lite0"):
        gate.judge(said(0.4), np.ones(5, np.float32))
    with pytest.raises(DataError, match="Found none"):
        gate.judge(said(0.4), None)
    assert not gate.judge(said(0.4), np.full(4, np.nan, np.float32)).accepted


def test_a_model_of_other_classes_is_refused(gate: Gate) -> None:
    with pytest.raises(DataError, match=r"`segmentation` of background, leaf, rust.* Found the classes a, b\. Make"):
        gate.check_classes({"segmentation": Head("segmentation", "dense", ("a", "b"))})
    with pytest.raises(DataError, match=r"should have the head `classification`, .* Found the heads segmentation"):
        gate.check_classes({"segmentation": DENSE})


@pytest.mark.parametrize("distance", ["neighbours", "mahalanobis"])
def test_a_gate_is_read_as_it_was_written(gate: Gate, tmp_path: Path, distance: Any) -> None:
    if distance == "mahalanobis":
        arrays = {"mean": np.ones(4, np.float32), "precision": np.eye(4, dtype=np.float32)}
        gate = replace(gate, feature=replace(gate.feature, distance=distance), arrays=arrays)
    gate.write(tmp_path)
    again = Gate.read(tmp_path)
    for name, array in gate.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    assert replace(again, arrays={}).__dict__ == replace(gate, arrays={}).__dict__
    assert again.judge(said(0.2), FAR) == gate.judge(said(0.2), FAR)
    assert json.loads((tmp_path / "gate.json").read_text())["version"] == 1


def test_a_damaged_gate_is_named(gate: Gate, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="should be a folder that `hsl gate` made"):
        Gate.read(tmp_path)
    gate.write(tmp_path)
    path = tmp_path / "gate.json"
    whole = json.loads(path.read_text())

    def refused(sentence: str, **changes: Any) -> None:
        path.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(DataError, match=re.escape(sentence)):
            Gate.read(tmp_path)

    refused("should be of version 1. Found version 2", version=2)
    refused("should have the key `feature.k`", feature={k: v for k, v in whole["feature"].items() if k != "k"})
    refused("`feature.k` in", feature={**whole["feature"], "k": 13})
    refused("`feature.threshold` float. Found `near`", feature={**whole["feature"], "threshold": "near"})
    refused("Literal['neighbours', 'mahalanobis']", feature={**whole["feature"], "distance": "cosine"})
    wrong = {**whole["segmentation"], "thresholds": {"rust": True}}
    refused("as `segmentation.thresholds.rust` float", segmentation=wrong)
    refused("as `models[0]` GateModel", models=["resnet10t"])
    refused("should hold `reference`, finite float32 (12, 5)", encoder={**whole["encoder"], "dimension": 5})
    path.write_text(json.dumps(whole)[:-9])
    with pytest.raises(DataError, match="is not valid JSON"):
        Gate.read(tmp_path)
    path.write_text(json.dumps(whole))
    (tmp_path / "features.npz").unlink()
    with pytest.raises(DataError, match=r"features.npz` is missing"):
        Gate.read(tmp_path)
