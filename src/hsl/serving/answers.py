"""From what a model says of a picture to the body of an answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.data.files.run_lengths import encode_classes
from hsl.exporting.prediction import Prediction
from hsl.heads import Head
from hsl.serving.served import Answer, Question, RefusedError, Verdict, as_json

MOST_CHANGES = 2_000_000
"""Places in a mask where one class ends beside another; of more, runs and polygons would outgrow the mask."""


def answer_of(question: Question, image: NDArray[np.uint8], said: Prediction, verdict: Verdict | None) -> Answer:
    """Answer one question.

    Args:
        question: what is asked.
        image: RGB ``uint8 (H, W, 3)``.
        said: what the model says of it.
        verdict: what the gate says of it.

    Raises:
        RefusedError: the gate does not accept the picture, or the mask has no room in that format.
    """
    gate = None if verdict is None else _gate(verdict)
    if verdict is not None and not verdict.accepted and not question.force:
        reasons = " ".join(verdict.reasons)
        raise RefusedError(
            422, "not_accepted", "The picture should be of the kind that the model was trained on. "
            f"Found: {reasons} Send another, or the same with `?force=1`.", gate=gate,
        )  # fmt: skip
    height, width = image.shape[:2]
    about = {"width": width, "height": height}
    if question.work == "predict":
        heads = {name: _described(said, name) for name in said.probabilities if said.heads[name].kind in _DESCRIBED}
        objects = None if said.objects is None else int(said.objects.max(initial=0))
        return Answer(200, as_json({"image": about, "heads": heads, "objects": objects, "gate": gate}))
    if question.format == "objects":
        return _png(_objects(said), {})
    head, mask = said.heads[question.head], said.class_map(question.head)
    areas = _areas(mask, said.probabilities[head.name].max(axis=0), head.classes)
    if question.format in ("png", "overlay"):
        headers = {"HSL-Areas": as_json({name: area["share"] for name, area in areas.items()}).decode()}
        return _png(mask if question.format == "png" else _overlay(image, said, head, mask), headers)
    shapes = {"runs": _runs(mask, head)} if question.format == "rle" else {"polygons": _polygons(mask, head)}
    page = {"image": about, "head": head.name, "classes": list(head.classes), "areas": areas, **shapes, "gate": gate}
    return Answer(200, as_json(page))


_DESCRIBED = ("dense", "image")


def _gate(verdict: Verdict) -> dict[str, Any]:
    scores = {name: round(float(score), 6) for name, score in verdict.scores.items()}
    return {"accepted": bool(verdict.accepted), "reasons": list(verdict.reasons), "scores": scores}


def _described(said: Prediction, name: str) -> dict[str, Any]:
    head, values = said.heads[name], said.probabilities[name]
    if head.kind == "dense":
        return {"kind": "dense", "areas": _areas(said.class_map(name), values.max(axis=0), head.classes)}
    probabilities = dict(zip(head.classes, values.astype(float).tolist(), strict=True))
    return {"kind": "image", "classes": said.labels(name), "probabilities": probabilities}


def _areas(
    mask: NDArray[np.uint8], confidence: NDArray[np.float32], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Pixels, share and mean top probability of each class; the last is ``None`` of a class that is not there."""
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    sums = np.bincount(mask.ravel(), confidence.ravel(), minlength=len(classes))
    return {
        name: {
            "pixels": int(count), "share": count / mask.size, "confidence": float(total / count) if count else None
        }
        for name, count, total in zip(classes, counts, sums, strict=True)
    }  # fmt: skip


def _png(pixels: NDArray[Any], headers: Mapping[str, str]) -> Answer:
    _, png = cv2.imencode(".png", pixels)
    return Answer(200, png.tobytes(), "image/png", headers)


def _objects(said: Prediction) -> NDArray[np.uint16]:
    if said.objects is None:
        raise RefusedError(422, "no_objects", "`format=objects` should be for a model that cuts objects apart. "
                      "Found one that does not. Ask for another format.")  # fmt: skip
    return said.objects


def _overlay(image: NDArray[np.uint8], said: Prediction, head: Head, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from hsl.reports.page import pictures  # Matplotlib, for its font: only who asks for overlays waits for it

    confidence = said.probabilities[head.name].max(axis=0)
    return pictures.overlay(image, mask, confidence, head.classes)[..., ::-1]


def _check_room(mask: NDArray[np.uint8]) -> None:
    changes = int((mask[1:] != mask[:-1]).sum()) + int((mask[:, 1:] != mask[:, :-1]).sum())
    if changes > MOST_CHANGES:
        raise RefusedError(
            422, "too_detailed", f"The mask should have at most {MOST_CHANGES} places where classes meet. "
            f"Found {changes}. Ask for `format=png`.",
        )  # fmt: skip


def _runs(mask: NDArray[np.uint8], head: Head) -> dict[str, str]:
    _check_room(mask)
    return {head.classes[index]: runs for index, runs in encode_classes(mask).items()}


def _polygons(mask: NDArray[np.uint8], head: Head) -> dict[str, list[dict[str, Any]]]:
    """By class but the first: outlines through the centres of border pixels, which belong to it, and their holes."""
    _check_room(mask)
    return {
        head.classes[index]: polygons_of(mask == index) for index in np.unique(mask).tolist() if index > 0
    }  # fmt: skip


def polygons_of(mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The connected regions of a mask ``bool (H, W)``: ``{"outer": [[x, y], ...], "holes": [[[x, y], ...], ...]}``.

    Filling outer and holes together by the even-odd rule, borders included (`cv2.fillPoly`), gives back the mask.

    Example:
        >>> polygons_of(np.array([[True, True], [False, False]]))
        [{'outer': [[0, 0], [1, 0]], 'holes': []}]
    """
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    found: dict[int, dict[str, Any]] = {}
    parents = [] if tree is None else tree.reshape(-1, 4)[:, 3].tolist()
    points = [contour.reshape(-1, 2).tolist() for contour in contours]
    for place, parent in enumerate(parents):
        if parent < 0:
            found[place] = {"outer": points[place], "holes": []}
    for place, parent in enumerate(parents):
        if parent >= 0:
            found[parent]["holes"].append(points[place])
    return list(found.values())
