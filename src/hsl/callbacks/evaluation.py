"""Per-image counts, class maps and the best and worst pictures of an evaluation."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from hsl.batch import DISTANCE, IGNORE_INDEX, Batch, Outputs
from hsl.callbacks.processes import by_key, gathered, in_turn
from hsl.config.ranges import NonNegativeInt
from hsl.heads import Head, Problem, of_kind
from hsl.inference.global_space import channel_codes, read_as
from hsl.inference.predictor import Predictor
from hsl.metrics.images.imagewise import probabilities_of
from hsl.metrics.objects.watershed import objects_of
from hsl.metrics.pixels.formulas import States, confusion_scores, pool_channels
from hsl.metrics.pixels.pixelwise import Pixelwise

ClassMaps = Sequence[NDArray[np.uint8]]
ObjectMaps = Sequence[NDArray[np.int32]]
Sink = Callable[[str, Batch, ClassMaps, ObjectMaps | None], None]
"""Takes ``part/inference``, a batch, the class map of each of its pictures at the size of the source and, where the
network has a distance head, its map of predicted object ids."""


@dataclass(frozen=True)
class KeptPrediction:
    """One picture's prediction, kept because its score is among the best or the worst."""

    id: str
    miou: float
    prediction: NDArray[np.uint8]
    confidence: NDArray[np.float32]

    @property
    def order(self) -> tuple[float, str]:
        """By score, then id: a total order, so the choice does not depend on the order of the pictures."""
        return self.miou, self.id


class Evaluation(Callback):
    """Scores every picture of a test run by what one predictor says of it, which the task asks.

    Args:
        inference: the name of the scores: ``plain``, ``tta``.
        num_examples: how many of the best and of the worst pictures are kept.
        predictor: null = the task's own.
        head: the dense head whose pictures are kept. The others are scored as well.

    Attributes:
        parts: by loader, what is known of `head`; empty where the network has no such head.
        tasks: by loader and head, what is known of the other dense heads, or of the tasks that read the one.
        images: by loader and head, what is known of the image heads.
        sinks: what else wants every class map of the coming test run.
    """

    def __init__(
        self,
        inference: str,
        num_examples: NonNegativeInt = 30,
        predictor: Predictor | None = None,
        head: str = "segmentation",
    ) -> None:
        self.inference = inference
        self.num_examples = num_examples
        self.predictor = predictor
        self.head = head
        self.sinks: Sequence[Sink] = ()
        self.parts: dict[int, PartResult] = {}
        self.tasks: dict[int, dict[str, PartResult]] = {}
        self.images: dict[int, dict[str, ImageResult]] = {}

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.parts, self.tasks, self.images = {}, {}, {}

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch.get("spare"):
            return
        predicted: Outputs = outputs[self.inference]
        problem: Problem = cast(Any, pl_module).problem
        for head in of_kind(problem.heads, "image"):
            images = self.images.setdefault(dataloader_idx, {})
            images.setdefault(head.name, ImageResult(head)).add(predicted[head.name], batch)
        dense = {head.name: head for head in of_kind(problem.heads, "dense")}
        shown = dense.pop(self.head, None)
        for name, head in dense.items():
            result = self.tasks.setdefault(dataloader_idx, {}).setdefault(name, PartResult(num_examples=0))
            table = problem.readings.get(name)
            result.add(predicted[name if table is None else self.head], batch, head, table)
        if shown is None:
            return
        part = self.parts.setdefault(dataloader_idx, PartResult(self.num_examples))
        if shown.several:
            class_maps = part.add_channels(predicted, batch, problem.channels, self.tasks[dataloader_idx])
        else:
            class_maps = part.add(predicted[self.head], batch, shown)
        name = cast(Any, trainer).datamodule.prepared.evaluation_parts[dataloader_idx]
        for sink in self.sinks:
            sink(f"{name}/{self.inference}", batch, class_maps, _objects(predicted, batch, self.head))

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Gives the first process what all of them saw, as one alone would have seen it."""
        if trainer.world_size > 1 and (shares := gathered((self.parts, self.tasks, self.images))):
            parts, tasks, images = (by_key(each) for each in zip(*shares, strict=True))
            self.parts = {index: PartResult.of_shares(each) for index, each in parts.items()}
            self.tasks = {index: _joined(PartResult, each) for index, each in tasks.items()}
            self.images = {index: _joined(ImageResult, each) for index, each in images.items()}


def _joined(kind: type[Any], shares: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By head what several processes saw."""
    return {head: kind.of_shares(each) for head, each in by_key(shares).items()}


def _objects(outputs: Outputs, batch: Batch, head: str) -> ObjectMaps | None:
    """The objects of each picture, cut apart by the predicted distance; ``None`` without a distance head."""
    if DISTANCE not in outputs:
        return None
    pairs = zip(outputs[head], outputs[DISTANCE], batch["size"].tolist(), strict=True)
    return [objects_of(logits[:, :h, :w], distance[:, :h, :w]) for logits, distance, (h, w) in pairs]


