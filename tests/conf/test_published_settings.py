"""The experiments that were published have the published values."""

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from tests.conftest import composed

CORAL = {
    "monitor": "val/h_mean", "callbacks.best_checkpoint.monitor": "val/h_mean",
    "optimizer.lr": 6e-5, "optimizer.weight_decay": 0.01, "optimizer.betas": [0.9, 0.999],
    "scheduler._target_": "hsl.tasks.schedulers.poly", "scheduler.power": 1.0, "scheduler.warmup_ratio": 0.1,
    "trainer.max_epochs": 100, "trainer.precision": "auto", "trainer.accumulate_grad_batches": 1,
    "data.batch_size": 4, "data.image_size": 512, "data.tasks": "coral", "data.evaluation_size": "source",
    "inference.window": 512, "inference.stride": 256, "inference.windows_per_batch": 16, "encoder.name": "mit_b2",
    "decoder.dropout": 0.1,
}  # fmt: skip
SEVERAL = CORAL | {
    "weighting._target_": "hsl.weighting.scalar.Uncertainty", "decoder.width": 256, "loss.hybrid_alpha": 0.5,
    "loss.pixel.gamma": 2.0, "loss.auxiliary_weight": 0.4, "loss.consistency_weight": 0.1,
    "callbacks.weighting_log._target_": "hsl.callbacks.weighting_log.WeightingLog",
}  # fmt: skip
NASH = {"weighting.method._target_": "hsl.weighting.gramian.nash_mtl", "weighting.update_every": 10}
FOCUSED = {"decoder.primary": ["genus", "health"], "loss.primary": ["genus", "health"]}

ARTEFACT = {
    "data.image_size": 384, "data.batch_size": 96, "data.split.num_folds": 3, "trainer.max_epochs": 50,
    "trainer.gradient_clip_val": 1.0, "optimizer.lr": 1e-3, "optimizer.weight_decay": 0.01, "scheduler.pct_start": 0.3,
    "loss.weights": {"dice": 0.5, "focal": 0.5}, "loss.terms.focal.alpha": 0.25, "loss.terms.focal.gamma": 2.0,
    "loss.terms.dice.smooth": 1.0, "callbacks.early_stopping.patience": 10,
    "callbacks.early_stopping.min_delta": 0.001, "decoder.channels": [256, 128, 64, 32, 16],
}  # fmt: skip

PUBLISHED: list[tuple[list[str], dict[str, Any]]] = [
    (["experiment=coral_flat"], CORAL | {"task.primary": "all"}),
    (["experiment=coral_focused"], SEVERAL | FOCUSED),
    (["experiment=coral_holistic"], SEVERAL | {"decoder.primary": "all", "loss.primary": "all"}),
    (["experiment=coral_holistic", "weighting=nash_mtl"], CORAL | NASH),
    (["experiment=artefact_cv"], ARTEFACT),
]
"""What is typed, and by key of the resolved config the published value."""


def differing(cfg: DictConfig, expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key to the value found and the published one, where they are not the same."""
    plain = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    found = {key: OmegaConf.select(plain, key) for key in expected}
    values = {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in found.items()}
    return {key: (value, expected[key]) for key, value in values.items() if value != expected[key]}


@pytest.mark.parametrize(("words", "expected"), PUBLISHED, ids=lambda value: " ".join(value))
def test_resolved_values_are_the_published_ones(words: list[str], expected: dict[str, Any]) -> None:
    cfg = composed([*words, "data.root=x"])
    assert differing(cfg, expected) == {}


def test_a_value_that_differs_is_found() -> None:
    cfg = composed(["experiment=coral_flat", "data.root=x", "optimizer.lr=1e-3"])
    assert differing(cfg, CORAL) == {"optimizer.lr": (1e-3, 6e-5)}
