"""Per-image rows, confusion matrices and the best and worst pictures of an evaluation."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor, nn

from hsl.batch import IGNORE_INDEX, Batch, Outputs
from hsl.metrics.functional import confusion_matrix, scores

Predictor = Callable[[nn.Module, Tensor], Outputs]


@dataclass(frozen=True)
class Example:
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
    """Scores every picture of a test run.

    One instance per predictor: the plain one reads what the task predicted; another (test-time augmentation) asks
    the task to predict with its own predictor.

    Args:
        inference: the name of the scores: ``plain``, ``tta``.
        num_examples: how many of the best and of the worst pictures are kept.
        predictor: null = the task's own.
        head: the dense head that is scored.
    """

    def __init__(
        self,
        inference: str,
        num_examples: int = 30,
        predictor: Predictor | None = None,
        head: str = "segmentation",
    ) -> None:
        self.inference = inference
        self.num_examples = num_examples
        self.predictor = predictor
        self.head = head
        self.parts: dict[int, PartResult] = {}

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.parts = {}

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        predicted: Outputs = outputs
        if self.predictor is not None:
            predicted = cast(Any, pl_module).predict(batch, self.predictor)
        part = self.parts.setdefault(dataloader_idx, PartResult(self.num_examples))
        part.add(predicted[self.head], batch, self.head)


class PartResult:
    """What is known of one part (val, test) under one predictor.

    ``ids``, ``confusions`` (one ``int64 (C, C)`` each) and ``confidences`` (mean top probability over the valid
    pixels, NaN without any) are in the order of the pictures seen.
    """

    def __init__(self, num_examples: int) -> None:
        self.ids: list[str] = []
        self.confusions: list[NDArray[np.int64]] = []
        self.confidences: list[float] = []
        self._best: list[Example] = []
        self._worst: list[Example] = []
        self._num_scored = 0
        self._num_examples = num_examples

    def add(self, logits: Tensor, batch: Batch, head: str) -> None:
        """Take the logits ``(B, C, H, W)`` of one batch."""
        target = batch["masks"][head]
        confidence, prediction = logits.softmax(dim=1).max(dim=1)
        valid = target != IGNORE_INDEX
        mean = (confidence * valid).sum(dim=(1, 2)) / valid.sum(dim=(1, 2))  # 0/0 = NaN: no valid pixel
        matrices = confusion_matrix(prediction, target, logits.shape[1], per_image=True).cpu().numpy()
        self.ids += batch["id"]
        self.confusions += list(matrices)
        self.confidences += mean.tolist()
        if self._num_examples:
            self._keep_examples(batch, matrices, prediction, confidence)

    def _keep_examples(self, batch: Batch, matrices: NDArray[np.int64], prediction: Tensor, confidence: Tensor) -> None:
        for i, name in enumerate(batch["id"]):
            miou = float(scores(torch.from_numpy(matrices[i]))["miou"])
            if np.isnan(miou):
                continue
            self._num_scored += 1
            height, width = batch["size"][i].tolist()
            classes = prediction[i, :height, :width].to(torch.uint8).cpu().numpy()
            example = Example(name, miou, classes, confidence[i, :height, :width].cpu().numpy())
            for kept in (self._best, self._worst):
                kept.append(example)
        self._best = heapq.nlargest(self._num_examples, self._best, key=lambda one: one.order)
        self._worst = heapq.nsmallest(self._num_examples, self._worst, key=lambda one: one.order)

    def examples(self) -> tuple[Sequence[Example], Sequence[Example]]:
        """Best pictures, best first, and worst pictures, worst first; none is in both."""
        half = self._num_scored // 2  # few pictures: the better half and the worse half
        return self._best[: self._num_scored - half], self._worst[:half]
