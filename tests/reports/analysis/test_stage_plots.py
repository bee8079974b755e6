"""Plots of an analysis, where some runs have no numbers."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hsl.reports.analysis.numbers import ClassAttention, StageActivations
from hsl.reports.analysis.stage_plots import attention_plot, stage_plot


def test_plots_with_gaps(tmp_path: Path) -> None:
    runs = {f"run {i}": {"rust": ClassAttention(3, 0, 0.1 * i, 0.3), "none": ClassAttention(0, 2, None, None)}
            for i in range(1, 10)}  # fmt: skip
    attention_plot(tmp_path / "attention.png", runs)
    live, dead = StageActivations.of(torch.randn(2, 3, 4, 4)), StageActivations.of(torch.zeros(2, 3, 4, 4))
    stage_plot(tmp_path / "stages.png", {"a": {2: live, 4: dead}, "b": {4: live}})
    for name in ("attention", "stages"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 0
