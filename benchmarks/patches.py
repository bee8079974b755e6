"""Poisson disk sampling of a large mask, against scipy's of the same area and radius; extraction with two workers.

scipy samples a square, not a mask, and stops when no candidate fits; ours goes on until no pixel is left.
"""

import platform
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy
from scipy.stats import qmc

from hsl.data.formats.folder import read_folder
from hsl.data.patches.centres import poisson_disk
from hsl.data.patches.export import write_patch_set
from hsl.data.patches.patch_sampling import PatchSampling

SIDE, RADIUS = 20_000, 300
REPEATS = 5
PICTURES, SHAPE = 24, (1024, 2048)
VERSIONS = {
    "python": platform.python_version(),
    "numpy": np.__version__,
    "scipy": scipy.__version__,
    "opencv": cv2.__version__,
}


def run() -> list[dict[str, Any]]:
    return [*sampling_rows(), extraction_row()]


def sampling_rows() -> list[dict[str, Any]]:
    mask = np.ones((SIDE, SIDE), bool)
    poisson_disk(mask, RADIUS, 0)  # the pages of the mask are there
    ours, peers, centres, points = [], [], [], []
    for seed in range(REPEATS):
        ours.append(seconds(lambda seed=seed: centres.append(len(poisson_disk(mask, RADIUS, seed)))))
        peers.append(seconds(lambda seed=seed: points.append(len(scipy_points(seed)))))
    fast, slow = statistics.median(ours), statistics.median(peers)
    tracemalloc.start()
    poisson_disk(mask, RADIUS, 0)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    sizes = {"side": SIDE, "radius": RADIUS, "repeats": REPEATS, "centres": centres, "scipy_centres": points}
    return [
        row("patches: sampling against scipy", sizes | {"unit": "seconds, median"}, fast, slow, slow / fast, 10.0),
        row("patches: sampling within 1 s", sizes | {"unit": "seconds; peer = limit"}, fast, 1.0, 1.0 / fast, 1.0),
        row("patches: sampling within 100 MB", sizes | {"unit": "MB; peer = limit"}, peak, 100.0, 100.0 / peak, 1.0),
    ]


def scipy_points(seed: int) -> np.ndarray[Any, Any]:
    return qmc.PoissonDisk(d=2, radius=RADIUS / SIDE, rng=seed).fill_space()


def extraction_row() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder) / "data")
        write(Path(folder), 1), write(Path(folder), 2)  # the files are in memory, the modules loaded
        times = [(write(Path(folder), 1), write(Path(folder), 2)) for _ in range(3)]
    one, two = (PICTURES / statistics.median(column) for column in zip(*times, strict=True))
    sizes = {"pictures": PICTURES, "shape": SHAPE, "patch": 512, "unit": "pictures per second, 2 workers against 1"}
    return row("patches: extraction with 2 workers", sizes, two, one, two / one, 1.7)


def draw_pictures(root: Path) -> None:
    """Clouds of colour with some noise, which take PNG as long as photographs do."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(PICTURES):
        small = random.integers(0, 255, (32, 64, 3), dtype=np.uint8)
        clouds = cv2.resize(small, SHAPE[::-1], interpolation=cv2.INTER_CUBIC)
        noise = random.integers(0, 12, clouds.shape, dtype=np.uint8)
        cv2.imwrite(str(root / f"images/{number}.png"), cv2.add(clouds, noise))
        cv2.imwrite(str(root / f"masks/{number}.png"), clouds[..., 0] // 64)
    (root / "dataset.yaml").write_text("classes: [a, b, c, d]\n")


def write(folder: Path, workers: int) -> float:
    sampling = PatchSampling(512, RADIUS, None, "fixed", None)
    catalogue = read_folder(folder / "data")
    with tempfile.TemporaryDirectory(dir=folder) as output:
        return seconds(
            lambda: write_patch_set(
                catalogue, sampling, Path(output), groups=None, seed=0, workers=workers, plot=lambda *_: None
            )
        )


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def row(name: str, sizes: dict[str, Any], ours: float, peer: float, ratio: float, goal: float) -> dict[str, Any]:
    return {
        "name": name,
        "sizes": sizes,
        "versions": VERSIONS,
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "ratio": round(ratio, 2),
        "goal": goal,
        "holds": ratio >= goal,
    }
