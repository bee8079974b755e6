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
from hsl.heads import Head, Problem, of_kind
from hsl.inference.global_space import fuse, readings
from hsl.tasks.segmentation import SegmentationTask


def build_task(cfg: DictConfig, data: PreparedData) -> SegmentationTask:
    """The task for these data: classes and counts of the training part of the fold."""
    return _make_task(cfg, DataFacts.of(data))


def rebuild_task(cfg: DictConfig, facts: Mapping[str, Any]) -> SegmentationTask:
    """The task of a run without its data, from what `facts_of` left in the provenance; weights are not loaded."""
    return _make_task(without_weights(cfg), DataFacts.read(facts))


def without_weights(cfg: DictConfig) -> DictConfig:
    """The same config, but for first weights that a checkpoint replaces: their file may be gone."""
    copied = copy.deepcopy(cfg)
    copied.encoder.weights = copied.task.network.encoder.weights = None
    return copied


def facts_of(data: PreparedData) -> dict[str, Any]:
    """What `rebuild_task` needs to know of the data."""
    return DataFacts.of(data).as_json()


@dataclass(frozen=True)
class DataFacts:
    """What only the data know of a task: its heads, and how often their classes occur.

    The last of the dense heads is that in which all models are scored. ``source_tables`` and ``members`` tell how the
    others are fused into it, see `hsl.inference.global_space`; those of overlapping channels are not.
    """

    heads: tuple[Head, ...]
    class_counts: Mapping[str, Tensor]
    presence_pixels: Mapping[str, Tensor]
    source_tables: Mapping[str, Tensor]
    members: Tensor

    @classmethod
    def of(cls, data: PreparedData) -> "DataFacts":
        """The facts of prepared data."""
        several = data.image_labels is not None and data.image_labels.several
        return cls(
            _heads(data.classes, data.image_classes, several, data.heads.overlapping),
            _tensors(data.class_counts),
            _tensors(data.presence_pixels),
            _tensors(data.heads.source_tables),
            torch.from_numpy(data.heads.members),
        )

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> "DataFacts":
        """What `as_json` made; runs of before there were image heads or channels know nothing of them."""
        several, overlapping = facts.get("several", False), facts.get("overlapping", False)
        return cls(
            _heads(facts["classes"], facts.get("image_classes", {}), several, overlapping),
            _tensors(facts["class_counts"]),
            _tensors(facts["presence_pixels"]),
            _tensors(facts["source_tables"]),
            torch.tensor(facts["members"]),
        )

    def as_json(self) -> dict[str, Any]:
        """Lists and strings, to stand in the provenance."""
        dense, images = of_kind(self.heads, "dense"), of_kind(self.heads, "image")
        return {
            "classes": {head.name: list(head.classes) for head in dense},
            "image_classes": {head.name: list(head.classes) for head in images},
            "several": any(head.several for head in images),
            "class_counts": _lists(self.class_counts),
            "presence_pixels": _lists(self.presence_pixels),
            "source_tables": _lists(self.source_tables),
            "members": self.members.tolist(),
            "overlapping": any(head.several for head in dense),
        }


def _heads(
    classes: Mapping[str, Sequence[str]], image_classes: Mapping[str, Sequence[str]], several: bool, overlapping: bool
) -> tuple[Head, ...]:
    shared = list(classes)[-1] if overlapping else None
    dense = [Head(name, "dense", tuple(names), several=name == shared) for name, names in classes.items()]
    return *dense, *(Head(name, "image", tuple(names), several) for name, names in image_classes.items())


def _make_task(cfg: DictConfig, facts: DataFacts) -> SegmentationTask:
    named = cfg.task.network.heads
    wanted = None if "_target_" in named else set(named)  # one maker serves all dense heads the data have
    images = [head for head in of_kind(facts.heads, "image") if wanted is not None and head.name in wanted]
    every = of_kind(facts.heads, "dense")
    dense = every if wanted is None or wanted - {head.name for head in images} else ()
    if wanted is not None and any(head.several for head in dense):
        raise ConfigError(
            f"`task` should give every channel a head, since pixels may show several. Found the heads "
            f"{sorted(wanted)}. Set `task=channels loss=channels metrics=none`."
        )
    tables = facts.source_tables if dense else {}
    shared = dense[-1] if dense and dense[-1].name not in tables else None  # the space in which all heads are scored
    flat = shared is not None and wanted is not None and shared.name in wanted  # one head, which the tasks read
    learned = [*([shared.name] if shared is not None and flat else tables), *(head.name for head in images)]
    fused = shared is not None and not flat and not shared.several
    problem = Problem(
        heads=(*dense, *images),
        class_counts={head: facts.class_counts[head] for head in learned},
        presence_pixels={head: facts.presence_pixels[head] for head in learned},
        fuse=functools.partial(fuse, tables=tables, members=facts.members) if fused else None,
        readings=readings(tables, facts.members) if flat else {},
    )
    task: SegmentationTask = instantiate(cfg.task)(problem=problem)
    return task


def _lists(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {head: tensor.tolist() for head, tensor in tensors.items()}


def _tensors(lists: Mapping[str, Any]) -> dict[str, Tensor]:
    return {head: torch.as_tensor(values) for head, values in lists.items()}
