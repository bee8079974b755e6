"""results.json repeats metrics.json and history.csv; nothing in it is another number."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsl.run_folder.scores import result_page, write_metrics

CONFIG = {"name": "steel", "fold": 1, "seed": 3, "optimizer": {"lr": 1e-5}, "odd": math.inf}
METRICS: dict[str, Any] = {
    "monitor": {"name": "val/miou", "mode": "max", "value": 0.1 + 0.2, "epoch": 1},
    "classes": ["none", "crack"],
    "task_classes": {},
    "image_classes": {"classification": ["a", "b"]},
    "parts": {"val": {"plain": {"miou": 0.1 + 0.2, "confusion": [[1, 0], [0, 1]], "nll": None}}},
    "objects": None,
}
HISTORY = f"epoch,phase,step,lr,train/loss,val/miou\n0,A,11,1e-05,inf,\n1,B,22,{1 / 3!r},0.5,{0.1 + 0.2!r}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "history.csv").write_text(HISTORY)
    return tmp_path


def test_the_page_repeats_what_the_files_say(folder: Path) -> None:
    page = result_page(folder, METRICS)
    assert page["config"] == {**CONFIG, "odd": None}
    assert (page["name"], page["fold"], page["seed"]) == ("steel", 1, 3)
    assert {key: page[key] for key in METRICS if key not in ("parts", "objects")} == {
        key: METRICS[key] for key in METRICS if key not in ("parts", "objects")
    }
    assert page["val"] == METRICS["parts"]["val"]
    assert page["test"] is None
    assert page["history"] == [
        {"epoch": 0, "phase": "A", "step": 11, "lr": 1e-5, "train/loss": None, "val/miou": None},
        {"epoch": 1, "phase": "B", "step": 22, "lr": 1 / 3, "train/loss": 0.5, "val/miou": 0.1 + 0.2},
    ]
    assert isinstance(page["history"][0]["epoch"], int)


def test_the_file_is_strict_json_and_equals_the_page(folder: Path) -> None:
    test = {"plain": {"miou": 0.25}}
    metrics = {**METRICS, "parts": {**METRICS["parts"], "test": test}}
    write_metrics(folder, metrics)
    stored = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert stored == result_page(folder, metrics)
    assert stored["test"] == test


def test_a_run_without_a_history(folder: Path) -> None:
    (folder / "history.csv").unlink()
    assert result_page(folder, METRICS)["history"] == []
