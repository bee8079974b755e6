"""The 8-bit copy of an artefact: calibrated on training pictures, and given only where validation shows it no worse."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsl.data.datamodule import DataModule
from hsl.data.files.decoding import Decoding
from hsl.data.loading.resizing import resize
from hsl.data.loading.transforms import masks_by_head
from hsl.errors import UserError
from hsl.exporting.manifest import Manifest, Model, write_manifest
from hsl.exporting.predictors import normalised, reflected_to
from hsl.exporting.quantisation import quantise
from hsl.exporting.runner import Runner
from hsl.heads import Head
from hsl.metrics.images.image_counts import ImageCounts
from hsl.metrics.images.image_scores import one_hot_labels
from hsl.metrics.pixels.pixel_counts import PixelCounts
from hsl.reports.statistics.contrasts import Contrast, PooledScore, Units
from hsl.reports.statistics.resampling import Estimate, judge
from hsl.verbs.export.parity import confusion

MARGIN = 0.01
"""The largest loss of mIoU, or of accuracy of an image head, that is given away."""
CALIBRATION, RESAMPLES, SEED = 32, 10_000, 0


def quantise_artefact(folder: Path, manifest: Manifest, data: DataModule) -> dict[str, Any]:
    """Replace the graphs of an artefact by 8-bit ones, and compare both on the whole validation part.

    Args:
        folder: the artefact; changed.
        manifest: of it.
        data: of the run: training pictures calibrate, validation pictures compare.

    Returns:
        What was compared, for ``parity.json``.

    Raises:
        UserError: the 8-bit graphs say one thing of every pixel, or lose more than `MARGIN`.
    """
    exact = folder.with_name(f"{folder.name}-exact")
    shutil.copytree(folder, exact)
    prepared, decode = data.prepared, Decoding.of(data.prepared.catalogue)
    train = sorted(prepared.parts["train"])
    places = np.unique(np.linspace(0, len(train) - 1, min(CALIBRATION, len(train))).astype(int))
    records = [prepared.catalogue.records[prepared.places[train[place]]] for place in places]
    images = [decode(record).image for record in records]
    for model in manifest.models:
        quantise(exact / model.file, folder / model.file, [_seen(image, model) for image in images])
    write_manifest(folder, manifest)
    found = _compare(Runner.open(exact), Runner.open(folder), data)
    shutil.rmtree(exact)
    return {"pictures_calibrated": len(images), "margin": MARGIN, **found}


def _seen(image: NDArray[np.uint8], model: Model) -> NDArray[np.float32]:
    """A picture as the graph sees it; of a large one the middle window."""
    sized = image if model.evaluation_size is None else resize(image, model.evaluation_size)
    batch = normalised([sized], model.mean, model.std)
    height, width = batch.shape[-2:]
    if model.window is None:
        return reflected_to(batch, height + -height % model.stride, width + -width % model.stride)
    side = model.window.side
    batch = reflected_to(batch, max(height, side), max(width, side))
    top, left = ((length - side) // 2 for length in batch.shape[-2:])
    return batch[..., top : top + side, left : left + side]


def _compare(exact: Runner, small: Runner, data: DataModule) -> dict[str, Any]:
    prepared, decode = data.prepared, Decoding.of(data.prepared.catalogue)
    ids = sorted(prepared.parts["val"])
    counts: dict[str, tuple[list[Any], list[Any]]] = {head.name: ([], []) for head in exact.manifest.heads}
    reach: dict[str, list[NDArray[Any]]] = {head: [] for head in counts}
    kept: dict[str, list[str]] = {head: [] for head in counts}
    for name in ids:
        picture = decode(prepared.catalogue.records[prepared.places[name]])
        both = [runner.predict(picture.image) for runner in (exact, small)]
        truths = _truths(data, name, picture.mask)
        for head in exact.manifest.heads:
            flat = both[1].probabilities[head.name].reshape(len(head.classes), -1)
            reach[head.name] += [flat.min(axis=1), flat.max(axis=1)]
            if head.name not in truths:
                continue
            kept[head.name].append(prepared.group(name))
            for side, said in zip(counts[head.name], both, strict=True):
                side.append(_counted(said, head, truths[head.name]))
    rows, sentences = {}, []
    for head in exact.manifest.heads:
        check_spread(head.name, float(np.ptp(np.stack(reach[head.name]), axis=0).max()))
        if kept[head.name]:
            rows[head.name], sentence = _judged(head, kept[head.name], counts[head.name])
            sentences.append(sentence)
    return {"passed": True, "heads": rows, "sentences": sentences}


def _truths(data: DataModule, name: str, mask: NDArray[np.uint8] | None) -> dict[str, Any]:
    """By head what a picture shows."""
    prepared, found = data.prepared, {}
    if mask is not None:
        by_head = masks_by_head(prepared.heads, torch.from_numpy(mask).long()[None])
        found = {head: one[0].numpy() for head, one in by_head.items()}
    if prepared.image_labels is not None:
        value = prepared.image_labels.values[prepared.places[name]]
        for head, classes in prepared.image_classes.items():
            found[head] = value if prepared.image_labels.several else one_hot_labels(np.array([value]), len(classes))[0]
    return found


def _counted(said: Any, head: Head, truth: NDArray[Any]) -> NDArray[Any]:
    if head.kind == "dense":
        return confusion(truth, said.class_map(head.name), len(head.classes))
    shown = said.labels(head.name)
    return np.stack([truth, np.array([name in shown for name in head.classes], dtype=float)])


def _judged(head: Head, groups: Sequence[str], sides: tuple[list[Any], list[Any]]) -> tuple[dict[str, Any], str]:
    units = Units.of(groups)
    metric = "miou" if head.kind == "dense" else "accuracy"
    exact, small = (PooledScore(_pooled(head, side).by_unit(units.index, units.num), metric) for side in sides)
    (estimate,) = judge([Contrast(units, small, exact)], RESAMPLES, SEED)
    row = {"metric": metric, "exact": exact.whole, "int8": small.whole, "groups": units.num}
    row |= {"difference": estimate.mean, "interval": _bounds(estimate), "smallest_shown": estimate.smallest}
    sentence = (
        f"`{head.name}`: {metric} {small.whole:.4f} with 8 bits, {exact.whole:.4f} without, over {units.num} groups "
        f"of the validation part; {_verdict(estimate)} (allowed: a loss of {MARGIN:g})."
    )
    check_loss(head.name, metric, estimate.mean)
    return row, sentence


def _pooled(head: Head, side: Sequence[NDArray[Any]]) -> PixelCounts | ImageCounts:
    if head.kind != "dense":
        stacked = np.stack(side)
        return ImageCounts.of(stacked[:, 0], stacked[:, 1] == 1, head.several)
    matrices = np.stack([np.stack([one, np.zeros_like(one)]) for one in side])
    number, classes = len(side), len(head.classes)
    zeros = np.zeros(number)
    return PixelCounts(
        matrices, np.zeros((number, 7, classes)), np.zeros((number, 2, 1)), np.zeros((number, 1)), zeros, zeros
    )


def _bounds(estimate: Estimate) -> list[float] | None:
    return None if estimate.interval is None else [estimate.interval.low, estimate.interval.high]


def _verdict(estimate: Estimate) -> str:
    if estimate.interval is None:
        return "too few independent groups to say, or none differs"
    low, high = estimate.interval.low, estimate.interval.high
    return f"95 % interval of the difference {low:+.4f} to {high:+.4f}"


def check_spread(head: str, spread: float) -> None:
    """Refuse a graph that says one thing of everything.

    Raises:
        UserError: all its probabilities are alike.
    """
    if not spread > 1e-6:
        raise UserError(
            f"`{head}` of the 8-bit graph should say something of the validation pictures. Found that all its "
            "probabilities are alike. Nothing was written. Export with `quantisation=null`."
        )


def check_loss(head: str, metric: str, difference: float) -> None:
    """Refuse a graph that lost too much.

    Raises:
        UserError: it is worse by more than `MARGIN`.
    """
    if not difference >= -MARGIN:
        raise UserError(
            f"`{head}` of the 8-bit graph should lose at most {MARGIN:g} of its {metric} on the validation part. Found "
            f"{-difference:.4f}. Nothing was written. Export with `quantisation=null`."
        )
