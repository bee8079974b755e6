"""The gate: is this a picture of the kind that a model was trained on? Needs NumPy and OpenCV, no torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError
from hsl.exporting.gate_rules import FeatureRule, Floats, SegmentationRule
from hsl.exporting.prediction import Prediction
from hsl.files.io import read_arrays, read_json, write_arrays, write_atomically
from hsl.files.typed_json import typed
from hsl.heads import Head

VERSION = 1
GATE, FEATURES = "gate.json", "features.npz"


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a picture: each of ``reasons`` names a rule that is broken and the value that breaks it."""

    accepted: bool
    reasons: tuple[str, ...]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class GateModel:
    """A model that the thresholds were set with.

    ``tier`` and ``mib_per_picture`` of its memory, ``None`` where it was never measured; ``miou`` out of fold;
    ``checkpoints``: SHA-256 by fold.
    """

    name: str
    tier: str | None
    mib_per_picture: float | None
    miou: float
    checkpoints: Mapping[str, str]


@dataclass(frozen=True)
class GenericEncoder:
    """The frozen encoder of the features, and how it sees a picture.

    ``source`` and ``sha256`` are those of the published weights, ``stored_sha256`` that of the copy beside the gate.
    """

    name: str
    source: str
    sha256: str
    stored_sha256: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dimension: int

    def input_of(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """An image ``(H, W, 3)`` as the encoder sees it, ``(1, 3, height, width)``: shrunk over areas, normalised."""
        small = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        normal = (small - mean) / std
        return np.ascontiguousarray(normal.transpose(2, 0, 1)[None], dtype=np.float32)


@dataclass(frozen=True)
class Calibration:
    """What the thresholds were set on: ``reference`` and ``calibration`` count pictures and groups of either half."""

    data: str
    percentile: float
    reference_pictures: int
    reference_groups: int
    calibration_pictures: int
    calibration_groups: int
    pictures: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Gate:
    """Both rules, and what they were made from; a picture passes where both accept it.

    Attributes:
        models: one, or those that vote.
        chosen: why they gate, in a sentence.
        segmentation: rule on the prediction.
        feature: rule on the generic features.
        encoder: that makes the features.
        calibration: on what the thresholds were set.
        arrays: of ``neighbours`` ``reference (N, D)``; of ``mahalanobis`` ``mean (D,)`` and ``precision (D, D)``.
    """

    models: tuple[GateModel, ...]
    chosen: str
    segmentation: SegmentationRule
    feature: FeatureRule
    encoder: GenericEncoder
    calibration: Calibration
    arrays: Mapping[str, NDArray[np.float32]]

    def judge(self, prediction: Prediction, features: Floats | None) -> Verdict:
        """Whether a picture is of the trained kind.

        Args:
            prediction: of a model with the classes that the gate knows.
            features: ``(D,)`` of the generic encoder.

        Raises:
            DataError: the features are missing or of another encoder, or the prediction has other classes.
        """
        self.check_classes(prediction.heads)
        if features is None or features.shape != (self.encoder.dimension,):
            found = "none" if features is None else f"an array {features.shape}"
            raise DataError(
                f"`features` should be an array ({self.encoder.dimension},). Found {found}. Make them with the encoder "
                f"of the gate, {self.encoder.name} ({self.encoder.source}, SHA-256 {self.encoder.sha256[:8]})."
            )
        rule, scores = self.segmentation, self.segmentation.scores(prediction)
        shown = rule.shown(prediction)
        scores |= {"threshold": rule.threshold(shown)[1]}
        scores |= {"distance": float(self.feature.distances(features[None], self.arrays)[0])}
        reasons = (*rule.broken(scores, shown), *self.feature.broken(scores["distance"]))
        return Verdict(not reasons, reasons, scores)

    def check_classes(self, heads: Mapping[str, Head]) -> None:
        """Refuse a model of other classes.

        Raises:
            DataError: a head is missing or has other classes.
        """
        rule = self.segmentation
        for head in (*(rule.channels or (rule.head,)), *([rule.image_head] if rule.image_head else [])):
            known = heads.get(head)
            if known is None or (head == rule.head and tuple(known.classes) != rule.classes):
                found = f"the classes {', '.join(known.classes)}" if known else f"the heads {', '.join(heads)}"
                of = f" of {', '.join(rule.classes)}" if head == rule.head else ""
                raise DataError(
                    f"The model should have the head `{head}`{of}, as that of the gate. Found {found}. Make a gate for "
                    "this model with `hsl gate`."
                )

    def write(self, folder: Path) -> None:
        """Write ``features.npz``, then ``gate.json``, whose presence means complete."""
        content = {"version": VERSION, **asdict(replace(self, arrays={}))}
        del content["arrays"]
        write_arrays(folder / FEATURES, self.arrays)
        write_atomically(folder / GATE, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode())

    @classmethod
    def read(cls, folder: Path) -> "Gate":
        """What `write` wrote.

        Raises:
            DataError: there is no gate, it is damaged, of another version, or its files do not belong together.
        """
        path = folder / GATE
        if not path.is_file():
            raise DataError(
                f"`gate` should be a folder that `hsl gate` made. Found `{folder}`, which has no {GATE}. They lie "
                "below `outputs/`."
            )
        content = dict(read_json(path))
        if (version := content.pop("version", None)) != VERSION:
            raise DataError(
                f"`{path}` should be of version {VERSION}. Found version {version}. Make the gate anew with `hsl gate`."
            )
        gate: Gate = typed({**content, "arrays": {}}, cls, path, "Restore it, or make the gate anew with `hsl gate`.")
        return replace(gate, arrays=_read_arrays(folder, gate))


def _read_arrays(folder: Path, gate: Gate) -> dict[str, NDArray[np.float32]]:
    size = gate.encoder.dimension
    rows = gate.calibration.reference_pictures
    shapes = {"mean": (size,), "precision": (size, size)}
    shapes = {"reference": (rows, size)} if gate.feature.distance == "neighbours" else shapes
    arrays = read_arrays(folder / FEATURES, shapes)
    for name, shape in shapes.items():
        found = arrays[name]
        if found.shape != shape or found.dtype != np.float32 or not np.isfinite(found).all():
            raise DataError(
                f"`{folder / FEATURES}` should hold `{name}`, finite float32 {shape}. Found {found.dtype} "
                f"{found.shape}. Restore it, or make the gate anew with `hsl gate`."
            )
    if gate.feature.distance == "neighbours" and not 1 <= gate.feature.k <= rows:
        raise DataError(
            f"`feature.k` in `{folder / GATE}` should be in [1, {rows}], the pictures of the reference. Found "
            f"{gate.feature.k}. Restore it, or make the gate anew with `hsl gate`."
        )
    return arrays
