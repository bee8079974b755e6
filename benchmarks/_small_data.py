"""Small seeded data sets, one a preset that needs files: pictures of noise or plain shapes, by NumPy and Pillow."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


def save(path: Path, array: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_steel(root: Path, rng: np.random.Generator) -> None:
    """Sixty pictures of 32 x 64, one defect each but for every fifth, which has none."""
    rows = ["ImageId,ClassId,EncodedPixels"]
    for i in range(60):
        save(root / f"train_images/s{i:02d}.png", rng.integers(0, 255, (32, 64, 3), np.uint8))
        rows += [f"s{i:02d}.png,{i % 5},{32 * 10 + 5} 8 {32 * 12 + 5} 8"] if i % 5 else []
    (root / "train.csv").write_text("\n".join(rows) + "\n")


def write_reef(root: Path, rng: np.random.Generator) -> None:
    """Pictures of 64 x 96 and masks of blocks of 40 classes; a site each, in three parts."""
    for part, i in [(part, i) for part, number in (("train", 4), ("val", 7), ("test", 2)) for i in range(number)]:
        picture = rng.integers(0, 255, (64, 96, 3), np.uint8)
        save(root / f"leftImg8bit/{part}/site_{part}_{i}/{part}{i}_leftImg8bit.png", picture)
        blocks = rng.integers(0, 40, (8, 12), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        save(root / f"gtFine/{part}/site_{part}_{i}/{part}{i}_gtFine.png", blocks)


def write_leaves(root: Path, rng: np.random.Generator) -> None:
    """Green discs on white, with a brown spot where the leaf is ill: colours that GrabCut starts from."""
    y, x = np.mgrid[:64, :64]
    rows = ["id,group,label"]
    for i in range(30):
        label = ("healthy", "rust", "miner", "phoma", "cercospora", "mixed_or_undefined")[i % 6]
        mask = (np.hypot(y - 32, x - 32) < 20 + i % 4).astype(np.uint8)
        mask[np.hypot(y - 30, x - 26 - i % 6) < (7 + i % 3) * (label != "healthy")] = 2
        colours = np.array([(240, 240, 240), (60, 140, 40), (150, 90, 30)])[mask] + rng.integers(-9, 10, (64, 64, 3))
        save(root / f"images/l{i:02d}.png", colours.astype(np.uint8))
        save(root / f"masks/l{i:02d}.png", mask)
        rows.append(f"l{i:02d},l{i:02d},{label}")
    (root / "dataset.yaml").write_text("classes: [background, leaf, symptom]\n")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def write_nuclei(root: Path, rng: np.random.Generator) -> None:
    """Pictures of 32 x 32 with sixteen square objects, each brighter than the ground."""
    for i in range(24):
        ids = np.zeros((32, 32), np.uint16)
        for j in range(16):
            top, left, size = 8 * (j // 4) + 1, 8 * (j % 4) + 1, int(rng.integers(3, 6))
            ids[top : top + size, left : left + size] = j + 1
        noise = rng.integers(0, 155, (32, 32, 3))
        save(root / f"images/p{i:02d}.png", (noise + 100 * (ids > 0)[..., None]).astype(np.uint8))
        save(root / f"masks/p{i:02d}.png", (ids > 0).astype(np.uint8))
        save(root / f"instances/p{i:02d}.png", ids)
    (root / "dataset.yaml").write_text("classes: [background, nucleus]\n")


WRITERS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "leaf_dual_head": write_leaves, "histology": write_nuclei, "steel_cbam": write_steel, "coral_flat": write_reef,
}  # fmt: skip
