"""The task of a config, with what only the data know."""

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError
from hsl.inference.global_space import fuse, readings
from hsl.tasks.segmentation import SegmentationTask


def build_task(cfg: DictConfig, data: PreparedData) -> SegmentationTask:
    """The task for these data: classes and counts of the training part of the fold."""
    return _make_task(cfg, Facts.of(data))


def rebuild_task(cfg: DictConfig, facts: Mapping[str, Any]) -> SegmentationTask:
    """The task of a run without its data, from what `facts_of` left in the provenance; weights are not loaded."""
    return _make_task(without_weights(cfg), Facts.read(facts))


def without_weights(cfg: DictConfig) -> DictConfig:
    """The same config, but for first weights that a checkpoint replaces: their file may be gone."""
    copied = copy.deepcopy(cfg)
    copied.encoder.weights = copied.task.network.encoder.weights = None
    return copied


def facts_of(data: PreparedData) -> dict[str, Any]:
    """What `rebuild_task` needs to know of the data."""
    return Facts.of(data).as_json()


@dataclass(frozen=True)
class Facts:
    """What only the data know of a task: by head the classes and how often they occur.

    ``source_tables`` and ``members`` tell how several dense heads are fused, see `hsl.inference.global_space`; those of
    overlapping channels are not.
    """

    classes: Mapping[str, Sequence[str]]
    image_classes: Mapping[str, Sequence[str]]
    several: bool
    class_counts: Mapping[str, Tensor]
    presence_pixels: Mapping[str, Tensor]
    source_tables: Mapping[str, Tensor]
    members: Tensor
    overlapping: bool

    @classmethod
    def of(cls, data: PreparedData) -> "Facts":
        """The facts of prepared data."""
        labels = data.image_labels
        return cls(
            data.classes,
            data.image_classes,
            labels is not None and labels.several,
            _tensors(data.class_counts),
            _tensors(data.presence_pixels),
            _tensors(data.heads.source_tables),
            torch.from_numpy(data.heads.members),
            data.heads.overlapping,
        )

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> "Facts":
        """What `as_json` made; runs of before there were image heads or channels know nothing of them."""
        return cls(
            facts["classes"],
            facts.get("image_classes", {}),
            facts.get("several", False),
            _tensors(facts["class_counts"]),
            _tensors(facts["presence_pixels"]),
            _tensors(facts["source_tables"]),
            torch.tensor(facts["members"]),
            facts.get("overlapping", False),
        )

    def as_json(self) -> dict[str, Any]:
        """Lists and strings, to stand in the provenance."""
        return {
            "classes": {head: list(names) for head, names in self.classes.items()},
            "image_classes": {head: list(names) for head, names in self.image_classes.items()},
            "several": self.several,
            "class_counts": _lists(self.class_counts),
            "presence_pixels": _lists(self.presence_pixels),
            "source_tables": _lists(self.source_tables),
            "members": self.members.tolist(),
            "overlapping": self.overlapping,
        }


def _make_task(cfg: DictConfig, facts: Facts) -> SegmentationTask:
    named = cfg.task.network.heads
    wanted = None if "_target_" in named else set(named)  # one maker serves all dense heads the data have
    images = {head: names for head, names in facts.image_classes.items() if wanted is not None and head in wanted}
    dense = facts.classes if wanted is None or wanted - images.keys() else {}
    tables = {head: table for head, table in facts.source_tables.items() if dense}
    several = tables.keys() != dense.keys()  # one head is no head of the network: the space in which all are scored
    shared = list(dense)[-1] if dense else None
    flat = several and wanted is not None and shared in wanted  # one head after all: the tasks read what it says
    if facts.overlapping and wanted is not None and dense:
        raise ConfigError(
            f"`task` should give every channel a head, since pixels may show several. Found the heads "
            f"{sorted(wanted)}. Set `task=channels loss=channels metrics=none`."
        )
    heads = (*([shared] if flat else tables), *images)
    fused = several and not flat and not facts.overlapping
    task: SegmentationTask = instantiate(cfg.task)(
        classes=dense,
        image_classes=images,
        several=facts.several,
        class_counts={head: facts.class_counts[head] for head in heads},
        presence_pixels={head: facts.presence_pixels[head] for head in heads},
        fuse=functools.partial(fuse, tables=tables, members=facts.members) if fused else None,
        readings=readings(tables, facts.members) if flat else None,
        channels=tuple(tables) if facts.overlapping else (),
    )
    return task


def _lists(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {head: tensor.tolist() for head, tensor in tensors.items()}


def _tensors(lists: Mapping[str, Any]) -> dict[str, Tensor]:
    return {head: torch.as_tensor(values) for head, values in lists.items()}
