"""The metrics against their peers: all pixel scores in one update, the pool's price, surface distances, clustering."""

import statistics
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from benchmarks._metrics_objects import clustering_rows, in_turn, surface_rows
from benchmarks.sliding_window import peak_mib
from hsl.callbacks.object_scores import class_maps_of, submit
from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.objects.panoptic import panoptic_counts
from hsl.metrics.objects.surface import surface_distances
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.metrics.pool.pool import MetricPool

SHAPE = (4, 40, 512, 512)
ROUNDS = 5
TOLERANCE = 1e-6  # of the calibration error
CLASSES, PICTURES, SIDE = 6, 24, 256
VERSIONS = {name: version(name) for name in ("torch", "torchmetrics")}


def pixel_rows() -> list[dict[str, Any]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [*tier_one(device), pool_price()]


def tier_one(device: str) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    # so mild that no probability rounds to 1, for which torchmetrics has a sixteenth bin
    logits = (1.5 * torch.randn(SHAPE, generator=generator)).to(device)
    coarse = torch.randint(SHAPE[1], (SHAPE[0], 1, 16, 16), generator=generator).float()
    target = torch.nn.functional.interpolate(coarse, SHAPE[2:]).long()[:, 0].to(device)
    logits.scatter_add_(1, target[:, None], torch.full_like(target[:, None], 3, dtype=torch.float32))
    measure = partial(ours, logits, target)
    (mine, theirs), found = in_turn(measure, partial(peer, logits, target), ROUNDS)
    equal = torch.equal(found[0][0], found[1][0])
    difference = abs(float(found[0][1] - found[1][1]))
    sizes = {"logits": list(SHAPE), "device": device, "threads": torch.get_num_threads(), "ece_difference": difference}
    goal = 0.4 if device == "cuda" else 0.7
    memory = peak_mib(measure, device) / (logits.numel() * 4 / 2**20)
    return [
        {
            "name": "metrics: time of tier 1 complete by torchmetrics' confusion matrix and calibration error",
            "sizes": sizes, "versions": VERSIONS, "ours": f"{mine:.3f} s", "peer": f"{theirs:.3f} s",
            "ratio": round(mine / theirs, 3), "goal": f"<= {goal}",
            "holds": mine / theirs <= goal and equal and difference <= TOLERANCE,
        },
        {
            "name": "metrics: memory of tier 1 beyond the logits, by their size",
            "sizes": {"logits": list(SHAPE), "device": device}, "versions": VERSIONS,
            "ours": f"{memory:.3f} of the logits", "peer": "the logits", "ratio": round(memory, 3), "goal": "< 0.5",
            "holds": memory < 0.5,
        },
    ]  # fmt: skip


def ours(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    metric = Pixelwise(SHAPE[1]).to(logits.device)
    metric.update(logits, target)
    return metric.matrices.sum(0).cpu(), metric.compute()["ece"].cpu()


def peer(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    confusion = MulticlassConfusionMatrix(SHAPE[1], ignore_index=255).to(logits.device)
    calibration = MulticlassCalibrationError(SHAPE[1], n_bins=15, ignore_index=255).to(logits.device)
    confusion.update(logits, target)
    calibration.update(logits, target)
    return confusion.compute().cpu(), calibration.compute().cpu()


def pool_price() -> dict[str, Any]:
    """A validation on one thread, with and without the pool on the other core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    network = smp.Unet("resnet18", encoder_weights=None, classes=CLASSES).eval()
    images = torch.randn(PICTURES, 3, SIDE, SIDE)
    coarse = torch.randint(CLASSES, (PICTURES, 1, 8, 8)).float()
    masks = torch.nn.functional.interpolate(coarse, (SIDE, SIDE)).long()[:, 0]
    metrics = {
        "surface": partial(surface_distances, num_classes=CLASSES),
        "panoptic": partial(panoptic_counts, num_classes=CLASSES),
        "clustering": clustering_scores,
    }
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder, MetricPool(Path(folder) / "rows.jsonl", metrics, workers=1) as pool:
        validate(network, images, masks, pool, "warm-up")
        for i in range(ROUNDS):
            for with_pool, times in seconds.items():
                start = time.perf_counter()
                validate(network, images, masks, pool if with_pool else None, f"round {i}")
                times.append(time.perf_counter() - start)
                pool.poll()
                time.sleep(0.3)  # what is still in the queue is not to burden the next round
    torch.set_num_threads(threads)
    alone, beside = (statistics.median(times) for times in seconds.values())
    return {
        "name": "metrics: time of a validation with the pool on, by that without",
        "sizes": {"pictures": PICTURES, "side": SIDE, "classes": CLASSES, "workers": 1, "rounds": ROUNDS},
        "versions": VERSIONS,
        "ours": f"{beside:.3f} s",
        "peer": f"{alone:.3f} s (no pool)",
        "ratio": round(beside / alone, 3),
        "goal": "<= 1.1 while a core is free",
        "holds": beside / alone <= 1.1,
    }


@torch.inference_mode()
def validate(network: torch.nn.Module, images: Tensor, masks: Tensor, pool: MetricPool | None, part: str) -> None:
    metric = Pixelwise(CLASSES)
    for start in range(0, PICTURES, 4):
        logits, target = network(images[start : start + 4]), masks[start : start + 4]
        metric.update(logits, target)
        if pool is not None:
            batch: Any = {"id": [str(start + i) for i in range(len(target))], "masks": {"segmentation": target}}
            submit(pool, "segmentation", {}.get, part, batch, list(class_maps_of(logits)))
    metric.compute()


def run() -> list[dict[str, Any]]:
    return [*pixel_rows(), *surface_rows(), *clustering_rows()]
