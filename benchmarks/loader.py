"""Pictures per second out of the loader, against a plain data set that opens every file with PIL.

Both end with normalised float32 pictures and int64 masks in the process that trains. Both have one worker.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import PIL
import torch
import torchvision
import yaml
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Catalogue
from hsl.data.files.scan import scan
from hsl.data.formats.folder import read_folder
from hsl.data.loading.cache import PictureCache
from hsl.data.loading.dataset import PictureDataset
from hsl.data.loading.loader import BatchOrder, Loader
from hsl.data.loading.transforms import normalized, training_transform

ROOT = Path(__file__).parents[1]
GOAL = 2.0
SIZE = 224
BATCH = 16
REPEATS = 5
PICTURES = 320
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)


class PlainDataset(Dataset[Any]):
    """What one writes first: open, augment, normalise."""

    def __init__(self, catalogue: Catalogue, places: list[int]) -> None:
        records = [catalogue.records[place] for place in places]
        self.paths = [(record.image.name, record.mask.name) for record in records if record.mask]
        recipe = yaml.safe_load((ROOT / "conf/augmentation/default.yaml").read_text())
        flips, colour, rotation, blur = (recipe[name] for name in ("flips", "colour", "rotation", "blur"))
        jitter = {name: colour[name] for name in ("brightness", "contrast", "saturation", "hue")}
        turns = [v2.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)]
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(SIZE, recipe["resized_crop"]["scale"], recipe["resized_crop"]["ratio"]),
                v2.RandomApply([v2.RandomChoice(turns)], recipe["rot90"]["probability"]),
                v2.RandomHorizontalFlip(flips["horizontal"]),
                v2.RandomVerticalFlip(flips["vertical"]),
                v2.RandomApply(
                    [
                        v2.RandomRotation(
                            rotation["degrees"],
                            v2.InterpolationMode.BILINEAR,
                            fill={tv_tensors.Image: rotation["fill"], tv_tensors.Mask: 255},
                        )
                    ],
                    rotation["probability"],
                ),
                v2.RandomApply([v2.ColorJitter(**jitter)], colour["probability"]),
                v2.RandomApply([v2.GaussianBlur(7, blur["sigma"])], blur["probability"]),
                v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}, scale=True),
                v2.Normalize(MEAN.flatten().tolist(), STD.flatten().tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        image, mask = (Image.open(path) for path in self.paths[index])
        return self.transform(
            tv_tensors.Image(v2.functional.pil_to_tensor(image.convert("RGB"))),
            tv_tensors.Mask(np.array(mask)),
        )


def run() -> list[dict[str, Any]]:
    root = Path(os.environ.get("HSL_REAL_DATA", ROOT.parent / "shared/data")) / "magnetic_tile"
    if not root.is_dir():
        raise SystemExit(f"`{root}` should hold the magnetic tile pictures. Set HSL_REAL_DATA.")
    catalogue = read_folder(root)
    places = np.random.default_rng(0).choice(len(catalogue.records), PICTURES, replace=False).tolist()
    ours, peer = our_epoch(catalogue, places), plain_epoch(catalogue, places)
    ours(), peer()  # the workers start, our cache fills, the file system keeps the peer's files
    rates = [(PICTURES / ours(), PICTURES / peer()) for _ in range(REPEATS)]
    fast, slow = (statistics.median(column) for column in zip(*rates, strict=True))
    return [
        {
            "name": "loader",
            "sizes": {
                "data": "magnetic_tile",
                "pictures": PICTURES,
                "image_size": SIZE,
                "batch_size": BATCH,
                "num_workers": 1,
                "repeats": REPEATS,
                "unit": "pictures per second, median",
            },
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "pillow": PIL.__version__,
                "albumentations": albumentations.__version__,
                "opencv": cv2.__version__,
            },
            "ours": round(fast, 1),
            "peer": round(slow, 1),
            "ratio": round(fast / slow, 2),
            "goal": GOAL,
            "holds": fast / slow >= GOAL,
        }
    ]


def our_epoch(catalogue: Catalogue, places: list[int]) -> Callable[[], float]:
    found = scan(catalogue, None, workers=1)
    cache = PictureCache(
        catalogue.records,
        found.image_sizes,
        found.mask_sizes,
        Decoding.of(catalogue),
        kind="ram",
        gigabytes=4,
    )
    recipe = yaml.safe_load((ROOT / "conf/augmentation/default.yaml").read_text())
    parts = {name: value for name, value in recipe.items() if not name.startswith("_")}
    dataset = PictureDataset(
        [catalogue.records[place].id for place in places],
        cache,
        places,
        training_transform((SIZE, SIZE), **parts),
        head="segmentation",
        seed=0,
    )
    loader = Loader(dataset, BatchOrder(PICTURES, BATCH, shuffle=True, seed=0), num_workers=1)
    epochs = iter(range(10**6))

    def epoch() -> Iterator[Any]:
        loader.sampler.set_epoch(next(epochs))
        return (normalized(batch, MEAN, STD) for batch in loader)

    return partial(seconds, epoch)


def plain_epoch(catalogue: Catalogue, places: list[int]) -> Callable[[], float]:
    dataset = PlainDataset(catalogue, places)
    loader = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=1, persistent_workers=True, multiprocessing_context="fork"
    )
    return partial(seconds, loader.__iter__)


def seconds(epoch: Callable[[], Iterator[Any]]) -> float:
    start = time.perf_counter()
    pictures = sum(len(batch["image"] if isinstance(batch, dict) else batch[0]) for batch in epoch())
    if pictures != PICTURES:
        raise RuntimeError(f"{pictures} pictures came out of {PICTURES}")
    return time.perf_counter() - start
