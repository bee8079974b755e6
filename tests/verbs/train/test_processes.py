"""Several processes on the CPU (gloo): what they evaluate is what one evaluates, to the picture."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hsl.files.row_file import read_rows

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TINY = (
    "encoder=mobilenetv3_small", "encoder.weights=null", "task=dual_head", "loss=dual_head", "data.image_labels=label",
    "data.reader.num_pictures=42", "data.reader.views_per_panel=1", "data.split.num_folds=2", "data.image_size=64",
    "data.split.test_fraction=0.05", "data.batch_size=12", "data.num_workers=0", "metrics=objects",
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=none", "data.audit.near_duplicates=off",
    "data.audit.missing_classes=warn",
)  # fmt: skip

WORDS: dict[str, list[str]] = {
    "plain": [],
    "tta": ["inference=tta"],
    "source": ["inference=whole", "evaluation_size=source"],
}


def hsl(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if key != "HSL_RUN_DIR"}
    program = "import sys; from hsl.cli import main; main()"
    script = folder / "start"  # without a suffix, as the console script
    script.write_text(program)
    command = [sys.executable, str(script), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def everything(folder: Path) -> dict[str, Any]:
    """What an evaluation left."""
    counts = np.load(folder / "pixel_counts.npz")
    rows = pd.read_csv(folder / "per_image.csv")
    images = pd.read_csv(folder / "image_predictions.csv")
    maps = sorted((folder / "predictions" / "classes").rglob("*.png"))
    page = json.loads((folder / "metrics.json").read_text())
    page.pop("checksum", None)
    return {
        "counts": {name: counts[name].tolist() for name in counts.files},
        "rows": rows.to_dict("list"),
        "images": images.to_dict("list"),
        "objects": list(read_rows(folder / "objects.jsonl")),
        "maps": [(one.parent.name, one.name, np.array(Image.open(one)).tolist()) for one in maps],
        "scores": page,
    }


def differences(one: Any, other: Any, by: float = 1e-6, where: str = "") -> list[str]:
    """Where two trees of values differ by more than ``by``, which is the order of a sum."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in differences(one[key], other[key], by, f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, pair in pairs for found in differences(*pair, by, f"{where}/{i}")]
    if isinstance(one, float) and isinstance(other, float):
        return [] if one == pytest.approx(other, rel=by, abs=by, nan_ok=True) else [f"{where}: {one} {other}"]
    return [] if one == other else [f"{where}: {str(one)[:200]} {str(other)[:200]}"]


TIES = 4
"""Pixels that may fall otherwise in a batch of another size, which rounds otherwise: on the edge of a bin of
confidence, or between two classes. One picture twice, or not at all, would be 4,096."""


def check_but_for_ties(alone: dict[str, Any], several: dict[str, Any]) -> None:
    """Each picture once, and no more than `TIES` pixels in another class or bin."""
    counts, others = alone["counts"], several["counts"]
    assert counts["ids"] == others["ids"]
    for name in ("pixels", "confidence"):
        one, other = (np.array(found[name], dtype=float) for found in (counts, others))
        assert one.shape == other.shape
        assert np.nansum(np.abs(one - other)) <= 2 * TIES, name
    for (part, name, one), (other_part, other_name, other) in zip(alone["maps"], several["maps"], strict=True):
        assert (part, name) == (other_part, other_name)
        assert (np.array(one) != np.array(other)).sum() <= TIES, name
    assert alone["images"]["id"] == several["images"]["id"]
    assert not differences(alone["scores"], several["scores"], by=0.02)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that two processes trained and evaluated."""
    folder = tmp_path_factory.mktemp("processes")
    two = ("trainer=ddp", "trainer.devices=2")
    done = hsl(folder, "train", *TINY, *two, f"output_root={folder}/outputs")
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (folder / "outputs").glob("*/fold0/2*")
    return made


@pytest.mark.parametrize("inference", WORDS)
def test_any_number_of_processes_evaluates_alike(run: Path, inference: str) -> None:
    words = WORDS[inference]
    found = {}
    for devices in (1, 2, 3, 4) if inference == "plain" else (1, 3):
        done = hsl(run.parents[3], "evaluate", f"run={run}", f"devices={devices}", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = run / "evaluations" / (words[0].partition("=")[2] if words else "plain")
        found[devices] = everything(folder)
        assert not list(folder.rglob("*rank*"))
    alone = found.pop(1)
    parts = json.loads((run / "splits.json").read_text())
    assert len(parts["folds"][0]["val"]) + len(parts["test"]) >= 21
    assert 0 < len(parts["test"]) < 4
    assert len(alone["objects"]) == len(alone["maps"]) == len(parts["folds"][0]["val"]) + len(parts["test"])
    for devices, several in found.items():
        check_but_for_ties(alone, several)
        if not differences(alone["counts"], several["counts"]):
            assert not differences(alone, several), devices
    if inference == "plain":  # as at the end of the training on two
        trained = json.loads((run / "metrics.json").read_text())["parts"]
        shown = {part: {"plain": trained[part]["plain"]} for part in trained}
        assert not differences(shown, alone["scores"]["parts"], by=1e-3)
        history = pd.read_csv(run / "history.csv")
        for score in ("miou", "pixel_accuracy", "boundary_f1", "ece"):
            assert history[f"val/{score}"][0] == pytest.approx(shown["val"]["plain"][score], abs=1e-3), score
