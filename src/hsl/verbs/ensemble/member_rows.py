"""One look of a checkpoint at the pictures of a part: pooled features and probability maps, kept beside the run.

What is kept, and how, is `hsl.run_folder.member_rows`.
"""

import gc
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, cast

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F

from hsl.batch import Batch, Outputs
from hsl.data.datamodule import DataModule
from hsl.data.files.decoding import Decoding
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError
from hsl.heads import Problem, of_kind
from hsl.inference.predictor import reflected_to
from hsl.metrics.finite import check_outputs
from hsl.run_folder.layout import best_checkpoint
from hsl.run_folder.member_rows import KeptRows, RowsWriter, checkpoint_sha256, read_kept
from hsl.run_folder.provenance import read_provenance
from hsl.tasks.segmentation import SegmentationTask
from hsl.terminal import say
from hsl.verbs.opening.building import load_checkpoint_weights, rebuild_data, rebuild_task
from hsl.verbs.opening.opening import building_from, open_run, place_data
from hsl.verbs.scoring.results import check_same_classes, check_same_split
from hsl.verbs.train.earlier_runs import check_same_range

FEATURES, MAPS = "features", "maps"


@dataclass(frozen=True)
class RowSettings:
    """How the rows of all members are made.

    Attributes:
        allowed: the callables that their configs may name.
        data_root: where the data lie now; none: where they were.
        cache_dir: for the scan and the split; none: nothing is kept.
        inference: the predictor of the maps, by the name of its scores.
        maps: whether dense heads leave their probability maps.
    """

    allowed: Collection[str]
    data_root: str | None = None
    cache_dir: str | None = None
    inference: str = "plain"
    maps: bool = True


def open_data(run: Path, settings: RowSettings) -> tuple[DictConfig, DataModule]:
    """The config of a run, and its data as they lie now: with the masks of the data set, and the split of the run.

    Raises:
        ConfigError: it is no run folder, or the data, their split or their classes are no longer those of the run.
    """
    _, cfg = open_run(str(run), settings.allowed)
    cfg.data.labels = None  # rows are of pictures alone
    place_data(cfg, settings.data_root, settings.cache_dir)
    with building_from(run):
        data = rebuild_data(cfg, read_provenance(run))
        prepared = data.prepared
    check_same_split(run, prepared.fold_assignment)
    check_same_classes(run, prepared)
    check_same_range(run, prepared)
    return cfg, data


def keep_rows(runs: Sequence[Path], part: str, settings: RowSettings) -> None:
    """Fill ``rows/`` of every run for one part, one model in memory at a time; what is there already is kept.

    Args:
        runs: run folders.
        part: of each run's split: ``val``, and at the very end ``test``.
        settings: alike for all.

    Raises:
        ConfigError: see `open_data`; or a run has no such inference.
    """
    for run in runs:
        _keep_rows_of(run, part, settings)
        gc.collect()  # a module and its hooks are a circle, which would keep the weights
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def picture_seconds(folders: Sequence[Path]) -> dict[str, float]:
    """Kind of head -> what a picture takes a run of a member, the mean over its runs; only where all were timed.

    Of an image head it is the way to the pooled features, of a dense head that to the maps.
    """
    found = [kept.parts["val"].seconds for run in folders if (kept := read_kept(run)) and "val" in kept.parts]
    return {
        kind: fmean(one[name] for one in found)
        for kind, name in (("image", FEATURES), ("dense", MAPS))
        if len(found) == len(folders) and all(name in one for one in found)
    }


def _keep_rows_of(run: Path, part: str, settings: RowSettings) -> None:
    cfg, data = open_data(run, settings)
    _choose_predictor(run, cfg, settings.inference)
    with building_from(run):
        task = rebuild_task(cfg, read_provenance(run))
    maps = settings.maps and _dense_classes(task.problem) is not None
    classes = list(_dense_classes(task.problem) or ())
    kept = KeptRows(checkpoint=checkpoint_sha256(run), inference=settings.inference, classes=classes)
    writer = RowsWriter(run, kept)
    if writer.is_complete(part, maps):
        return
    writer.begin(part)
    ids = data.prepared.parts[part]
    missing = [name for name in ids if writer.lacks_features(name) or (maps and writer.lacks_map(name))]
    say(f"rows of {run}, {part}: {_size(task, data.prepared, ids, len(classes) * maps)}, {len(missing)} pictures to do")
    seconds = {}
    if missing:
        load_checkpoint_weights(task, best_checkpoint(run))
        task = task.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        seconds = _look(task, data, missing, writer, maps)
    writer.finish(ids, maps, seconds)


