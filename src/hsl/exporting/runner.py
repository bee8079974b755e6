"""An artefact at work, with NumPy, OpenCV and what runs its graphs alone: a picture in, what the model says of it out.

``python -m hsl.exporting.runner ARTEFACT PICTURE... --output DIR`` writes masks and tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import DISTANCE
from hsl.data.files.decoding import Decoding
from hsl.data.loading.resizing import resize
from hsl.errors import DataError, needs
from hsl.exporting.manifest import Manifest, Model, Runtime, read_manifest
from hsl.exporting.prediction import Prediction
from hsl.exporting.predictors import Array, Outputs, Session, fused, look, normalised, sigmoid, softmax, to_size
from hsl.heads import Head, of_kind

MAX_OBJECTS = 2**16 - 1  # in a picture of 16 bits
Image = NDArray[np.uint8]
OpenSession = Callable[[Path, int | None], Session]


@dataclass(frozen=True, eq=False)
class Runner:
    """A model that has left the suite; it says what `hsl predict` says.

    Attributes:
        folder: the artefact.
        manifest: what it is.
        sessions: that run its graphs, in the order of ``manifest.models``.
        decoding: how files become RGB.

    Example:
        ``Runner.open("leaves").predict(runner.decode(data, name)).class_map("segmentation")``
    """

    folder: Path
    manifest: Manifest
    sessions: Sequence[Session]
    decoding: Decoding

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        value_range: tuple[float, float] | None = None,
        max_megapixels: float | None = None,
        threads: int | None = None,
        open_session: OpenSession | None = None,
    ) -> Runner:
        """Open an artefact; its files are compared with their SHA-256.

        Args:
            folder: that `hsl export` made.
            value_range: what becomes black and white in pictures of more than 8 bits; ``None``: as in training.
            max_megapixels: larger pictures are refused; ``None``: as in training.
            threads: of the processor that a graph may use; ``None``: all.
            open_session: opens a graph, in place of what the artefact names.

        Raises:
            ConfigError: it is no artefact, one of a newer format, or a package is missing.
            DataError: something in it is missing, damaged or changed.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if any(head.name == DISTANCE for model in manifest.models for head in model.outputs):
            needs("A model that cuts objects apart", ["skimage", "scipy"])
        opened = open_session or session_of(manifest.runtime)
        known = manifest.decoding
        decoding = Decoding(
            value_range=value_range or known.value_range,
            max_megapixels=known.max_megapixels if max_megapixels is None else max_megapixels,
            bits=known.bits if value_range is None else None,
            range_key="value_range",
        )
        sessions = [opened(folder / model.file, threads) for model in manifest.models]
        return cls(folder, manifest, sessions, decoding)

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
            NonFiniteLogitsError: the network gives something else than numbers.
            DataError: there are more objects than a map of 16 bits holds.
        """
        return self.predict_many([image])[0]

    def predict_many(self, images: Sequence[Image]) -> list[Prediction]:
        """The same of several pictures; those that the network sees at one size travel together."""
        (model,), (session,) = self.manifest.models, self.sessions
        return [self._prediction(model, outputs) for outputs in outputs_of(session, model, images)]

    def _prediction(self, model: Model, outputs: Outputs) -> Prediction:
        probabilities = {name: probabilities_of(outputs[name], head) for name, head in self.heads.items()}
        objects = None
        if DISTANCE in outputs:
            objects = objects_of(probabilities[_scored(model)], outputs[DISTANCE])
        return Prediction(self.heads, probabilities, self.manifest.thresholds, objects)


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
    kinds = {head.name: head.kind for head in model.outputs}
    sized = {
        head: output if kinds[head] == "image" else to_size(output, *image.shape[:2])
        for head, output in outputs.items()
    }
    return sized if model.fusion is None else {**sized, model.fusion.head: fused(sized, model.fusion)}


def probabilities_of(logits: Array, head: Head) -> Array:
    """Softmax over the classes; a sigmoid for each where an image may show several."""
    return sigmoid(logits) if head.kind == "image" and head.several else softmax(logits)


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


def _scored(model: Model) -> str:
    """The dense head whose objects the distances belong to."""
    return of_kind(model.outputs, "dense")[0].name if model.fusion is None else model.fusion.head


def onnx_session(path: Path, threads: int | None) -> Session:
    """A graph in onnxruntime, on the processor."""
    needs("This artefact", ["onnxruntime"])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in opened.get_outputs()]
    return lambda batch: dict(zip(names, opened.run(names, {"image": batch}), strict=True))


def openvino_session(path: Path, threads: int | None) -> Session:
    """A graph in OpenVINO, on the processor, in float32."""
    needs("This artefact", ["openvino"])
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or 0}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    names = [output.any_name for output in compiled.outputs]
    return lambda batch: {name: compiled(batch)[name] for name in names}


def torch_session(path: Path, threads: int | None) -> Session:
    """A program of ``torch.export``, which gives its outputs by head."""
    needs("This artefact", ["torch"])
    import torch

    del threads  # torch has one number for the whole process: `torch.set_num_threads`
    program = torch.export.load(path).module()

    def run(batch: Array) -> Mapping[str, Array]:
        with torch.inference_mode():
            return {head: output.numpy() for head, output in program(torch.from_numpy(batch)).items()}

    return run


def session_of(runtime: Runtime) -> OpenSession:
    """What opens the graphs of a runtime."""
    match runtime:
        case "onnx":
            return onnx_session
        case "openvino":
            return openvino_session
        case "torch_export":
            return torch_session
