"""Trained classifiers as a source of pseudo-labels: opened, checked for leaks, asked where they look."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from hsl.data.datamodule import DataModule
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record
from hsl.data.labels.image_labels import HEAD
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError
from hsl.files.io import sha256_of
from hsl.files.split_file import read_split
from hsl.metrics.finite import check_outputs
from hsl.pseudo_labels.networks import class_activation
from hsl.run_folder.layout import SPLITS, best_checkpoint
from hsl.run_folder.provenance import read_provenance
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.opening.building import load_checkpoint_weights, rebuild_data, rebuild_task
from hsl.verbs.opening.opening import building_from, open_run


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier.

    Attributes:
        run: its run folder.
        task: with the weights of the best checkpoint.
        data: how it sees pictures: size and normalisation.
        sha256: of the checkpoint.
    """

    run: Path
    task: SegmentationTask
    data: DataModule
    sha256: str


def open_classifiers(runs: Sequence[str], data: PreparedData, allowed: Collection[str]) -> list[Classifier]:
    """Load classifiers that were trained on the training part of these data, and on nothing else.

    Args:
        runs: their run folders.
        data: what is to be labelled, inspected.
        allowed: the callables that their configs may name.

    Raises:
        ConfigError: one is no run folder or has no checkpoint, or its image classes, data, fold or training pictures
            are others: through its labels the training would see held-out pictures.
    """
    opened = [open_run(run, allowed) for run in runs]
    differences = {run: _differences(*each, data) for run, each in zip(runs, opened, strict=True)}
    if found := [f"`{run}`: {' and '.join(several)}" for run, several in differences.items() if several]:
        raise ConfigError(
            "`classifiers` should be trained on the training part of these data. Found "
            f"{'; '.join(found)}. A classifier that saw other pictures would carry held-out ones into the labels: "
            "train one with this data set, `data.split` and `fold`, or label with those of the classifier."
        )
    return [open_classifier(*each) for each in opened]


def open_classifier(run: Path, cfg: DictConfig) -> Classifier:
    """The best checkpoint of a run, on the GPU where there is one; it sees whole pictures, as training does.

    Args:
        run: its folder.
        cfg: its config as `open_run` gives it.

    Raises:
        ConfigError: the parts do not fit together, or the checkpoint is missing or broken.
    """
    cfg.data.evaluation_size = "image_size"  # a network by itself takes no picture of any size
    cfg.data.num_workers = 0  # the processes of GrabCut have the cores
    with building_from(run):
        task = rebuild_task(cfg, read_provenance(run))
        data = rebuild_data(cfg, read_provenance(run))
    checkpoint = best_checkpoint(run)
    load_checkpoint_weights(task, checkpoint)
    task = task.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return Classifier(run, task, data, sha256_of(checkpoint))


def activations(
    classifiers: Sequence[Classifier],
    records: Sequence[Record],
    labels: Tensor,
    decoding: Decoding,
) -> Iterator[NDArray[np.float32]]:
    """Where the classifiers look for the class of each picture: the mean of their maps, at the picture's own size.

    Args:
        classifiers: at least one.
        records: the pictures.
        labels: ``int64 (N,)``: class of each.
        decoding: how the pictures are decoded.

    Yields:
        ``float32 (H, W)`` in [0, 1], in the order of the records.
    """
    several = [_activations(one, records, labels, decoding) for one in classifiers]
    for maps in zip(*several, strict=True):
        yield np.mean(maps, axis=0, dtype=np.float32)


def _activations(
    one: Classifier, records: Sequence[Record], labels: Tensor, decoding: Decoding
) -> Iterator[NDArray[np.float32]]:
    done = 0
    for batch in one.data.predict_dataloader(records, decoding):
        batch["image"] = batch["image"].to(one.task.device)
        images = one.data.on_after_batch_transfer(batch, 0)["image"]
        classes = labels[done : done + len(images)].to(images.device)
        done += len(images)
        maps = class_activation(one.task.network, images, classes)
        check_outputs({"activation": torch.from_numpy(maps)}, batch["id"], f"classifier {one.run}")
        for each, (height, width) in zip(maps, batch["size"].tolist(), strict=True):
            yield np.asarray(cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _differences(run: Path, cfg: DictConfig, data: PreparedData) -> list[str]:
    """What of a run would make its labels wrong or leak, in words."""
    facts: dict[str, Any] = read_provenance(run)
    classes = list(facts.get("image_classes", {}).get(HEAD, []))
    found = []
    if HEAD not in cfg.task.network.heads:
        found.append("no head for the class of a picture")
    elif classes != list(data.image_classes[HEAD]):
        found.append(f"image classes {classes}, here {list(data.image_classes[HEAD])}")
    if facts.get("split_sha256") != data.fold_assignment.sha256:
        found.append("other pictures: one was added, removed or changed")
        return found
    if facts["fold"] != data.fold:
        found.append(f"`fold = {facts['fold']}`, here {data.fold}")
        return found
    trained = read_split(run / SPLITS).parts(facts["fold"])["train"]
    if strange := len(set(trained) - set(data.parts["train"])):
        found.append(f"another split: {strange} pictures that are held out here were trained on")
    return found
