"""The task of a config, with what only the data know."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from hsl.data.datamodule import DataModule
from hsl.inference.global_space import fuse
from hsl.tasks.segmentation import SegmentationTask


def build_task(cfg: DictConfig, data: DataModule) -> SegmentationTask:
    """The task for these data: classes and pixel counts of the training part of the fold."""
    return _make_task(
        cfg, data.classes, data.class_counts, data.presence_pixels, data.heads.source_tables, data.heads.members
    )


def rebuild_task(cfg: DictConfig, facts: Mapping[str, Any]) -> SegmentationTask:
    """The task of a run without its data, from what `facts_of` left in the provenance; weights are not loaded."""
    counts, presence = (_tensors(facts[name]) for name in ("class_counts", "presence_pixels"))
    tables, members = _tensors(facts["source_tables"]), torch.tensor(facts["members"])
    return _make_task(cfg, facts["classes"], counts, presence, tables, members)


def facts_of(data: DataModule) -> dict[str, Any]:
    """What `rebuild_task` needs to know of the data."""
    return {
        "classes": {head: list(names) for head, names in data.classes.items()},
        "class_counts": _lists(data.class_counts),
        "presence_pixels": _lists(data.presence_pixels),
        "source_tables": _lists(data.heads.source_tables),
        "members": data.heads.members.tolist(),
    }


def _make_task(
    cfg: DictConfig,
    classes: Mapping[str, Sequence[str]],
    class_counts: Mapping[str, Tensor],
    presence_pixels: Mapping[str, Tensor],
    tables: Mapping[str, Tensor],
    members: Tensor,
) -> SegmentationTask:
    several = tables.keys() != classes.keys()  # one head is no head of the network: the space in which all are scored
    task: SegmentationTask = instantiate(cfg.task)(
        classes=classes,
        class_counts={head: class_counts[head] for head in tables},
        presence_pixels={head: presence_pixels[head] for head in tables},
        fuse=functools.partial(fuse, tables=tables, members=members) if several else None,
    )
    return task


def _lists(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {head: tensor.tolist() for head, tensor in tensors.items()}


def _tensors(lists: Mapping[str, list[int]]) -> dict[str, Tensor]:
    return {head: torch.tensor(values) for head, values in lists.items()}
