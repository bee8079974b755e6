"""A run folder or an ensemble as the server sees a model: pictures in, `Prediction` out, as in `hsl predict`."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from hsl.batch import DISTANCE, Outputs
from hsl.data.files.decoding import Decoding, Picture
from hsl.data.files.records import Record
from hsl.errors import DataError, UserError
from hsl.exporting.gate import Gate, Verdict
from hsl.exporting.generic_encoder import FrozenEncoder
from hsl.exporting.prediction import Prediction
from hsl.heads import Head
from hsl.metrics.objects.watershed import objects_of
from hsl.verbs.ensemble.predicting import EnsembleModel, open_model
from hsl.verbs.predict.foreign_pictures import foreign_decoding
from hsl.verbs.predict.outputs import RunModel, predicted_outputs, prediction_of, refuse_bands
from hsl.verbs.predict.predict import HEAD, MAX_OBJECTS


@dataclass(frozen=True, eq=False)
class ServedRun:
    """See `hsl.serving.served.Served`.

    Attributes:
        model: opened.
        decoding: of the pictures.
        heads: what the outputs are.
        gate: knows pictures of another kind; ``None``: none was asked for.
        encoder: makes the features that the gate reads.
    """

    model: RunModel | EnsembleModel
    decoding: Decoding
    heads: Mapping[str, Head]
    gate: Gate | None = None
    encoder: FrozenEncoder | None = None

    @property
    def gated(self) -> bool:
        """Whether there is a gate."""
        return self.gate is not None

    @classmethod
    def open(cls, cfg: DictConfig) -> "ServedRun":
        """That of ``cfg.model``, with its weights in memory."""
        cfg.run = cfg.model
        opened = open_model(cfg)
        refuse_bands(opened.facts, "A served model")
        for run in opened.runs:
            run.cfg.data.num_workers = 0
        read = opened.runs[0].task.problem.readings if isinstance(opened, RunModel) else {}  # these have no outputs
        heads = {name: head for name, head in opened.heads.items() if name not in read}
        gate = None if cfg.gate is None else Gate.read(Path(cfg.gate))
        if gate is not None:
            gate.check_classes(heads)
        encoder = None if gate is None else FrozenEncoder.open(Path(cfg.gate), gate)
        served = cls(opened, foreign_decoding(cfg, opened.facts, opened.max_megapixels), heads, gate, encoder)
        served.predict_many([np.zeros((64, 64, 3), np.uint8)])  # what is built at the first picture is built now
        return served

    def decode(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """As `hsl predict` decodes it."""
        return self.decoding.image_of(data, name)

    def predict_many(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """As `hsl predict` computes it."""
        if isinstance(self.model, RunModel):
            outputs = dict(_outputs(self.model, images))
        else:
            outputs = _of_ensemble(self.model, images)
        each = [outputs[str(place)] for place in range(len(images))]
        return [_with_objects(prediction_of(one, self.heads, self.model.thresholds), one) for one in each]

    def judge(self, image: NDArray[np.uint8], said: Prediction) -> Verdict | None:
        """What the gate says."""
        if self.gate is None or self.encoder is None:
            return None
        return self.gate.judge(said, self.encoder.features(image))

    def card(self) -> str:
        """What the run folder says of itself."""
        facts = self.model.facts
        lines = [f"- {head.name} ({head.kind}): {', '.join(head.classes)}" for head in self.heads.values()]
        return "\n".join(
            ["# A model of hsl", "", f"Trained {facts.get('started', 'at an unknown time')}.", "", *lines, ""]
        )


def _outputs(model: RunModel, images: Sequence[NDArray[np.uint8]]) -> list[tuple[str, dict[str, Tensor]]]:
    return [
        pair
        for batch in model.data.batches_of(images)
        for pair in predicted_outputs(model.task, model.data, batch, _raise)
    ]


def _raise(error: UserError) -> None:
    raise error


@dataclass(frozen=True)
class _InMemory:
    """A picture that is decoded already, as a source and as what decodes it."""

    image: NDArray[np.uint8]
    name: str = "picture"


class _Decoded:
    def __call__(self, record: Record) -> Picture:
        return Picture(cast(Any, record.image).image, None)


def _of_ensemble(model: EnsembleModel, images: Sequence[NDArray[np.uint8]]) -> dict[str, Outputs]:
    records = [Record(str(i), cast(Any, _InMemory(image)), None, None, {}, None) for i, image in enumerate(images)]
    with tempfile.TemporaryDirectory() as folder:
        found = model.outputs(records, cast(Any, _Decoded()), _raise, _ignore, Path(folder) / "maps")
        return dict(found)


def _ignore(_: Any) -> None:
    """The batch needs no look."""


def _with_objects(said: Prediction, outputs: Outputs) -> Prediction:
    """The same, with the objects cut apart where there is a distance head.

    Raises:
        DataError: there are more objects than a map of 16 bits holds.
    """
    if DISTANCE not in outputs:
        return said
    ids = objects_of(outputs[HEAD], outputs[DISTANCE])
    if int(ids.max(initial=0)) > MAX_OBJECTS:
        raise DataError(f"`picture` should have at most {MAX_OBJECTS} objects. Found more. Cut it into parts.")
    return replace(said, objects=ids.astype(np.uint16))
