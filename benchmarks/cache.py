"""Pictures per second out of the loader with a set ten times the memory of the cache: disk, RAM, and neither.

Augmented training pictures, one worker, in turn. Before each epoch the system drops what it keeps of the cache's file,
so that the disk cache reads from the disk; `share_read_from_disk` says how much of it that was.
"""

import os
import platform
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from hsl.data.files.decoding import Decoding
from hsl.data.files.records import FileSource, Record
from hsl.data.loading.cache import PictureCache
from hsl.data.loading.dataset import PictureDataset
from hsl.data.loading.loader import BatchOrder, Loader
from hsl.data.loading.transforms import training_transform

ROOT = Path(__file__).parents[1]
PICTURES, SIDE, SIZE, BATCH, REPEATS, TIMES = 240, 768, 384, 16, 5, 10
GOAL = 0.9
"""Of the disk cache, by RAM that holds everything."""
NO_THRASH = 0.95
"""Of RAM that holds a tenth, by a loader without a cache; what is lost is noise."""


def run() -> list[dict[str, Any]]:
    place = ROOT / "outputs"  # not /tmp, which may be memory
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        records = _paint(folder)
        whole = PICTURES * SIDE * SIDE * 4 / 1e9
        kinds = {
            "disk": _loader(records, folder, kind="disk", gigabytes=whole / TIMES),
            "ram, all": _loader(records, folder, kind="ram", gigabytes=whole * 1.01),
            "ram, a tenth": _loader(records, folder, kind="ram", gigabytes=whole / TIMES),
            "none": _loader(records, folder, kind=None, gigabytes=1),
        }
        epochs = {kind: partial(_seconds, loader, folder) for kind, loader in kinds.items()}
        for epoch in epochs.values():  # the worker starts, the caches fill
            epoch()
        before = _read_bytes(kinds["disk"])
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(REPEATS):
            for kind, epoch in epochs.items():
                rates[kind].append(PICTURES / epoch())
        read = (_read_bytes(kinds["disk"]) - before) / (REPEATS * whole * 1e9)
    rounds = [round(disk / ram, 2) for disk, ram in zip(rates["disk"], rates["ram, all"], strict=True)]
    sizes = {
        "pictures": PICTURES, "side": SIDE, "image_size": SIZE, "batch_size": BATCH, "num_workers": 1,
        "repeats": REPEATS, "disk_by_ram": rounds, "decoded_gigabytes": round(whole, 2),
        "cache_gigabytes": round(whole / TIMES, 3),
        "share_read_from_disk": round(read, 2), "unit": "pictures per second, median",
    }  # fmt: skip
    return [
        _row("cache: ten times the memory, disk by RAM for all", rates["disk"], rates["ram, all"], GOAL, sizes),
        _row("cache: RAM for a tenth by no cache", rates["ram, a tenth"], rates["none"], NO_THRASH, sizes),
    ]  # fmt: skip


def _row(name: str, ours: list[float], peer: list[float], goal: float, sizes: dict[str, Any]) -> dict[str, Any]:
    """The ratio is the median over the rounds: what else the machine does changes from one to the next."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "opencv": cv2.__version__}
    ratio = statistics.median(one / other for one, other in zip(ours, peer, strict=True))
    return {
        "name": name, "sizes": sizes, "versions": versions, "ours": round(statistics.median(ours), 1),
        "peer": round(statistics.median(peer), 1), "ratio": round(ratio, 3), "goal": goal, "holds": ratio >= goal,
    }  # fmt: skip


def _paint(folder: Path) -> list[Record]:
    """Clouds with the detail of a photograph, as JPEG, and a PNG mask."""
    random, records = np.random.default_rng(0), []
    for number in range(PICTURES):
        coarse = random.normal(128, 60, (SIDE // 16, SIDE // 16, 3)).astype(np.float32)
        image = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        image += random.normal(0, 6, image.shape).astype(np.float32)
        paths = folder / f"{number:04d}.jpg", folder / f"{number:04d}.png"
        cv2.imwrite(str(paths[0]), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
        cv2.imwrite(str(paths[1]), np.asarray(image[..., 0] > 160, np.uint8))
        records.append(Record(f"{number:04d}", FileSource(paths[0]), FileSource(paths[1]), None, {}, None))
    return records


def _loader(records: list[Record], folder: Path, *, kind: str | None, gigabytes: float) -> Loader:
    sizes = np.full((PICTURES, 2), SIDE)
    cache = PictureCache(records, sizes, sizes, Decoding(), kind=kind, gigabytes=gigabytes, cache_dir=folder)
    recipe = yaml.safe_load((ROOT / "conf/augmentation/default.yaml").read_text())
    parts = {name: value for name, value in recipe.items() if not name.startswith("_")}
    transform = training_transform((SIZE, SIZE), **parts)
    names = [record.id for record in records]
    dataset = PictureDataset(names, cache, range(PICTURES), transform, head="segmentation", seed=0)
    return Loader(dataset, BatchOrder(PICTURES, BATCH, shuffle=True, seed=0), num_workers=1)


def _seconds(loader: Loader, folder: Path) -> float:
    for path in folder.glob("*.cache"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # only pages that are written can be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    loader.sampler.set_epoch(loader.sampler.epoch + 1)
    start = time.perf_counter()
    pictures = sum(len(batch["image"]) for batch in loader)
    if pictures != PICTURES:
        raise RuntimeError(f"{pictures} pictures came out of {PICTURES}")
    return time.perf_counter() - start


def _read_bytes(loader: Loader) -> int:
    """From the disk, by the worker."""
    (worker,) = loader._iterator._workers
    return int(Path(f"/proc/{worker.pid}/io").read_text().split("read_bytes: ")[1].split()[0])
