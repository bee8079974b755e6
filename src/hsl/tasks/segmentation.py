"""The LightningModule: wires network, loss, weighting, metrics and predictor, and owns the log names."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import lightning
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from hsl.batch import Batch, Objectives, Outputs
from hsl.errors import ConfigError
from hsl.heads import Head, Problem
from hsl.inference.predictor import Network, Predictor, to_source_size
from hsl.losses.protocols import Loss
from hsl.metrics.finite import check_outputs
from hsl.tasks.micro_batches import MicroBatches
from hsl.tasks.scoring import Scoring, check_finite
from hsl.tasks.sharding import shard, share_buffers


class SegmentationTask(lightning.LightningModule):
    """Trains a network with named heads and scores it: dense heads on the pixels of the source masks, image heads on
    the labels of whole pictures.

    Args:
        network: called with ``class_heads`` and ``wanted``; maps ``(B, 3, H, W)`` to one tensor per head.
        loss: called with ``class_counts``; maps outputs and batch to one unweighted scalar per objective.
        weighting: called with the ``weights`` of the loss; makes the total of the objectives.
        optimizer: called with the task, whose loss and weighting may have parameters of their own.
        scheduler: called with the optimizer, ``total_steps`` and ``steps_per_epoch``; stepped once per optimizer step.
        predictor: maps network and pictures to outputs; whole picture, sliding window or test-time augmentation.
        metrics: each called with ``num_classes`` once per dense head; updated with logits and masks.
        problem: what only the data know: the heads with their classes, and how often these occur.
        primary: ``all``, or the tasks whose H-mean is logged, where the loss does not say.

    Attributes:
        heads: what each head is, by name: those of the network and those that are scored beside them.
        inferences: the predictors of a test by the names of their scores; ``None`` is the task's own.

    Raises:
        ConfigError: `primary` names no task.
    """

    def __init__(
        self,
        network: Callable[..., nn.Module],
        loss: Callable[..., Loss],
        weighting: Callable[..., nn.Module],
        optimizer: Callable[[nn.Module], Optimizer],
        scheduler: Callable[..., LRScheduler],
        predictor: Predictor,
        metrics: Mapping[str, Callable[..., Metric]],
        problem: Problem,
        primary: Sequence[str] | Literal["all"] = "all",
    ) -> None:
        super().__init__()
        self.problem = problem
        self.loss = loss(class_counts=problem.class_counts, presence_pixels=problem.presence_pixels)
        # the layout of the weights decides that of every feature map: a third less time per step, CPU and GPU
        made = network(class_heads=problem.learned, wanted=self.loss.required_heads)
        self.network = made.to(memory_format=torch.channels_last)
        self.weighting = weighting(weights=self.loss.weights)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.predictor = predictor
        self.inferences: Mapping[str, Predictor | None] = {"plain": None}
        self.heads: dict[str, Head] = {**cast(Any, made).known_heads, **{head.name: head for head in problem.heads}}
        self.scoring = Scoring(metrics, problem)
        named = None if problem.readings else self.loss.primary  # tasks that have a head of their own
        self.primary = _primary(primary, list(problem.readings), named)
        self.micro_batches = MicroBatches()
        self.objectives: Objectives | None = None  # of the step under way, with their graph, for callbacks
        self._place = "prediction"  # what is under way, for the message of an error
        self._step_losses: list[Tensor] = []  # total and objectives of each batch of the step under way
        self._point: dict[str, float] = {}

    def configure_model(self) -> None:
        """Deals the network out where the trainer is fully sharded; Lightning calls it before every run."""
        mesh = self.device_mesh
        if mesh is not None and not isinstance(self.network, FSDPModule):
            shard(self.network, mesh["data_parallel"])

    def forward(self, images: Tensor) -> Outputs:
        """Outputs of the network for pictures ``(B, 3, H, W)``."""
        return cast(Outputs, self.network(images))

    def predict(self, batch: Batch, predictor: Predictor | None = None) -> Outputs:
        """Outputs at the size of the source pictures, padded as the batch's masks are; several heads are also fused.

        Args:
            batch: with ``image`` and ``size``.
            predictor: instead of the task's own.
        """
        return self.micro_batches.evaluate(partial(self._predict, predictor=predictor), batch)

    def _predict(self, batch: Batch, predictor: Predictor | None = None) -> Outputs:
        network = self.micro_batches.portioned(cast(Network, self.network))
        outputs = (predictor or self.predictor)(network, batch["image"])
        check_outputs(outputs, batch["id"], self._place)  # before anything is made of them
        sized = {
            head: output.float() if self.heads[head].kind == "image" else to_source_size(output.float(), batch["size"])
            for head, output in outputs.items()
        }
        shared = self.problem.scored_head
        if self.problem.fuse is not None and shared is not None:
            sized[shared.name] = self.problem.fuse(sized)
        return sized

    def losses(self, batch: Batch) -> tuple[Tensor, Objectives]:
        """Total and objectives of a training batch, or of a slice of it."""
        outputs: Outputs = self.network(batch["image"], share=self.weighting.share)
        objectives = self.loss(outputs, batch)
        place = f"training, epoch {self.current_epoch + 1}, step {self.global_step}"
        check_finite(outputs, objectives, batch["id"], place)
        return self.weighting(objectives), objectives

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        cut = self.micro_batches.active
        total, objectives = self.micro_batches.learn(self, batch, batch_idx) if cut else self.losses(batch)
        self.objectives = None if cut else objectives
        self._log_losses("train", objectives, total.detach(), len(batch["id"]))
        self._log_step(objectives, total, batch_idx)
        return total

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if loss.requires_grad or not self.micro_batches.active:  # micro-batches went backward within `training_step`
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        if not self.micro_batches.active:  # they began with no gradients
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def on_after_backward(self) -> None:
        self.objectives = None  # lets go of the graph
        for logger in self.loggers if self._point else []:
            logger.log_metrics(self._point, self.global_step)
        self._point = {}

    def on_train_epoch_end(self) -> None:
        cast(Any, self.weighting).end_epoch()

    def on_validation_start(self) -> None:
        if self.device_mesh is not None:
            share_buffers(self.network)

    def validation_step(self, batch: Batch, batch_idx: int) -> Outputs:
        self._place = f"validation of epoch {self.current_epoch + 1}"
        return self.micro_batches.evaluate(self._validate, batch, self.scoring)

    def _validate(self, batch: Batch) -> Outputs:
        outputs = self._predict(batch)
        self.scoring.update(outputs, batch)
        # outputs elsewhere are too large for the device all at once
        here = all(output.device == batch["image"].device for output in outputs.values())
        if here and not self.loss.training_only:
            objectives = self.loss(outputs, batch)
            num_counted = 0 if batch.get("spare") else len(batch["id"])
            self._log_losses("val", objectives, self.weighting(objectives), num_counted)
        return outputs

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.scoring.collect(self.primary), sync_dist=True)

    def on_test_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        data = cast(Any, self.trainer).datamodule  # None where the trainer is given loaders
        self._place = (
            "evaluation" if data is None else f"evaluation of part {data.prepared.evaluation_parts[dataloader_idx]}"
        )

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Outputs]:
        return {name: self.predict(batch, predictor) for name, predictor in self.inferences.items()}

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self)
        total_steps = int(self.trainer.estimated_stepping_batches)  # sets the number of batches up
        per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        scheduler = self.scheduler(optimizer, total_steps=total_steps, steps_per_epoch=per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _log_losses(self, stage: str, objectives: Objectives, total: Tensor, num_images: int) -> None:
        parts = {f"{stage}/loss/{name}": value.detach() for name, value in objectives.items()}
        self.log_dict(
            {f"{stage}/loss": total, **parts},
            on_step=False,
            on_epoch=True,
            batch_size=num_images,
            sync_dist=True,
        )

    def _log_step(self, objectives: Objectives, total: Tensor, batch_idx: int) -> None:
        """Keeps the point of an optimizer step for the loggers: the mean over its batches, of the first process.

        Past Lightning's `log`, which would add the names to those of the epoch. The values are read here because the
        check that they are finite has just waited for the device; they are written while it is busy going backward.
        """
        if not self.loggers or not self.trainer.is_global_zero:
            return
        trainer, values = self.trainer, torch.stack([v.detach().float() for v in (total, *objectives.values())])
        self._step_losses = [*(self._step_losses if batch_idx % trainer.accumulate_grad_batches else []), values]
        complete = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        every = cast(Any, trainer).log_every_n_steps  # 0: never
        if complete and every and trainer.global_step % every == 0:
            names = ["train_step/loss", *(f"train_step/loss/{name}" for name in objectives)]
            self._point = dict(zip(names, torch.stack(self._step_losses).mean(0).tolist(), strict=True))


def _primary(
    chosen: Sequence[str] | Literal["all"], tasks: Sequence[str], named: Sequence[str] | None
) -> Sequence[str]:
    """The tasks of the H-mean: those that the loss named, else those chosen."""
    names = list(tasks) if chosen == "all" else list(chosen)
    unknown = [name for name in names if name not in tasks]
    if (unknown or not names) and chosen != "all":
        way_out = "Set `loss.primary` instead" if named else "Choose among them" if tasks else "Leave it away"
        known = f"all or tasks of {list(tasks)}" if tasks else "all where no tasks read one head"
        raise ConfigError(f"`task.primary` should be {known}. Found `task.primary = {names}`. {way_out}.")
    return names if named is None else named
