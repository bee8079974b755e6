"""The LightningModule: wires network, loss, weighting, metrics and predictor, and owns the log names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from hsl.batch import Batch, Objectives, Outputs
from hsl.inference.geometry import to_source_size
from hsl.losses.finite import check_finite

Predictor = Callable[[nn.Module, Tensor], Outputs]


class SegmentationTask(lightning.LightningModule):
    """Trains a network with named heads and scores it on the pixels of the source masks.

    Args:
        network: called with ``classes``; maps ``(B, 3, H, W)`` to one tensor per head.
        loss: called with ``class_counts``; maps outputs and batch to one unweighted scalar per objective.
        weighting: called with the ``weights`` of the loss; makes the total of the objectives.
        optimizer: called with the task, whose loss and weighting may have parameters of their own.
        scheduler: called with the optimizer and ``total_steps``; stepped once per optimizer step.
        predictor: maps network and pictures to outputs; whole picture, sliding window or test-time augmentation.
        metrics: each called with ``num_classes`` once per head; updated with logits and masks.
        classes: class names of every head that is scored.
        class_counts: pixels per class of every head that the network has, over the training part of the fold.
        presence_pixels: valid pixels of the training pictures that show the class, per class of these heads.
        fuse: makes one head of several, in which models with other heads are scored too; ``None``: there is one.
    """

    def __init__(
        self,
        network: Callable[..., nn.Module],
        loss: Callable[..., nn.Module],
        weighting: Callable[..., nn.Module],
        optimizer: Callable[[nn.Module], Optimizer],
        scheduler: Callable[..., LRScheduler],
        predictor: Predictor,
        metrics: Mapping[str, Callable[..., Metric]],
        classes: Mapping[str, Sequence[str]],
        class_counts: Mapping[str, Tensor],
        presence_pixels: Mapping[str, Tensor],
        fuse: Callable[[Outputs], Tensor] | None = None,
    ) -> None:
        super().__init__()
        heads = {head: classes[head] for head in class_counts}
        # the layout of the weights decides that of every feature map: a third less time per step, CPU and GPU
        self.network = network(classes=heads).to(memory_format=torch.channels_last)
        self.loss = loss(class_counts=class_counts, presence_pixels=presence_pixels)
        self.weighting = weighting(weights=self.loss.weights)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.predictor = predictor
        self.fuse = fuse
        # the space in which several heads are fused is no head of the network
        self.scored_head = next(iter(classes.keys() - heads.keys()), next(iter(classes)))
        self.metrics = nn.ModuleDict(
            {
                head: nn.ModuleDict({name: metric(num_classes=len(names)) for name, metric in metrics.items()})
                for head, names in classes.items()
            }
        )

    def forward(self, images: Tensor) -> Outputs:
        """Outputs of the network for pictures ``(B, 3, H, W)``."""
        return cast(Outputs, self.network(images))

    def predict(self, batch: Batch, predictor: Predictor | None = None) -> Outputs:
        """Outputs at the size of the source pictures, padded as the batch's masks are; several heads are also fused.

        Args:
            batch: with ``image`` and ``size``.
            predictor: instead of the task's own.
        """
        outputs = (predictor or self.predictor)(self.network, batch["image"])
        sized = {head: to_source_size(logits.float(), batch["size"]) for head, logits in outputs.items()}
        if self.fuse is not None:
            sized[self.scored_head] = self.fuse(sized)
        return sized

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        objectives: Objectives = self.loss(self.network(batch["image"], share=self.weighting.share), batch)
        check_finite(objectives, batch["id"], self.global_step)
        total: Tensor = self.weighting(objectives)
        self._log_losses("train", objectives, total.detach(), len(batch["id"]))
        return total

    def on_train_epoch_end(self) -> None:
        cast(Any, self.weighting).end_epoch()

    def validation_step(self, batch: Batch, batch_idx: int) -> Outputs:
        outputs = self.predict(batch)
        if outputs[self.scored_head].device == batch["image"].device:  # else they are too large for it all at once
            objectives: Objectives = self.loss(outputs, batch)
            self._log_losses("val", objectives, self.weighting(objectives), len(batch["id"]))
        for head, metrics in self._head_metrics():
            logits = outputs[head].to(batch["image"].device)
            for metric in metrics.values():
                metric.update(logits, batch["masks"][head], size=batch["size"])
        return outputs

    def on_validation_epoch_end(self) -> None:
        heads = self._head_metrics()
        scores: dict[str, dict[str, Tensor]] = {}
        for head, metrics in heads:
            for metric in metrics.values():
                for name, value in metric.compute().items():
                    scores.setdefault(name, {})[head] = value
                metric.reset()
        for name, values in scores.items():
            self.log(f"val/{name}", values[self.scored_head], sync_dist=True)
            if len(heads) > 1:
                self.log_dict({f"val/{name}/{head}": value for head, value in values.items()}, sync_dist=True)
        primary = [head for head in getattr(self.loss, "primary", ()) if head in scores.get("miou", {})]
        if primary:
            means = torch.stack([scores["miou"][head] for head in primary])
            self.log("val/h_mean", len(primary) / means.reciprocal().sum(), sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Outputs:
        return self.predict(batch)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self)
        scheduler = self.scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _head_metrics(self) -> list[tuple[str, Mapping[str, Metric]]]:
        return [(head, cast(Mapping[str, Metric], metrics)) for head, metrics in self.metrics.items()]

    def _log_losses(self, stage: str, objectives: Objectives, total: Tensor, num_images: int) -> None:
        parts = {f"{stage}/loss/{name}": value.detach() for name, value in objectives.items()}
        self.log_dict(
            {f"{stage}/loss": total, **parts},
            on_step=False,
            on_epoch=True,
            batch_size=num_images,
            sync_dist=True,
        )
