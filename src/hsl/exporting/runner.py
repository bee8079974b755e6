"""An artefact at work, with NumPy, OpenCV and what runs its graphs alone: a picture in, what the model says of it out.

``python -m hsl.exporting.runner ARTEFACT PICTURE... --output DIR`` writes masks and a table.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hsl.batch import DISTANCE
from hsl.data.files.decoding import Decoding
from hsl.data.loading.resizing import resize
from hsl.errors import DataError, needs
from hsl.exporting.gate import Gate, Verdict
from hsl.exporting.manifest import GATE_ENCODER, GATE_FOLDER, Combination, Manifest, Model, read_manifest
from hsl.exporting.prediction import Prediction
from hsl.exporting.predictors import Outputs, fused, look, normalised, sigmoid, softmax, to_size
from hsl.exporting.sessions import Array, OpenSession, Session, onnx_session, session_of
from hsl.heads import Head, of_kind
from hsl.inference.combining import FLOOR, combined, combined_maps, log_odds, tempered

MAX_OBJECTS = 2**16 - 1  # in a picture of 16 bits
Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Runner:
    """A model that has left the suite; it says what `hsl predict` says.

    Attributes:
        folder: the artefact.
        manifest: what it is.
        decoding: how files become RGB.
        session: opens a graph, by its file; or hands out the one that is open.
        gate: knows pictures of another kind; ``None``: the artefact has none.
        features: of a picture, for the gate.
    """

    folder: Path
    manifest: Manifest
    decoding: Decoding
    session: Callable[[str], Session]
    gate: Gate | None = None
    features: Callable[[Image], Array] | None = None

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        value_range: tuple[float, float] | None = None,
        max_megapixels: float | None = None,
        keep: Literal["all", "one"] = "all",
        threads: int | None = None,
        open_session: OpenSession | None = None,
    ) -> Runner:
        """Open an artefact; its files are compared with their SHA-256.

        Args:
            folder: that `hsl export` made.
            value_range: what becomes black and white in pictures of more than 8 bits; ``None``: as in training.
            max_megapixels: larger pictures are refused; ``None``: as in training.
            keep: ``all`` graphs of an ensemble stay in memory, or ``one`` after the other is opened at each call.
            threads: of the processor that a graph may use; ``None``: all.
            open_session: opens a graph, in place of what the artefact names.

        Raises:
            ConfigError: it is no artefact, one of a newer format, or a package is missing.
            DataError: something in it is missing, damaged or changed.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if not manifest.combinations and any(head.name == DISTANCE for head in manifest.models[0].outputs):
            needs("A model that cuts objects apart", ["skimage", "scipy"])
        known, opened = manifest.decoding, open_session or session_of(manifest.runtime)
        decoding = Decoding(
            value_range=value_range or known.value_range,
            max_megapixels=known.max_megapixels if max_megapixels is None else max_megapixels,
            bits=known.bits if value_range is None else None,
            range_key="value_range",
        )

        def session(file: str) -> Session:
            return opened(folder / file, threads)

        if keep == "all":
            session = functools.cache(session)
            for model in manifest.models:
                session(model.file)
        gate, features = None, None
        if f"{GATE_FOLDER}/{GATE_ENCODER}" in manifest.files:
            gate = Gate.read(folder / GATE_FOLDER)
            encoder = onnx_session(folder / GATE_FOLDER / GATE_ENCODER, threads)
            features = functools.partial(_features, encoder, gate)
        return cls(folder, manifest, decoding, session, gate, features)

    @property
    def heads(self) -> Mapping[str, Head]:
        """What a prediction says, by name."""
        return {head.name: head for head in self.manifest.heads}

    def decode(self, data: bytes, name: str) -> Image:
        """``uint8 (H, W, 3)`` RGB of the bytes of a picture, turned upright; its size is looked at first.

        Raises:
            DataError: it is no picture, or too large.
        """
        return self.decoding.image_of(data, name)

    def predict(self, image: Image) -> Prediction:
        """What the model says of a picture ``uint8 (H, W, 3)``, RGB, of any size.

        Raises:
            NonFiniteLogitsError: a network gives something else than numbers.
            DataError: there are more objects than a map of 16 bits holds.
        """
        return self.predict_many([image])[0]

    def predict_many(self, images: Sequence[Image]) -> list[Prediction]:
        """The same of several pictures; those that a network sees at one size travel together."""
        if self.manifest.combinations:
            return self._by_members(images)
        (model,) = self.manifest.models
        return [self._prediction(model, outputs) for outputs in outputs_of(self.session(model.file), model, images)]

    def judge(self, image: Image, prediction: Prediction) -> Verdict | None:
        """Whether a picture is of the trained kind; ``None`` without a gate."""
        if self.gate is None or self.features is None:
            return None
        return self.gate.judge(prediction, self.features(image))

    def _prediction(self, model: Model, outputs: Outputs) -> Prediction:
        probabilities = {name: probabilities_of(outputs[name], head) for name, head in self.heads.items()}
        objects = None
        if DISTANCE in outputs:
            objects = objects_of(probabilities[scored_head(model)], outputs[DISTANCE])
        return Prediction(self.heads, probabilities, self.manifest.thresholds, objects)

    def _by_members(self, images: Sequence[Image]) -> list[Prediction]:
        """Of an ensemble: the mean over the folds of each member, then what its combinations make of the members."""
        models, combinations = self.manifest.models, self.manifest.combinations
        sums: list[dict[tuple[str, str], Array]] = [{} for _ in images]
        for model in models:
            wanted = [self.heads[name] for name, one in combinations.items() if model.member in one.members]
            for kept, outputs in zip(sums, outputs_of(self.session(model.file), model, images), strict=True):
                for head in wanted:
                    said, key = probabilities_of(outputs[head.name], head), (model.member, head.name)
                    kept[key] = kept[key] + said if key in kept else said
        num_folds = {member: sum(model.member == member for model in models) for member in {m.member for m in models}}
        found = []
        for kept in sums:
            means = {key: value / np.float32(num_folds[key[0]]) for key, value in kept.items()}
            probabilities = {
                name: combine(one, self.heads[name], np.stack([means[member, name] for member in one.members]))
                for name, one in combinations.items()
            }
            found.append(Prediction(self.heads, probabilities, self.manifest.thresholds))
        return found


