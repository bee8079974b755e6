"""Outputs and objectives that have to be numbers; the metrics of every head, and the names they are logged under."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from hsl.batch import Batch, Objectives, Outputs
from hsl.errors import ConfigError, NonFiniteLogitsError, UserError
from hsl.heads import Problem, of_kind
from hsl.inference.global_space import read_as
from hsl.metrics.finite import broken_images, refuse
from hsl.metrics.images.imagewise import ImageScores
from hsl.metrics.pixels.formulas import pixel_scores, pool_channels
from hsl.metrics.pixels.pixelwise import Pixelwise


class NonFiniteLossError(UserError, ArithmeticError):
    """An objective became NaN or infinite. The message names it, the step and the batch's ids."""


def check_finite(outputs: Outputs, objectives: Objectives, ids: Sequence[str], place: str) -> None:
    """Stop at an output or a loss that is NaN or infinite; it is never replaced by a constant.

    All of them travel to the host in one transfer, so on an accelerator this costs one synchronisation a step.

    Args:
        outputs: of the network, by head.
        objectives: scalars by name.
        ids: ids of the images in the batch.
        place: epoch and step.

    Raises:
        NonFiniteLogitsError: an output is not finite; it is told before a loss that was made from it.
        NonFiniteLossError: an objective is not finite.

    Example:
        >>> check_finite({}, {"dice": torch.tensor(float("nan"))}, ["a"], "epoch 1, step 7")
        Traceback (most recent call last):
        ...
        hsl.tasks.scoring.NonFiniteLossError: ...
    """
    flags = [broken_images(output).float() for output in outputs.values()]
    losses = [objective.detach().float().reshape(1) for objective in objectives.values()]
    values = torch.cat([*flags, *losses]).tolist()
    count = len(outputs) * len(ids)
    rows = [values[start : start + len(ids)] for start in range(0, count, len(ids))]
    refuse(outputs, [[flag == 1 for flag in row] for row in rows], ids, place)
    broken = {name: value for name, value in zip(objectives, values[count:], strict=True) if not math.isfinite(value)}
    if broken:
        found = ", ".join(f"`{name} = {value}`" for name, value in broken.items())
        raise NonFiniteLossError(
            f"Every objective should be finite. Found {found} for {', '.join(ids)} ({place}). "
            f"{NonFiniteLogitsError.ADVICE}"
        )


class Scoring(nn.Module):
    """Metrics by head. A dense head has those it is given, an image head `ImageScores`.

    Args:
        metrics: each called with ``num_classes`` once per dense head; updated with logits and masks.
        problem: its heads; the scores of one whose pixels may show several classes are made from what the heads of its
            channels count.

    Raises:
        ConfigError: there are channels, and a metric that cannot be pooled over them.
    """

    def __init__(self, metrics: Mapping[str, Callable[..., Metric]], problem: Problem) -> None:
        super().__init__()
        self.readings, self.channels = problem.readings, problem.channels
        self.scored_head = "" if problem.scored_head is None else problem.scored_head.name
        self.dense = nn.ModuleDict(
            {
                head.name: nn.ModuleDict({name: make(num_classes=len(head.classes)) for name, make in metrics.items()})
                for head in of_kind(problem.heads, "dense")
                if not head.several
            }
        )
        counted = [pair for head in self.channels for pair in self._of(head)]
        if odd := sorted({name for name, metric in counted if not isinstance(metric, Pixelwise)}):
            raise ConfigError(
                "`task.metrics` of overlapping channels should be `hsl.metrics.pixels.pixelwise.Pixelwise`, whose "
                f"counts are pooled over them. Found {odd}. Leave it away."
            )
        images = of_kind(problem.heads, "image")
        self.images = nn.ModuleDict({head.name: ImageScores(len(head.classes), head.several) for head in images})

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take the outputs of a validation batch, dense ones at the size of the masks; none of a spare batch."""
        counted = slice(0 if batch.get("spare") else None)  # of nothing, so that the states are of all processes
        for head, metrics in self._dense_heads():
            read = head in self.readings
            logits = outputs[self.scored_head if read else head][counted].to(batch["image"].device)
            further = {}
            if read:
                logits, further["prediction"] = read_as(logits, self.readings[head])
            for metric in metrics.values():
                metric.update(logits, batch["masks"][head][counted], size=batch["size"][counted], **further)
        for head, metric in self._image_heads():
            metric.update(outputs[head][counted], batch["labels"][head][counted])

    def collect(self, primary: Sequence[str]) -> dict[str, Tensor]:
        """The values to be logged, ``val/<score>`` and, of several dense heads, ``val/<score>/<head>``; starts anew.

        Args:
            primary: tasks whose harmonic mean of mIoU is ``val/h_mean``; those that are not scored are left out.
        """
        scores = self._pooled()
        for head, metrics in self._dense_heads():
            for metric in metrics.values():
                for name, value in metric.compute().items():
                    scores.setdefault(name, {})[head] = value
                metric.reset()
        found: dict[str, Tensor] = {}
        for name, values in scores.items():
            found[f"val/{name}"] = values[self.scored_head]
            if len(self.dense) > 1:
                found |= {f"val/{name}/{head}": value for head, value in values.items()}
        if means := [scores["miou"][head] for head in primary if head in scores.get("miou", {})]:
            found["val/h_mean"] = len(means) / torch.stack(means).reciprocal().sum()
        for _, image_metric in self._image_heads():
            found |= {f"val/{name}": value for name, value in image_metric.compute().items()}
            image_metric.reset()
        return found

    def _pooled(self) -> dict[str, dict[str, Tensor]]:
        """By score, that of `scored_head` over all overlapping channels; empty without any."""
        if not self.channels:
            return {}
        counted = []
        for _, metric in (pair for head in self.channels for pair in self._of(head)):
            with metric.sync_context():
                counted.append(cast(Pixelwise, metric).states())
        device = next(iter(self._of(self.channels[0])))[1].device
        pooled = pixel_scores(pool_channels(counted))
        return {name: {self.scored_head: torch.tensor(value, device=device)} for name, value in pooled.items()}

    def _of(self, head: str) -> list[tuple[str, Metric]]:
        return list(cast(Mapping[str, Metric], self.dense[head]).items())

    def _dense_heads(self) -> list[tuple[str, Mapping[str, Metric]]]:
        return [(head, cast(Mapping[str, Metric], metrics)) for head, metrics in self.dense.items()]

    def _image_heads(self) -> list[tuple[str, ImageScores]]:
        return [(head, cast(ImageScores, metric)) for head, metric in self.images.items()]
