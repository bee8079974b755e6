"""The task of a config with what only the data know, its weights, and the predictor that a run is asked with."""

import copy
import functools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from hsl.config.validation import window_findings
from hsl.data.bands.bands import BandStatistics
from hsl.data.datamodule import DataModule
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError
from hsl.heads import Head, Problem, of_kind
from hsl.inference.global_space import fuse, readings
from hsl.run_folder.checkpoint import read_checkpoint
from hsl.tasks.segmentation import SegmentationTask


def choose_predictor(run_cfg: DictConfig, cfg: DictConfig) -> str | None:
    """Let the run predict with the ``inference`` of this command, where one is given, instead of its own.

    Returns:
        The name under which the run scored itself with this very predictor; ``None``: it never did.

    Raises:
        ConfigError: the predictor does not go with the size at which pictures are evaluated.
    """
    scored = {each.inference: each.get("predictor") or run_cfg.task.predictor for each in _evaluations(run_cfg)}
    if cfg.evaluation_size not in (None, run_cfg.data.evaluation_size):
        scored = {}
    if cfg.evaluation_size is not None:
        run_cfg.data.evaluation_size = cfg.evaluation_size
    if cfg.get("inference"):
        cfg.encoder = run_cfg.encoder  # a predictor may ask for the encoder's stride
        run_cfg.task.predictor = cfg.inference
        if findings := window_findings(cfg.inference, run_cfg.data.evaluation_size, "evaluation_size"):
            raise ConfigError(" ".join(findings))
    return next((name for name, predictor in scored.items() if predictor == run_cfg.task.predictor), None)


def num_examples(run_cfg: DictConfig) -> int:
    """So many best and so many worst pictures did the run show of itself."""
    return max((each.get("num_examples", 0) for each in _evaluations(run_cfg)), default=0)


def _evaluations(run_cfg: DictConfig) -> list[DictConfig]:
    return [each for each in run_cfg.callbacks.values() if isinstance(each, DictConfig) and "inference" in each]


def load_checkpoint_weights(task: SegmentationTask, checkpoint: Path) -> dict[str, Any]:
    """Load the weights of a checkpoint, all of them or none.

    Returns:
        The provenance that the checkpoint holds; empty where it holds none.

    Raises:
        ConfigError: the checkpoint is missing, broken, or of another model.
    """
    content = read_checkpoint(checkpoint)
    fill_task(task, checkpoint, content)
    return dict(content.get("provenance", {}))


def fill_task(task: SegmentationTask, checkpoint: Path, content: Mapping[str, Any]) -> None:
    """Load the weights of what was read from a checkpoint, all of them or none.

    Raises:
        ConfigError: they are of another model.
    """
    try:
        task.load_state_dict(content["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"`{checkpoint}` should fit the model of this run. Found: {textwrap.shorten(str(error), 300)}. "
            "Choose the encoder, decoder and task that it was made with."
        ) from None


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


def rebuild_data(cfg: DictConfig, facts: Mapping[str, Any]) -> DataModule:
    """What brings the data of a run to its model, normalised as the run recorded it."""
    data: DataModule = instantiate(cfg.data)
    data.record(BandStatistics.read(facts.get("bands")))
    return data


def facts_of(data: PreparedData) -> dict[str, Any]:
    """What `rebuild_task` needs to know of the data."""
    return DataFacts.of(data).as_json()


@dataclass(frozen=True)
class DataFacts:
    """What only the data know of a task: its heads, and how often their classes occur.

    The last of the dense heads is that in which all models are scored. ``source_tables`` and ``members`` tell how the
    others are fused into it, see `hsl.inference.global_space`; those of overlapping channels are not. ``bands``
    are the channels of the pictures, where they are named.
    """

    heads: tuple[Head, ...]
    class_counts: Mapping[str, Tensor]
    presence_pixels: Mapping[str, Tensor]
    source_tables: Mapping[str, Tensor]
    members: Tensor
    bands: BandStatistics | None = None

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
            data.bands,
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
            BandStatistics.read(facts.get("bands")),
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
            "bands": None if self.bands is None else self.bands.as_json(),
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
    if facts.bands is not None:
        cast(Any, task.network).encoder.widen(len(facts.bands.mean))
    return task


def _lists(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {head: tensor.tolist() for head, tensor in tensors.items()}


def _tensors(lists: Mapping[str, Any]) -> dict[str, Tensor]:
    return {head: torch.as_tensor(values) for head, values in lists.items()}
