"""A data set of a few pictures to audit."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.files.scan import Scan, scan
from hsl.files.split_file import Fold, Split

CLASSES = ("clean", "scratch", "crack")


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write(path: Path, array: np.ndarray) -> FileSource:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path)
    return FileSource(path)


class DataSet:
    """Pictures on disk, one group and one part each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.records, self.parts = folder, [], {"train": [], "val": [], "test": [], "stop": []}

    def add(self, name: str, part: str, image: np.ndarray, mask: np.ndarray | None = None, suffix: str = "png") -> None:
        if mask is None:
            mask = np.zeros(image.shape[:2], np.uint8)
            mask[0, :3] = 0, 1, 2
        sources = (
            write(self.folder / f"images_{name}.{suffix}", image),
            write(self.folder / f"masks_{name}.png", mask),
        )
        self.records.append(Record(name, *sources, None, {"group": name}, None))
        self.parts[part].append(name)

    def take(self, groups: str | None = "group") -> tuple[Catalogue, Scan, Split]:
        catalogue = Catalogue("pictures", tuple(sorted(self.records, key=lambda r: r.id)), CLASSES)
        fold = Fold(tuple(self.parts["train"]), tuple(self.parts["val"]), "0", tuple(self.parts["stop"]))
        split = Split("kfold", 0, groups, (fold,), tuple(self.parts["test"]), "sha")
        return catalogue, scan(catalogue, None, 0), split