def _choose_predictor(run: Path, cfg: DictConfig, inference: str) -> None:
    """Let the task predict as it was scored under that name."""
    nodes = [each for each in cfg.callbacks.values() if isinstance(each, DictConfig) and "inference" in each]
    named = {str(each.inference): each.get("predictor") for each in nodes}
    if inference not in named:
        raise ConfigError(
            f"`inference` should be a name under which `{run}` was scored: {', '.join(sorted(named))}. Found "
            f"`inference = {inference}`. Choose one that all members have."
        )
    if named[inference] is not None:
        cfg.task.predictor = named[inference]


def _dense_classes(problem: Problem) -> Sequence[str] | None:
    """Of the space in which dense heads are scored, of overlapping ones the channels; none without a dense head."""
    return problem.channels or (None if problem.scored_head is None else problem.scored_head.classes)


def _size(task: SegmentationTask, data: PreparedData, ids: Sequence[str], num_maps: int) -> str:
    """What the files of a part take at most, in words; maps are compressed."""
    features = 4 * len(ids) * int(cast(Any, task.network).encoder.out_channels[-1])
    pixels = int(data.scan.image_sizes[data.scan.rows(ids)].prod(axis=1).sum())
    found = f"features {_megabytes(features)}"
    return f"{found}, maps at most {_megabytes(pixels * num_maps)}" if num_maps else found


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.3g} MB"


@torch.inference_mode()
def _look(
    task: SegmentationTask, data: DataModule, ids: Sequence[str], writer: RowsWriter, maps: bool
) -> dict[str, float]:
    """Show the missing pictures to a model, by the path that ``predict`` takes.

    Returns:
        What a picture took the model, the median over batches, of ``features`` and ``maps`` where some were made.
    """
    spent: dict[str, list[float]] = {FEATURES: [], MAPS: []}
    prepared = data.prepared
    records = [prepared.catalogue.records[prepared.places[name]] for name in ids]
    for batch in data.predict_dataloader(records, Decoding.of(prepared.catalogue)):
        batch["image"] = batch["image"].to(task.device)
        batch = data.on_after_batch_transfer(batch, 0)
        if any(map(writer.lacks_features, batch["id"])):
            begun = _now(task)
            found = pooled_features(task, data, batch["image"])
            spent[FEATURES].append((_now(task) - begun) / len(found))
            check_outputs({FEATURES: found}, batch["id"], f"rows of {writer.run}")
            for name, row in zip(batch["id"], found.cpu().numpy(), strict=True):
                writer.add_features(name, row)
        if maps and any(map(writer.lacks_map, batch["id"])):
            begun = _now(task)
            outputs = task.predict(batch)
            spent[MAPS].append((_now(task) - begun) / len(batch["id"]))
            _add_maps(task, batch, outputs, writer)
    return {name: median(values) for name, values in spent.items() if values}


def _now(task: SegmentationTask) -> float:
    """Seconds, once the device has done what it was told."""
    if task.device.type == "cuda":
        torch.cuda.synchronize(task.device)
    return time.perf_counter()


def _add_maps(task: SegmentationTask, batch: Batch, outputs: Outputs, writer: RowsWriter) -> None:
    for i, (name, (height, width)) in enumerate(zip(batch["id"], batch["size"].tolist(), strict=True)):
        one = {head: outputs[head][i, :, :height, :width] for head in _dense_outputs(task.problem)}
        writer.add_map(name, _probabilities(task.problem, one).cpu().numpy())


def _dense_outputs(problem: Problem) -> Sequence[str]:
    return problem.channels or ([problem.scored_head.name] if problem.scored_head is not None else [])


def _probabilities(problem: Problem, outputs: Outputs) -> Tensor:
    """``(C, H, W)`` of the outputs of one picture; of overlapping channels that each of them is there."""
    if problem.channels:
        return torch.stack([outputs[channel].float().softmax(dim=0)[1] for channel in problem.channels])
    return next(iter(outputs.values())).float().softmax(dim=0)


def pooled_features(task: SegmentationTask, data: DataModule, images: Tensor) -> Tensor:
    """Mean over the picture of the encoder's deepest features ``(B, D)``: what an image head reads.

    Without an image head the picture has the size of the training, however large it is and whatever the windows are.
    """
    network = cast(Any, task.network)
    if not of_kind(task.problem.learned, "image"):
        images = F.interpolate(images, size=data.form.sides, mode="bilinear", antialias=True)
    height, width = (math.ceil(side / network.stride) * network.stride for side in images.shape[-2:])
    found: Tensor = network.embed(reflected_to(images, height, width)).float()
    return found
