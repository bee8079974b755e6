"""What is made of a prediction, against what other code reads back from it."""

import json
from typing import Any

import cv2
import numpy as np
import pytest
from tests.serving._inputs import HEADS, FakeModel, Judged, picture

from hsl.data.files.run_lengths import decode_runs
from hsl.exporting.prediction import Prediction
from hsl.reports.page.pictures import overlay
from hsl.serving import answers
from hsl.serving.answers import answer_of, polygons_of
from hsl.serving.served import Question, RefusedError

IMAGE = picture(size=(40, 30), seed=3)
SAID = FakeModel().predict(IMAGE)
MASK = SAID.class_map("segmentation")


def answered(work: Any = "segment", said: Prediction = SAID, verdict: Any = None, **asked: Any) -> Any:
    return answer_of(Question(work, b"", 0, head="segmentation", **asked), IMAGE, said, verdict)


def decoded(body: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)


def test_a_mask_holds_the_indices_and_its_header_the_areas() -> None:
    answer = answered()
    assert answer.media_type == "image/png"
    np.testing.assert_array_equal(decoded(answer.body), MASK)
    shares = json.loads(answer.headers["HSL-Areas"])
    assert shares == pytest.approx({name: (i == MASK).mean() for i, name in enumerate(HEADS["segmentation"].classes)})


def test_the_overlay_is_that_of_predict() -> None:
    shown = decoded(answered(format="overlay").body)[..., ::-1]
    confidence = SAID.probabilities["segmentation"].max(axis=0)
    np.testing.assert_array_equal(shown, overlay(IMAGE, MASK, confidence, HEADS["segmentation"].classes))


def test_runs_and_polygons_give_back_the_mask() -> None:
    runs, polygons = (json.loads(answered(format=kind).body) for kind in ("rle", "polygons"))
    assert runs["image"] == {"width": 40, "height": 30}
    assert runs["areas"] == polygons["areas"]
    assert runs["areas"]["rust"]["pixels"] == (MASK == 2).sum()
    assert runs["areas"]["rust"]["confidence"] == pytest.approx(0.7)
    for index, name in ((1, "leaf"), (2, "rust")):
        np.testing.assert_array_equal(decode_runs(runs["runs"][name], 30, 40), index == MASK)
        np.testing.assert_array_equal(filled(polygons["polygons"][name], MASK.shape), index == MASK)


def filled(regions: Any, shape: tuple[int, ...]) -> Any:
    canvas = np.zeros(shape, np.uint8)
    for region in regions:
        cv2.fillPoly(canvas, [np.array(ring, np.int32) for ring in (region["outer"], *region["holes"])], 1)
    return canvas == 1


def test_polygons_keep_holes_and_what_lies_in_them() -> None:
    mask = np.zeros((60, 60), bool)
    mask[5:55, 5:55] = True
    mask[10:50, 10:50] = False
    mask[20:40, 20:40] = True
    mask[29, 29] = False
    regions = polygons_of(mask)
    assert sorted(len(region["holes"]) for region in regions) == [1, 1]
    np.testing.assert_array_equal(filled(regions, mask.shape), mask)


@pytest.mark.parametrize("seed", range(5))
def test_polygons_of_noise_give_back_the_noise(seed: int) -> None:
    mask = np.random.default_rng(seed).random((30, 40)) < 0.2 + 0.15 * seed
    np.testing.assert_array_equal(filled(polygons_of(mask), mask.shape), mask)


def test_what_a_picture_shows() -> None:
    page = json.loads(answered("predict").body)
    assert page["heads"]["kind"]["classes"] == ["sick" if (MASK == 2).mean() > 0.5 else "healthy"]
    assert page["heads"]["kind"]["probabilities"]["sick"] == pytest.approx((MASK == 2).mean())
    assert page["heads"]["segmentation"]["areas"]["leaf"]["share"] == pytest.approx((MASK == 1).mean())
    assert (page["objects"], page["gate"]) == (None, None)
    ids = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    said = Prediction(HEADS, SAID.probabilities, objects=ids)
    assert json.loads(answered("predict", said).body)["objects"] == 1199
    np.testing.assert_array_equal(decoded(answered(said=said, format="objects").body), ids)


def test_a_class_that_is_not_there_has_no_confidence() -> None:
    values = np.zeros((3, 30, 40), np.float32)
    values[0] = 1
    page = json.loads(answered("predict", Prediction(HEADS, {"segmentation": values})).body)
    assert page["heads"]["segmentation"]["areas"]["rust"] == {"pixels": 0, "share": 0.0, "confidence": None}


def test_the_gate_stops_the_answer_unless_forced() -> None:
    verdict = Judged(False, ("`distance` is above 1.",), {"distance": 2.0})
    with pytest.raises(RefusedError, match="not_accepted") as caught:
        answered("predict", verdict=verdict)
    refused = json.loads(caught.value.answer().body)
    assert refused["gate"] == {"accepted": False, "reasons": ["`distance` is above 1."], "scores": {"distance": 2.0}}
    assert "`distance` is above 1." in refused["error"]
    assert json.loads(answered("predict", verdict=verdict, force=True).body)["gate"]["accepted"] is False
    assert answered(verdict=verdict, force=True).status == 200


def test_what_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="no_objects"):
        answered(format="objects")
    monkeypatch.setattr(answers, "MOST_CHANGES", 10)
    for kind in ("rle", "polygons"):
        with pytest.raises(RefusedError, match="too_detailed"):
            answered(format=kind)
