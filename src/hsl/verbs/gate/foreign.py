"""Pictures of other kinds, judged by a gate: what it should refuse."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from hsl.config.targets import allowed_targets
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record
from hsl.data.formats.folder import read_pictures
from hsl.errors import UserError
from hsl.exporting.gate import Gate, Verdict
from hsl.exporting.generic_encoder import FrozenEncoder
from hsl.exporting.prediction import Prediction
from hsl.terminal import say
from hsl.verbs.ensemble.members import Member
from hsl.verbs.predict.foreign_pictures import foreign_decoding
from hsl.verbs.predict.outputs import RunModel


class Foreign(NamedTuple):
    """A picture of another kind, and what the gate says of it."""

    kind: str
    name: str
    image: NDArray[np.uint8]
    verdict: Verdict


def judge_foreign(cfg: DictConfig, members: Sequence[Member], gate: Gate, encoder: FrozenEncoder) -> list[Foreign]:
    """Judge the folders of ``cfg.foreign`` by the models of the first fold; a picture that cannot be read is told.

    Raises:
        DataError: a folder holds no picture.
    """
    if not cfg.foreign:
        return []
    read = {Path(folder).name: read_pictures(folder)[0] for folder in cfg.foreign}
    command = OmegaConf.create(
        {"inference": None, "evaluation_size": None, "max_megapixels": None, "value_range": None}
    )
    runs = [str(member.folders[0]) for member in members]
    models = [RunModel.of(run, command, allowed_targets(cfg)) for run in runs]
    for model in models:
        model.cfg.data.num_workers = 0  # one picture at a time
    decoding = foreign_decoding(command, models[0].facts, models[0].max_megapixels)
    judged: list[Foreign] = []
    for kind, records in read.items():
        images = {record.id: record.image for record in records}
        for name, said in _predictions(models, records, decoding):
            image = decoding.image(images[name])
            judged.append(Foreign(kind, name, image, gate.judge(said, encoder.features(image))))
    return judged


def _predictions(
    models: Sequence[RunModel], records: Sequence[Record], decoding: Decoding
) -> Iterator[tuple[str, Prediction]]:
    """Id and mean of what the models say."""
    for record in records:
        said = [dict(model.predictions([record], decoding, _told)) for model in models]
        if all(said):
            each = [one[record.id] for one in said]
            first = each[0]
            means = {head: np.mean([one.probabilities[head] for one in each], axis=0) for head in first.probabilities}
            yield record.id, Prediction(first.heads, means, first.thresholds)


def _told(error: UserError) -> None:
    say(f"! {error}")
