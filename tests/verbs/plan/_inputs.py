"""A folder of pictures with two classes of objects, and facts about one that is never written."""

from pathlib import Path

import numpy as np
from PIL import Image

from hsl.verbs.plan.fingerprint import ClassFacts, Fingerprint
from hsl.verbs.plan.views import Cost

SIDE = (48, 64)


def write_folder(root: Path, *, groups: int = 16, per_group: int = 2, noise: int = 0) -> Path:
    """Grey pictures with a square of 9 (`spot`) each, and a line of one pixel (`crack`) in every second group."""
    generator = np.random.default_rng(noise)
    rows = ["id,group"]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(groups * per_group):
        name, group = f"p{number:02d}", number // per_group
        mask = np.zeros(SIDE, np.uint8)
        mask[10:19, 20:29] = 1
        if group % 2:
            mask[40, 5:30] = 2
        image = generator.integers(0, 99, SIDE).astype(np.uint8) + 100 * (mask > 0).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"{name}.png")
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
        rows.append(f"{name},g{group:02d}")
    (root / "dataset.yaml").write_text("classes: [background, spot, crack]\n")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def facts(across: dict[str, list[float]], size: tuple[int, int] = (256, 256), **changed: object) -> Fingerprint:
    """Of 600 pictures of one size, with objects so many pixels across."""
    tables = {
        name: np.array([[one, *size] for one in sorted(values)]).reshape(-1, 3) for name, values in across.items()
    }
    classes = tuple(
        ClassFacts(
            name, 500, 80, 0.1, len(values), 0, *(float(np.quantile(values, q, method="lower")) for q in (0.1, 0.5))
        )
        for name, values in across.items()
    )
    given = {
        "data": "x", "fold": 0, "num_images": 600, "num_groups": 100, "grouped": True, "bits": None, "colour": True,
        "heights": (size[0],) * 3, "widths": (size[1],) * 3, "num_copies": 0, "num_empty": 0, "boundary": 0.1,
        "num_masks": 600, "classes": classes, "labels": {}, "several_labels": False, "num_scored": 150,
        "num_val": 150, "num_test": 0, "objects": tables,
    }  # fmt: skip
    return Fingerprint(**(given | changed))  # type: ignore[arg-type]


LIGHT = Cost("light", "small", seconds=1.0, memory=400 * 2**20, resident=100 * 2**20, has_weights=True)
HEAVY = Cost("heavy", "large", seconds=8.0, memory=4000 * 2**20, resident=900 * 2**20, has_weights=True)
