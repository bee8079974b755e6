"""Label errors planted in real data, and where `hsl suspects` ranks them. Two models of three folds each, on a CPU.

Resumable: what is planted, trained and looked at under `.bench_data/suspects` stays. The plants are read only after the
list is written. `HSL_REAL_DATA` names the data; `HSL_SUSPECTS=nuclei_dsb2018` chooses another set.
"""

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._plants import plant
from hsl.data.files.run_lengths import decode_runs
from hsl.exporting.gate_fit import wilson_interval
from hsl.suspects.listing import WHOLE, Suspect, Suspects, read_suspects

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("HSL_REAL_DATA", ROOT.parent / "shared/data"))
SETS = {
    "coffee_leaf": (3, ["data.image_size=[96,192]", "trainer.max_epochs=8"]),
    "nuclei_dsb2018": (2, ["data.image_size=128", "trainer.max_epochs=6"]),
}
ENCODERS = ("efficientnet_lite0", "mobilenetv3_small")
COMMON = [
    "data=folder", "decoder=unet_small", "data.batch_size=8", "data.num_workers=0", "optimizer.lr=0.001",
    "trainer.check_val_every_n_epoch=2", "metrics=none", "data.split.test_fraction=0", "data.split.stop_fraction=0.1",
    "data.audit.near_duplicates=warn", "data.audit.conflicts=warn", "callbacks.early_stopping=null",
    "callbacks.tta_evaluation=null", "logger=none", "resume=last",
]  # fmt: skip
PRECISION = 0.8
"""Goal: of the first twentieth of the list."""
Bools = NDArray[np.bool_]


def run() -> list[dict[str, Any]]:
    name = os.environ.get("HSL_SUSPECTS", "coffee_leaf")
    place = ROOT / ".bench_data" / "suspects" / name
    made = looked_at(name, place)
    content = read_suspects(made)
    hits = judged(content, REAL / name, place)
    pictures = picture_hits(content, place)
    first = max(1, round(0.05 * len(hits)))
    number = len({one.id for one in content.suspects[:first]})
    low, high = wilson_interval(float(hits[:first].mean()), number)
    swaps = [rank for rank, one in enumerate(content.suspects, 1) if one.kind == WHOLE[0] and hits[rank - 1]]
    one_percent = len(hits) / 100
    plants = json.loads((place / "planted.json").read_text(encoding="utf8"))
    errors = len(plants) - sum(one["kind"] == "swapped" for one in plants) // 2  # a pair is one error
    sizes = {
        "data": name,
        "pictures": len(content.pictures),
        "models": content.members,
        "planted": dict(Counter(one["kind"] for one in plants)),
        "suspects": len(hits),
        "right": int(hits.sum()),
        "first_5_percent": first,
        "precision_interval": [round(low, 3), round(high, 3)],
        "precision_at": {str(k): round(float(hits[:k].mean()), 3) for k in (50, 100, 200, errors) if k <= len(hits)},
        "by_kind": by_kind(content, hits),
        "swaps_at": swaps,
        "pictures_first_5_percent": round(float(pictures["ours"].mean()), 3),
        "pictures_softmin": round(float(pictures["softmin"].mean()), 3),
        "pictures_with_an_error": round(float(pictures["all"].mean()), 3),
    }
    versions = {"python": platform.python_version(), "torch": version("torch"), "numpy": version("numpy")}
    precision = float(hits[:first].mean())
    found = len(swaps) == 3 and max(swaps) <= max(3, one_percent)
    common = {"sizes": sizes, "versions": versions}
    return [
        {
            "name": f"suspects, {name}: precision of the first 5 %",
            "ours": round(precision, 3), "peer": PRECISION, "ratio": precision / PRECISION, "goal": 1.0,
            "holds": precision >= PRECISION, **common,
        },
        {
            "name": f"suspects, {name}: swapped pairs in the first 1 %",
            "ours": len(swaps), "peer": 3, "ratio": len(swaps) / 3, "goal": 1.0, "holds": found, **common,
        },
    ]  # fmt: skip


def looked_at(name: str, place: Path) -> Path:
    """Plant, train and look, as far as that is not done: the folder that `hsl suspects` wrote."""
    classes, own = SETS[name]
    if not (place / "planted.json").is_file():
        plant(REAL / name, place, classes)
    for encoder in ENCODERS:
        for fold in range(3):
            words = [f"data.root=data/{name}", f"encoder={encoder}", f"fold={fold}", f"name=suspects-{encoder}"]
            called([str(ROOT / "train.py"), *COMMON, *own, *words], place)
    main = "import sys; from hsl.cli import main; sys.argv[0] = 'hsl'; main()"
    called(["-c", main, "suspects", "runs='outputs/suspects-*/*/*'", "output=suspects"], place)
    return place / "suspects"


def called(words: list[str], place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, *words], cwd=place, env=environment, check=True)


def judged(content: Suspects, source: Path, place: Path) -> Bools:
    """Whether each suspect is a planted error: of a region, whether it lies mostly where the mask was changed."""
    plants: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads((place / "planted.json").read_text(encoding="utf8")):
        plants.setdefault(one["id"], []).append(one)
    return np.array([is_planted(one, plants.get(one.id, []), source, place) for one in content.suspects])


def is_planted(one: Suspect, plants: list[dict[str, Any]], source: Path, place: Path) -> bool:
    if one.kind == "swapped files":
        return any(each["other"] == one.other for each in plants)
    if one.kind == "shifted mask":
        return any(each["kind"] == "shifted" for each in plants)
    if not plants:
        return False
    before, after = (
        np.asarray(cv2.imread(str(root / "masks" / f"{one.id}.png"), cv2.IMREAD_UNCHANGED))
        for root in (source, place / "data" / source.name)
    )
    top, left, height, width = one.box
    pixels = decode_runs(one.runs, height, width)
    changed = (before != after)[top : top + height, left : left + width]
    return bool((changed & pixels).sum() > pixels.sum() / 2)


def picture_hits(content: Suspects, place: Path) -> dict[str, Bools]:
    """Whether pictures have an error: all, the first twentieth by our rank, and by softmin."""
    wrong = {one["id"] for one in json.loads((place / "planted.json").read_text(encoding="utf8"))}
    first = max(1, round(0.05 * len(content.pictures)))
    by_softmin = sorted(content.pictures, key=lambda one: (one.softmin is None, one.softmin))
    chosen = {"all": content.pictures, "ours": content.pictures[:first], "softmin": by_softmin[:first]}
    return {name: np.array([one.id in wrong for one in rows]) for name, rows in chosen.items()}


def by_kind(content: Suspects, hits: Bools) -> dict[str, list[int]]:
    """Kind -> right ones and all of it."""
    kinds = [one.kind for one in content.suspects]
    return {
        kind: [sum(hit for hit, of in zip(hits.tolist(), kinds, strict=True) if of == kind), number]
        for kind, number in Counter(kinds).items()
    }