class ImageResult:
    """What an image head says of the pictures of one part, under one predictor.

    ``targets`` are ``()`` or ``(K,)`` a picture, ``probabilities`` ``(K,)``; in the order of the pictures seen.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self.ids: list[str] = []
        self.probabilities: list[NDArray[np.float32]] = []
        self.targets: list[NDArray[Any]] = []

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Take the logits ``(B, K)`` of one batch."""
        self.ids += batch["id"]
        self.probabilities += list(probabilities_of(logits, self.head.several).cpu().numpy())
        self.targets += list(batch["labels"][self.head.name].cpu().numpy())

    @classmethod
    def of_shares(cls, shares: Sequence["ImageResult"]) -> "ImageResult":
        """What several processes saw, in the order of one."""
        result = cls(shares[0].head)
        for name in ("ids", "probabilities", "targets"):
            setattr(result, name, in_turn([getattr(share, name) for share in shares]))
        return result


class PartResult:
    """What is known of one part (val, test) under one predictor.

    ``ids``, ``counts`` (the states of ``Pixelwise`` after each picture alone) and ``confidences`` (mean top
    probability over the valid pixels, NaN without any) are in the order of the pictures seen.
    """

    def __init__(self, num_examples: int) -> None:
        self.ids: list[str] = []
        self.counts: list[States] = []
        self.confidences: list[float] = []
        self._best: list[KeptPrediction] = []
        self._worst: list[KeptPrediction] = []
        self._num_scored = 0
        self._num_examples = num_examples

    def add(self, logits: Tensor, batch: Batch, head: Head, table: Tensor | None = None) -> list[NDArray[np.uint8]]:
        """Take the logits ``(B, C, H, W)`` of one batch.

        Args:
            logits: of the head, or of the head that a task reads.
            batch: with the masks of the head.
            head: whose masks are the truth.
            table: how a task reads the classes of the logits; none: they are the head's own.

        Returns:
            The class map of each picture, at the size of its source.
        """
        metric = Pixelwise(len(head.classes)).to(batch["image"].device)
        class_maps = []
        for i, (name, (height, width)) in enumerate(zip(batch["id"], batch["size"].tolist(), strict=True)):
            # one picture at a time, since those of a sliding window come from the host and are large
            picture = logits[i : i + 1, :, :height, :width].to(batch["image"].device)
            target = batch["masks"][head.name][i : i + 1, :height, :width]
            confidence, prediction = picture.softmax(dim=1).max(dim=1)
            read = None
            if table is not None:
                picture, read = read_as(picture, table)
                prediction, confidence = read, picture.gather(1, read[:, None])[:, 0].exp()
            valid = target != IGNORE_INDEX
            metric.reset()
            metric.update(picture, target, prediction=read)
            self.ids.append(name)
            self.counts.append(metric.states())
            self.confidences.append(float((confidence * valid).sum() / valid.sum()))  # 0/0 = NaN: no valid pixel
            class_maps.append(prediction[0].to(torch.uint8).cpu().numpy())
            if self._num_examples:
                self._keep(name, class_maps[-1], confidence[0])
        return class_maps

    def add_channels(
        self, outputs: Outputs, batch: Batch, channels: Sequence[str], results: Mapping[str, "PartResult"]
    ) -> list[NDArray[np.uint8]]:
        """Take what the heads of overlapping channels say of one batch, which ``results`` have taken before.

        The counts of each picture are those of its channels, pooled by `hsl.metrics.pixels.formulas.pool_channels`.

        Returns:
            The codes of each picture, see `hsl.channels`, at the size of its source.
        """
        maps = []
        for i, (name, (height, width)) in enumerate(zip(batch["id"], batch["size"].tolist(), strict=True)):
            place = len(self.ids)
            one = {channel: outputs[channel][i : i + 1, :, :height, :width] for channel in channels}
            codes, confidence = (each[0].cpu() for each in channel_codes(one, channels))
            self.ids.append(name)
            self.counts.append(pool_channels([results[channel].counts[place] for channel in channels]))
            self.confidences.append(float(np.mean([results[channel].confidences[place] for channel in channels])))
            maps.append(codes.numpy())
            if self._num_examples:
                self._keep(name, maps[-1], confidence)
        return maps

    @classmethod
    def of_shares(cls, shares: Sequence["PartResult"]) -> "PartResult":
        """What several processes saw, in the order of one."""
        result = cls(shares[0]._num_examples)
        for name in ("ids", "counts", "confidences"):
            setattr(result, name, in_turn([getattr(share, name) for share in shares]))
        result._num_scored = sum(share._num_scored for share in shares)
        for share in shares:
            result._take(share._best, share._worst)
        return result

    def _keep(self, name: str, class_map: NDArray[np.uint8], confidence: Tensor) -> None:
        miou = float(confusion_scores(self.counts[-1]["matrices"].sum(axis=0))["miou"])
        if np.isnan(miou):
            return
        self._num_scored += 1
        example = KeptPrediction(name, miou, class_map, confidence.cpu().numpy())
        self._take([example], [example])

    def _take(self, best: Sequence[KeptPrediction], worst: Sequence[KeptPrediction]) -> None:
        self._best = heapq.nlargest(self._num_examples, [*self._best, *best], key=lambda one: one.order)
        self._worst = heapq.nsmallest(self._num_examples, [*self._worst, *worst], key=lambda one: one.order)

    def examples(self) -> tuple[Sequence[KeptPrediction], Sequence[KeptPrediction]]:
        """Best pictures, best first, and worst pictures, worst first; none is in both."""
        half = self._num_scored // 2  # few pictures: the better half and the worse half
        return self._best[: self._num_scored - half], self._worst[:half]
