"""Checkpoints as they are read back, and the predictor that a run is asked with."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hsl.config.validation import window_findings
from hsl.errors import ConfigError
from hsl.run_folder.checkpoint import read_checkpoint
from hsl.tasks.segmentation import SegmentationTask


def choose_predictor(run_cfg: DictConfig, cfg: DictConfig) -> str | None:
    """Let the run predict with the ``inference`` of this command, where one is given, instead of its own.

    Returns:
        The name under which the run scored itself with this very predictor; ``None``: it never did.

    Raises:
        ConfigError: the predictor does not go with the size at which pictures are evaluated.
    """
    scored = {each.inference: each.get("predictor") or run_cfg.task.predictor for each in _evaluations(run_cfg)}
    if cfg.evaluation_size not in (None, run_cfg.data.evaluation_size):
        scored = {}
    if cfg.evaluation_size is not None:
        run_cfg.data.evaluation_size = cfg.evaluation_size
    if cfg.get("inference"):
        cfg.encoder = run_cfg.encoder  # a predictor may ask for the encoder's stride
        run_cfg.task.predictor = cfg.inference
        if findings := window_findings(cfg.inference, run_cfg.data.evaluation_size, "evaluation_size"):
            raise ConfigError(" ".join(findings))
    return next((name for name, predictor in scored.items() if predictor == run_cfg.task.predictor), None)


def num_examples(run_cfg: DictConfig) -> int:
    """So many best and so many worst pictures did the run show of itself."""
    return max((each.get("num_examples", 0) for each in _evaluations(run_cfg)), default=0)


def _evaluations(run_cfg: DictConfig) -> list[DictConfig]:
    return [each for each in run_cfg.callbacks.values() if isinstance(each, DictConfig) and "inference" in each]


def load_checkpoint_weights(task: SegmentationTask, checkpoint: Path) -> dict[str, Any]:
    """Load the weights of a checkpoint, all of them or none.

    Returns:
        The provenance that the checkpoint holds; empty where it holds none.

    Raises:
        ConfigError: the checkpoint is missing, broken, or of another model.
    """
    content = read_checkpoint(checkpoint)
    fill_task(task, checkpoint, content)
    return dict(content.get("provenance", {}))


def fill_task(task: SegmentationTask, checkpoint: Path, content: Mapping[str, Any]) -> None:
    """Load the weights of what was read from a checkpoint, all of them or none.

    Raises:
        ConfigError: they are of another model.
    """
    try:
        task.load_state_dict(content["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"`{checkpoint}` should fit the model of this run. Found: {textwrap.shorten(str(error), 300)}. "
            "Choose the encoder, decoder and task that it was made with."
        ) from None
