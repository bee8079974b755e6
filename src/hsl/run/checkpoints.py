"""Run folders and checkpoints as they are read back."""

import pickle
import textwrap
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from hsl.calls import check_calls
from hsl.config import ConfigError, window_findings
from hsl.tasks.segmentation import SegmentationTask


def open_run(path: str) -> tuple[Path, DictConfig]:
    """A run folder and its resolved config.

    Raises:
        ConfigError: the folder is none, or its config calls what this version does not have.
    """
    run = Path(path)
    if not (run / "config.yaml").is_file():
        raise ConfigError(
            f"`run` should be a run folder. Found `run = {path}`, which has no config.yaml. They lie below `outputs/`."
        )
    try:
        cfg = OmegaConf.load(run / "config.yaml")
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"`{run / 'config.yaml'}` is no YAML: {error}. Restore it, or make the run anew.") from None
    content: Any = OmegaConf.to_container(cfg)
    try:
        check_calls(content)
    except ConfigError as error:
        raise ConfigError(
            f"`{run}` should be a run of this version of hsl. {error} Take the version that provenance.json names, "
            "or mend config.yaml."
        ) from None
    return run, cast(DictConfig, cfg)


def choose_predictor(run_cfg: DictConfig, cfg: DictConfig) -> str | None:
    """Let the run predict with the ``inference`` of this command, where one is given, instead of its own.

    Returns:
        The name under which the run scored itself with this very predictor; ``None``: it never did.

    Raises:
        ConfigError: the predictor does not go with the size at which pictures are evaluated.
    """
    evaluations = [each for each in run_cfg.callbacks.values() if each and "inference" in each]
    scored = {each.inference: each.get("predictor") or run_cfg.task.predictor for each in evaluations}
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


def load_weights(task: SegmentationTask, checkpoint: Path) -> dict[str, Any]:
    """Load the weights of a checkpoint, all of them or none.

    Returns:
        The provenance that the checkpoint holds; empty where it holds none.

    Raises:
        ConfigError: the checkpoint is missing, broken, or of another model.
    """
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        state = content["state_dict"]
    except FileNotFoundError:
        raise ConfigError(f"`{checkpoint}` should be a checkpoint. Found no such file. Has the run finished?") from None
    except (RuntimeError, EOFError, LookupError, TypeError, IsADirectoryError, pickle.UnpicklingError) as error:
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        raise ConfigError(f"`{checkpoint}` should be a checkpoint of hsl. Found: {found}.") from error
    try:
        task.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(
            f"`{checkpoint}` should fit the model of this run. Found: {textwrap.shorten(str(error), 300)}. "
            "Choose the encoder, decoder and task that it was made with."
        ) from None
    return dict(content.get("provenance", {}))
