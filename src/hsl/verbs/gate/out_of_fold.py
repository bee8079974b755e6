"""The rows of a gate: every picture as the model saw it that was not trained on it, and as the frozen encoder does."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from hsl.data.files.decoding import Decoding
from hsl.data.labels.image_labels import HEAD
from hsl.data.prepared import PreparedData
from hsl.errors import DataError
from hsl.exporting.gate_fit import ALL, GateRows
from hsl.exporting.gate_rules import SegmentationRule
from hsl.exporting.generic_encoder import FrozenEncoder
from hsl.exporting.prediction import Prediction
from hsl.heads import Head
from hsl.reports.scores import Scores, total_counts
from hsl.run_folder.run import Run, ScoredOn
from hsl.verbs.ensemble.gathering import Members, probability_map
from hsl.verbs.ensemble.members import Member

Maps = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Voters:
    """The members that a gate is calibrated with: their mean probabilities, each out of fold.

    Attributes:
        found: all members of the call.
        members: one, or those that vote.
        data: what they were trained on.
    """

    found: Members
    members: Sequence[Member]
    data: PreparedData

    @property
    def run(self) -> Run:
        """One of their runs, for what they have in common."""
        return next(iter(self.members[0].runs.values()))

    @property
    def head(self) -> str:
        """The dense head in which all are scored."""
        return str(list(self.run.provenance["classes"])[-1])

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that overlap; else none."""
        return tuple(self.found.classes[1:]) if self.run.overlapping else ()

    @property
    def heads(self) -> dict[str, Head]:
        """What a `Prediction` of theirs has."""
        dense = {name: Head(name, "dense", ("absent", name)) for name in self.channels}
        dense = dense or {self.head: Head(self.head, "dense", tuple(self.found.classes))}
        return dense | ({name: self.image_head for name in [self.run.image_head] if name})

    @property
    def image_head(self) -> Head:
        """The head that says what a picture shows."""
        metrics = self.run.metrics
        classes = metrics.image_classes.get(self.run.image_head, []) if metrics else []
        return Head(self.run.image_head, "image", tuple(classes), self.run.several)

    def prediction(self, name: str) -> Prediction:
        """What they say of the pixels of a picture; of its image classes, see `shown`."""
        maps = np.mean([probability_map(self.found, member, name) for member in self.members], axis=0)
        planes = {channel: np.stack([1 - plane, plane]) for channel, plane in zip(self.channels, maps, strict=False)}
        return Prediction(self.heads, planes or {self.head: maps.astype(np.float32)})

    def planes(self, name: str) -> list[Maps]:
        """What is said of the pixels of a picture, ``(C, H, W)`` of each dense head."""
        return list(self.prediction(name).probabilities.values())

    def shown(self) -> Mapping[str, Sequence[str]]:
        """Id to the classes that the image head finds, by their mean; none without such a head."""
        if not self.run.image_head:
            return {}
        on, classes = ScoredOn("val", self.found.inference), self.image_head.classes
        votes: dict[str, list[NDArray[np.float64]]] = {}
        for member in self.members:
            for run in member.runs.values():
                pictures = run.image_pictures[on]
                values = pictures.predicted if pictures.several else pictures.probabilities
                for name, row in zip(pictures.ids, values.astype(np.float64), strict=True):
                    votes.setdefault(name, []).append(row)
        means = {name: np.mean(rows, axis=0) for name, rows in votes.items()}
        several = self.image_head.several
        chosen = {
            name: np.flatnonzero(m >= 0.5).tolist() if several else [int(m.argmax())] for name, m in means.items()
        }
        return {name: [classes[i] for i in places] for name, places in chosen.items()}

    def labels(self, ids: Sequence[str]) -> list[list[str]]:
        """The image classes that each picture is known to show; ``all`` where the data have none."""
        known = self.data.image_labels
        if known is None:
            return [[ALL] for _ in ids]
        table, classes = known.shown(), self.data.image_classes[HEAD]
        return [[classes[i] for i in np.flatnonzero(table[self.data.places[name]])] for name in ids]

    def images(self, ids: Sequence[str]) -> Iterator[NDArray[np.uint8]]:
        """The pictures themselves, decoded as in training."""
        decoding = Decoding.of(self.data.catalogue)
        for name in ids:
            yield decoding.image(self.data.catalogue.records[self.data.places[name]].image)


def mask_of(voters: Voters, name: str) -> NDArray[np.uint8]:
    """The predicted classes of a picture; of channels the highest that is there, 0 where none is."""
    said = voters.prediction(name)
    if not voters.channels:
        return said.class_map(voters.head)
    planes = np.stack([said.probabilities[channel][1] for channel in voters.channels])
    return np.where(planes.max(axis=0) >= 0.5, planes.argmax(axis=0) + 1, 0).astype(np.uint8)


def gate_rows(
    voters: Voters, rule: SegmentationRule, encoder: FrozenEncoder, told: Callable[[Sequence[str]], Iterator[str]]
) -> GateRows:
    """The rows of all pictures outside the test part.

    Args:
        voters: whose maps are kept already, see `hsl.verbs.ensemble.member_rows`.
        rule: by whose head, signals and confidence the scores are made; its thresholds play no part.
        encoder: that makes the features.
        told: goes through the ids and shows how far it is.

    Raises:
        DataError: a picture cannot be read, or was not held out by the model that predicted it.
    """
    folds, shown = voters.found.folds, voters.shown()
    ids = sorted(folds)
    scores: dict[str, list[float]] = {}
    for name in told(ids):
        for key, value in rule.scores(voters.prediction(name)).items():
            scores.setdefault(key, []).append(value)
    trained = {
        fold: {name for member in voters.members for name in member.trained[fold]} for fold in voters.members[0].runs
    }
    try:
        return GateRows(
            ids=ids,
            groups=[voters.data.group(name) for name in ids],
            labels=voters.labels(ids),
            shown=[shown.get(name, []) for name in ids],
            folds=np.array([folds[name] for name in ids], dtype=np.int64),
            scores={key: np.array(values) for key, values in scores.items()},
            features=encoder.features_of(voters.images(list(told(ids)))),
            trained=trained,
        )
    except ValueError as error:
        raise DataError(str(error)) from error


def miou_of(member: Member, inference: str) -> float:
    """Mean IoU of the counts of all folds together, each scored on the pictures that it was not trained on.

    Raises:
        DataError: a fold left no counts.
    """
    counts = [total_counts(run, ScoredOn("val", inference)) for run in member.runs.values()]
    if any(one is None for one in counts):
        raise DataError(
            f"{member.name} should have the pixel counts of every fold. Found a run without. Score it with "
            "`hsl evaluate`."
        )
    known = [one for one in counts if one is not None]
    return float(Scores.of_counts(reduce(operator.add, known)).overall["miou"])
