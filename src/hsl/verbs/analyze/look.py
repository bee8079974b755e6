"""One trained classifier looked into: where it looks, what its stages give, what it predicts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsl.data.files.decoding import Decoding
from hsl.data.labels.image_labels import HEAD
from hsl.metrics.finite import check_outputs
from hsl.metrics.images.image_scores import predicted_labels
from hsl.metrics.images.imagewise import probabilities_of
from hsl.pseudo_labels.networks import class_activation
from hsl.reports.analysis.drawings import Picture, heat_map, heat_overlay
from hsl.reports.analysis.numbers import Attention, ClassAttention, StageActivations, attention_share
from hsl.verbs.analyze.analyzed_runs import AnalysedPictures, OpenedRun
from hsl.verbs.label.classifiers import Classifier, open_classifier
from hsl.verbs.scoring.image_results import stored_thresholds


@dataclass(frozen=True, eq=False)
class Look:
    """What was found in one run.

    Attributes:
        sha256: of its checkpoint.
        probabilities: ``(N, K)``.
        predicted: ``(N, K)``: the classes that it says each picture shows.
        examples: (place of the picture, class) to the picture with its heat map.
        means: class to its mean heat map; a class that no picture shows has none.
        attention: by class name; None where the data set has no masks.
        stages: by stride.
        features: ``(N, C)``: mean over the pixels of the encoder's last features.
    """

    sha256: str
    probabilities: NDArray[np.float32]
    predicted: NDArray[np.bool_]
    examples: Mapping[tuple[int, int], Picture]
    means: Mapping[int, Picture]
    attention: Mapping[str, ClassAttention] | None
    stages: Mapping[int, StageActivations]
    features: NDArray[np.float32]


def look_into(run: OpenedRun, pictures: AnalysedPictures) -> Look:
    """Load a run, show it all pictures, and let go of it again."""
    classifier = open_classifier(run.folder, run.cfg.copy())
    heat = _Heat(pictures)
    stages: dict[int, StageActivations] = {}
    logits, pooled = [], []
    for start, images in _batches(classifier, pictures):
        features, last, found = _forward(classifier.task.network, images)
        check_outputs({HEAD: found}, pictures.ids[start : start + len(images)], f"analysis of {run.path}")
        logits.append(found)
        pooled.append(last)
        for stride, stage in features.items():
            stages[stride] = stages[stride] + stage if stride in stages else stage
        heat.add(classifier.task.network, start, images)
    probabilities = probabilities_of(torch.cat(logits), pictures.several).numpy()
    limits = stored_thresholds(run.folder, HEAD, pictures.classes, "plain") if pictures.several else None
    return Look(
        sha256=classifier.sha256,
        probabilities=probabilities,
        predicted=predicted_labels(probabilities, pictures.several, limits),
        examples=heat.examples,
        means=heat.means(),
        attention=heat.attention(),
        stages=stages,
        features=torch.cat(pooled).numpy(),
    )


def _batches(classifier: Classifier, pictures: AnalysedPictures) -> Iterator[tuple[int, Tensor]]:
    """Place of the first picture, and pictures as the network takes them."""
    start = 0
    for batch in classifier.data.predict_dataloader(pictures.records, Decoding.of(pictures.catalogue)):
        batch["image"] = batch["image"].to(classifier.task.device)
        images = classifier.data.on_after_batch_transfer(batch, 0)["image"]
        yield start, images
        start += len(images)


@torch.no_grad()
def _forward(network: Any, images: Tensor) -> tuple[dict[int, StageActivations], Tensor, Tensor]:
    """Activations by stride, pooled last features ``(B, C)``, logits ``(B, K)``; the first feature is the picture."""
    features: list[Tensor] = network.encoder(images)
    stages = {
        2**level: StageActivations.of(feature)
        for level, feature in enumerate(features)
        if level and feature.shape[1]  # some encoders have nothing at stride 2
    }
    pooled = features[-1].float().mean(dim=(2, 3)).cpu()
    return stages, pooled, network.heads[HEAD](features[-1]).float().cpu()


class _Heat:
    """Heat maps of the classes that the pictures show, reduced to what the analysis keeps."""

    def __init__(self, pictures: AnalysedPictures) -> None:
        self.pictures = pictures
        self.examples: dict[tuple[int, int], Picture] = {}
        self._shown = {(place, k) for k, places in pictures.examples.items() for place in places}
        self._sums: dict[int, NDArray[np.float64]] = {}
        self._found: dict[int, list[Attention | None]] = {k: [] for k in range(len(pictures.classes))}
        self._num_masks = 0

    def add(self, network: torch.nn.Module, start: int, images: Tensor) -> None:
        """A batch; the first of its pictures has the place ``start``."""
        pairs = np.argwhere(self.pictures.target[start : start + len(images)] == 1)
        for few in np.array_split(pairs, -(-len(pairs) // len(images)) or 1):
            if not len(few):
                continue
            rows, classes = torch.from_numpy(few).to(images.device).unbind(1)
            for cam, (row, k) in zip(class_activation(network, images[rows], classes), few.tolist(), strict=True):
                self._keep(cam, start + row, k)

    def means(self) -> dict[int, Picture]:
        counts = (self.pictures.target == 1).sum(axis=0)
        return {k: heat_map(total / counts[k]) for k, total in sorted(self._sums.items())}

    def attention(self) -> dict[str, ClassAttention] | None:
        if not self._num_masks:
            return None
        return {self.pictures.classes[k]: ClassAttention.of(found) for k, found in self._found.items()}

    def _keep(self, cam: NDArray[np.float32], place: int, k: int) -> None:
        self._sums[k] = self._sums.get(k, 0.0) + cam.astype(np.float64)
        if (place, k) in self._shown:
            self.examples[place, k] = heat_overlay(self.pictures.thumbnail(place), cam)
        mask = self.pictures.mask(place)
        if mask is not None:
            self._num_masks += 1
            height, width = mask.shape
            sized = np.asarray(cv2.resize(cam, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
            self._found[k].append(attention_share(sized, mask))
