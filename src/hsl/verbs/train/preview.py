"""What a run would come to, told before there is a run folder: nothing to learn from, to score or to choose by."""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor, nn

from hsl.callbacks.oom_backoff import OomBackoff
from hsl.callbacks.rollback_gate import RollbackGate
from hsl.data.datamodule import DataModule
from hsl.data.loading.sampling import class_counts
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError, DataError
from hsl.heads import Head
from hsl.tasks.rehearsal import logged_values, single_values_normalised
from hsl.tasks.segmentation import SegmentationTask


def check_parts(data: PreparedData, task: SegmentationTask) -> None:
    """Refuse a part of the split in which no pixel and no label counts.

    Raises:
        DataError: there is such a part, or a head that the training part teaches nothing.
    """
    trained = set(cast(Any, task.network).heads) & task.scoring.dense.keys()
    for part, ids in data.parts.items():
        if not ids:
            continue
        pixels, labels = _annotations(data, ids)
        dense = {head: int(pixels[head].sum()) for head in task.scoring.dense}
        images = {head: _known(labels[head], task.heads[head]) for head in task.scoring.images}
        mute = [head for head in (*trained, *images) if not (dense | images)[head]] if part == "train" else []
        if mute or not any((dense | images).values()):
            named = (
                f" for the head{'s' * (len(mute) > 1)} {', '.join(mute)}" if mute and len(dense | images) > 1 else ""
            )
            what = " or ".join(["a pixel of a mask"] * bool(dense) + ["a label"] * bool(images))
            raise DataError(
                f"The {part} part of `{data.catalogue.name}`, fold {data.fold}, should have {what} that counts{named}. "
                f"Found none in {len(ids)} pictures: all are missing or ignored. Choose another `fold` or "
                "`data.split`, "
                "or correct the annotations."
            )


def check_monitored(cfg: DictConfig, data: PreparedData, task: SegmentationTask, callbacks: Sequence[Callback]) -> None:
    """Refuse to choose, stop or judge by a value that no validation logs, or that is never a number.

    Raises:
        ConfigError: there is such a value; the message lists those that exist.
    """
    pixels, labels = _annotations(data, data.parts[data.choosing_part])
    values = logged_values(task, pixels, labels)
    losses = [name.replace("val/", "train/") for name in values if name.split("/")[1] == "loss"]
    watched = [("monitor", str(cfg.monitor))]
    for callback in callbacks:
        if isinstance(callback, RollbackGate):
            watched += [("rollback_gate.metric", callback.metric)]
            watched += [("rollback_gate.minimum", name) for name in callback.minimum]
        elif isinstance(name := getattr(callback, "monitor", None), str):
            watched.append((f"monitor of {type(callback).__name__}", name))
    for key, name in watched:
        if name.startswith("train/") and (name in losses or not losses):
            continue
        if name not in values:
            near = get_close_matches(name, [*values, *losses], 1)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"`{key}` should be one of {', '.join(sorted(values))}. Found `{key} = {name}`.{meant}")
        if math.isnan(values[name]):
            raise ConfigError(
                f"`{key}` should be a value that the validation part can have. Found `{key} = {name}`, which is no "
                "number even where every prediction is right: its masks or labels lack what it is scored on. Choose "
                f"another, such as {', '.join(sorted(name for name, value in values.items() if value == value)[:5])}."
            )


def check_batches(cfg: DictConfig, data: DataModule) -> None:
    """Refuse limits of the trainer that leave no batch, or end it before the first validation.

    Raises:
        ConfigError: there is such a limit.
    """
    limits = {stage: cfg.trainer.get(f"limit_{stage}_batches") for stage in ("train", "val")}
    max_steps = cfg.trainer.get("max_steps", -1)
    if max_steps == -1 and not any(isinstance(limit, float) for limit in limits.values()):
        return
    numbers = {"train": max(1, num_training_pictures(data) // cfg.data.batch_size), "val": len(data.val_dataloader())}
    for stage, limit in limits.items():
        if isinstance(limit, float) and int(numbers[stage] * limit) == 0:
            raise ConfigError(
                f"`trainer.limit_{stage}_batches` should leave a batch of the {numbers[stage]} that there are. Found "
                f"`trainer.limit_{stage}_batches = {limit}`. Take at least {math.ceil(1000 / numbers[stage]) / 1000}."
            )
    limit = limits["train"]
    batches = int(numbers["train"] * limit) if isinstance(limit, float) else min(numbers["train"], limit or math.inf)
    least = math.ceil(batches / cfg.trainer.accumulate_grad_batches) * cfg.trainer.check_val_every_n_epoch
    if max_steps != -1 and max_steps < least:
        raise ConfigError(
            f"`trainer.max_steps` should be at least {least}, the steps up to the first validation. Found "
            f"`trainer.max_steps = {max_steps}`. Raise it, or shorten the epoch by `trainer.limit_train_batches`."
        )


def check_batch_norm(
    cfg: DictConfig, data: DataModule, network: nn.Module, world_size: int, callbacks: Mapping[str, Callback]
) -> None:
    """Refuse a step of one picture where a batch normalisation would have one value per channel.

    Args:
        cfg: of the run, or of a phase.
        data: prepared.
        network: what is frozen is in evaluation mode.
        world_size: processes that share a batch.
        callbacks: of the training, by name.

    Raises:
        ConfigError: a step is one picture, and the network does not take it.
    """
    size = cfg.data.image_size
    found = ""
    if cfg.data.batch_size == world_size:
        found = f"`data.batch_size = {cfg.data.batch_size}`. Raise it to {2 * world_size}"
    elif single := [name for name, one in callbacks.items() if isinstance(one, OomBackoff) and one.sizes["train"] == 1]:
        found = f"`callbacks.{single[0]}.micro_batch = 1`. Raise it to 2"
    elif len(data.prepared.parts["train"]) < 2 * world_size and num_training_pictures(data) < 2 * world_size:
        found = "too few pictures in the training part. Add some, or choose another `data.split`"
    if found and single_values_normalised(network, (size, size) if isinstance(size, int) else tuple(size)):
        raise ConfigError(
            f"A training step should see at least 2 pictures in each process: at `data.image_size = {size}` a batch "
            f"normalisation of this network gets maps of one pixel. Found {found}."
        )


def num_training_pictures(data: DataModule) -> int:
    """Pictures, or patches, of an epoch."""
    return int(data.train_dataloader().sampler.num_pictures)


def _annotations(data: PreparedData, ids: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By dense head the pixels of each class, by image head the labels, of some pictures."""
    rows = data.scan.rows(ids)
    known = data.image_labels
    labels = {} if known is None else dict.fromkeys(data.image_classes, torch.from_numpy(known.values[rows]))
    pixels = class_counts(data.heads, data.scan, ids, None)
    return {head: torch.from_numpy(counts) for head, counts in pixels.items()}, labels


def _known(labels: Tensor, head: Head) -> int:
    return int((~labels.isnan()).sum() if head.several else (labels >= 0).sum())