def outputs_of(session: Session, model: Model, images: Sequence[Image]) -> list[Outputs]:
    """By head what one model says of each picture: logits ``(C, H, W)`` at its own size, ``(K,)`` of an image head."""
    resized = [image if model.evaluation_size is None else resize(image, model.evaluation_size) for image in images]
    found: list[Outputs] = [{} for _ in images]
    for size in dict.fromkeys(image.shape for image in resized):
        places = [i for i, image in enumerate(resized) if image.shape == size]
        outputs = look(session, model, normalised([resized[i] for i in places], model.mean, model.std))
        for row, place in enumerate(places):
            found[place] = _at_source(model, {head: output[row] for head, output in outputs.items()}, images[place])
    return found


def _at_source(model: Model, outputs: Outputs, image: Image) -> Outputs:
    kinds, (height, width) = {head.name: head.kind for head in model.outputs}, image.shape[:2]
    sized = {
        head: output if kinds[head] == "image" else to_size(output, height, width) for head, output in outputs.items()
    }
    return sized if model.fusion is None else {**sized, model.fusion.head: fused(sized, model.fusion)}


def probabilities_of(logits: Array, head: Head) -> Array:
    """Softmax over the classes; a sigmoid for each where an image may show several."""
    return sigmoid(logits) if head.kind == "image" and head.several else softmax(logits)


def combine(combination: Combination, head: Head, values: Array) -> Array:
    """Probabilities ``(K,)`` or ``(C, H, W)`` of those of the members, ``(M, ...)``.

    Of pixels they are taken in 8 bits, as those that the combination was fitted on.
    """
    if head.kind == "dense":
        maps = combined_maps(combination.formula, np.rint(255 * values).astype(np.uint8))
        return softmax(np.log(np.maximum(maps, np.float32(FLOOR))))
    found = combined(combination.formula, values[:, None].astype(np.float64), head.several)
    if combination.temperature is not None:
        found = tempered(found, combination.temperature, head.several)
    return probabilities_of(log_odds(found, head.several)[0].astype(np.float32), head)


def objects_of(probabilities: Array, distance: Array) -> NDArray[np.uint16]:
    """Ids ``(H, W)`` of the objects: all that is not class 0, cut apart by the distances ``(1, H, W)``.

    Raises:
        DataError: there are more than a map of 16 bits holds.
    """
    from hsl.metrics.objects.watershed import split_objects  # takes SciPy and scikit-image

    ids = split_objects(1 - probabilities[0], distance[0])
    if (number := int(ids.max())) > MAX_OBJECTS:
        raise DataError(
            f"A picture should have at most {MAX_OBJECTS} objects, what a map of 16 bits holds. Found {number}. Cut it "
            "into parts."
        )
    return ids.astype(np.uint16)


def scored_head(model: Model) -> str:
    """The dense head that speaks for the model; the distances belong to it."""
    return of_kind(model.outputs, "dense")[0].name if model.fusion is None else model.fusion.head


def _features(session: Session, gate: Gate, image: Image) -> Array:
    (features,) = session(gate.encoder.input_of(image)).values()
    return np.asarray(features[0])


if __name__ == "__main__":
    from hsl.exporting.command_line import main

    sys.exit(main(sys.argv[1:]))
