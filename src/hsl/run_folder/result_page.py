"""One file that tells a finished run, for an interface that wants to open no other."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hsl.files.cells import original_rows
from hsl.files.io import write_atomically
from hsl.run_folder.layout import CONFIG, HISTORY, RESULTS


def result_page(folder: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What ``results.json`` says: config, scores of the best checkpoint, and a row per epoch.

    Nothing is computed here: the numbers are those of metrics.json and history.csv. Infinity and NaN are null.

    Args:
        folder: a run folder with config.yaml, and with history.csv if the run kept one.
        metrics: what metrics.json says, or is about to say.

    Returns:
        ``name``, ``fold``, ``seed``, ``config``, ``monitor``, ``classes`` and ``task_classes`` and ``image_classes``,
        ``val`` and ``test`` (inference to scores; null without such a part), ``history`` (a list of epochs).
    """
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf8"))
    page = {
        **{key: config[key] for key in ("name", "fold", "seed")},
        "config": config,
        **{key: metrics[key] for key in ("monitor", "classes", "task_classes", "image_classes")},
        **{part: metrics["parts"].get(part) for part in ("val", "test")},
        "history": _epochs(folder / HISTORY),
    }
    finite: dict[str, Any] = _finite(page)
    return finite


def write_result_page(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write ``results.json`` into a run folder."""
    page = result_page(folder, metrics)
    write_atomically(folder / RESULTS, json.dumps(page, indent=2, allow_nan=False).encode())


def _epochs(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():  # callbacks.history=null
        return []
    with path.open(encoding="utf8", newline="") as file:
        return [{name: _value(text) for name, text in row.items()} for row in original_rows(csv.DictReader(file))]


def _value(text: str) -> int | float | str | None:
    """A cell of the table, to the last digit; an empty one is none, the name of a phase stays a name."""
    if text.isdecimal():
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text or None


def _finite(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node
