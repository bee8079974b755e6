"""Tier 2 during validation: class maps go to processes beside the training, which goes on."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from hsl.batch import Batch
from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError
from hsl.files.row_file import join_rows
from hsl.metrics.finite import check_on_host
from hsl.metrics.pool.pool import MetricPool
from hsl.run_folder.layout import of_rank, of_ranks

Instances = Callable[[str], NDArray[Any] | None]


class ObjectScores(Callback):
    """Writes a line of object scores for every picture of a validation, every n epochs.

    The lines are filed under ``val/epoch_<n>`` with the epoch counted from 0. In a distributed run each process writes
    the pictures it saw, into a file that names its rank; at the end, or when the run goes on, they become one.

    Args:
        path: the JSON lines; a resumed run goes on with them.
        metrics: name to a function of prediction, target and, where it names them, ``num_classes`` and
            ``target_instances``.
        workers: number of processes, or ``auto``: the cores this process may use less one.
        every_n_epochs: at least 1.
        head: the dense head that is scored.

    Raises:
        ConfigError: ``every_n_epochs`` is below 1.
    """

    def __init__(
        self,
        path: str,
        metrics: Mapping[str, Callable[..., Any]],
        workers: PositiveInt | Literal["auto"],
        every_n_epochs: PositiveInt,
        head: str = "segmentation",
    ) -> None:
        if every_n_epochs < 1:
            raise ConfigError(f"`every_n_epochs` should be at least 1. Found `every_n_epochs = {every_n_epochs}`.")
        self.path, self.metrics, self.workers = Path(path), dict(metrics), workers
        self.every_n_epochs, self.head = every_n_epochs, head
        self._pool: MetricPool | None = None

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._join(trainer)  # what a run that was killed has left
        path = of_rank(self.path, trainer.global_rank) if trainer.global_rank else self.path
        num_classes = len(cast(Any, trainer).datamodule.prepared.classes[self.head])
        self._pool = open_pool(path, self.metrics, self.workers, num_classes)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        epoch = trainer.current_epoch
        if self._pool is None or batch.get("spare") or trainer.sanity_checking or (epoch + 1) % self.every_n_epochs:
            return
        predictions = class_maps_of(outputs[self.head])
        sizes = batch["size"].tolist()
        class_maps = [prediction[:h, :w] for prediction, (h, w) in zip(predictions, sizes, strict=True)]
        instances = cast(Any, trainer).datamodule.prepared.instances
        submit(self._pool, self.head, instances, f"val/epoch_{epoch}", batch, class_maps)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        if self._pool is not None:
            self._pool.poll()

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None
            self._join(trainer)

    def _join(self, trainer: lightning.Trainer) -> None:
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            join_rows(self.path, of_ranks(self.path))
        trainer.strategy.barrier()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if self._pool is not None:
            self._pool.abort()
            self._pool = None


def class_maps_of(logits: Tensor) -> NDArray[np.uint8]:
    """The class of each pixel ``(B, H, W)``, on the host, of logits ``(B, C, H, W)``."""
    check_on_host(logits)
    return logits.max(dim=1).indices.to(torch.uint8).cpu().numpy()  # several times faster than argmax on a CPU


def open_pool(
    path: Path, metrics: Mapping[str, Callable[..., Any]], workers: int | Literal["auto"], num_classes: int
) -> MetricPool:
    """A pool that goes on with the lines of ``path`` and tells ``num_classes`` to the metrics that name it."""
    bound = {str(name): bind_classes(metric, num_classes) for name, metric in metrics.items()}
    return MetricPool(path, bound, workers=workers, resume=True)


def bind_classes(metric: Callable[..., Any], num_classes: int) -> Callable[..., Any]:
    """The metric with ``num_classes`` given, if it names it as a parameter."""
    wants_classes = "num_classes" in inspect.signature(metric).parameters
    return functools.partial(metric, num_classes=num_classes) if wants_classes else metric


def submit(
    pool: MetricPool,
    head: str,
    instances: Instances,
    part: str,
    batch: Batch,
    class_maps: Sequence[NDArray[np.uint8]],
    object_maps: Sequence[NDArray[np.int32]] | None = None,
) -> None:
    """Hand the class maps of a batch, each at the size of its source, and what they are compared with to the pool.

    Args:
        pool: scores them on other cores.
        head: whose masks are the target.
        instances: id to its map of object ids, or ``None``: then objects are connected components.
        part: what the lines are filed under.
        batch: with ``id`` and ``masks``.
        class_maps: of each picture of the batch.
        object_maps: of each picture the ids of the predicted objects; ``None``: they are connected components.
    """
    targets = batch["masks"][head].cpu().numpy().astype(np.uint8)
    for i, (name, classes, target) in enumerate(zip(batch["id"], class_maps, targets, strict=True)):
        height, width = classes.shape
        objects = instances(name)
        further = {} if objects is None else {"target_instances": objects}
        if object_maps is not None:
            further["prediction_instances"] = object_maps[i]
        pool.submit(name, classes, target[:height, :width], part, **further)
