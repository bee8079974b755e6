"""`hsl profile lr=true`: a learning rate for a training, found by raising it step by step (Lightning's tuner)."""

import csv
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.tuner.tuning import Tuner
from omegaconf import DictConfig, OmegaConf

from hsl.callbacks.progress import quieten_lightning
from hsl.config.calls import check_calls, check_values
from hsl.config.ranges import KEYS
from hsl.config.validation import validate
from hsl.data.datamodule import DataModule
from hsl.errors import ConfigError, NonFiniteLogitsError
from hsl.files.cells import neutral
from hsl.files.io import write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.reports.plots.run_plots import learning_rate_search
from hsl.tasks.scoring import NonFiniteLossError
from hsl.terminal import say
from hsl.verbs.opening.building import build_task
from hsl.verbs.train.setup import make_repeatable

SKIPPED = 10  # steps at the beginning that the tuner leaves out of its choice
MIN_STEPS = 20
ATTEMPTS = 5


@dataclass(frozen=True)
class LrSearch:
    """What was found: the smoothed loss at each learning rate, and the ``optimizer.lr`` that is suggested."""

    rates: Sequence[float]
    losses: Sequence[float]
    suggestion: float


def search_learning_rate(cfg: DictConfig) -> LrSearch:
    """Search a rate for the training that ``cfg.overrides`` describe, print it and leave numbers and a plot.

    The rate rises exponentially, a step of the optimizer at each, until the loss diverges; the rate at which the
    smoothed loss falls most steeply is suggested (Smith 2017, "Cyclical Learning Rates for Training Neural Networks").
    Where the loss is not a number before that, the search is made again up to the rate at which it happened.

    Raises:
        ConfigError: a bound or the number of steps is out of its range, the modules have different learning rates, or
            the loss never falls.
    """
    _check(cfg)
    folder = Path(cfg.profiles) / f"{cfg.name}_lr"
    with OutputFolder(folder, "profile", way_out="Set another `name` or `profiles`.") as output:
        settings = training_of(cfg)
        found = _search(settings, cfg)
        _write(output.work, found, cfg)
    rate = f"{found.suggestion:.2g}"
    say(f"suggested: optimizer.lr={rate} ({len(found.rates)} steps, {found.rates[0]:.2g} to {found.rates[-1]:.2g})")
    say(f"{folder}")
    return found


def training_of(cfg: DictConfig) -> DictConfig:
    """The config of train.py for the words of ``overrides``, after the encoder and optimizer of the command line."""
    given = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    shared = [word for word in given if word.partition("=")[0].split(".")[0] in ("encoder", "optimizer")]
    words = [*shared, *cfg.overrides, f"name={cfg.name}", f"output_root={cfg.output_root}", f"seed={cfg.seed}"]
    settings = compose("train", overrides=words)
    validate(settings)
    content: Any = OmegaConf.to_container(settings, resolve=True)
    check_calls(content)
    check_values(content, KEYS)
    return settings


def _check(cfg: DictConfig) -> None:
    low, high, steps = cfg.lr_search.min, cfg.lr_search.max, cfg.lr_search.steps
    if not (isinstance(low, int | float) and isinstance(high, int | float) and 0 < low < high):
        raise ConfigError(
            "`lr_search.min` and `lr_search.max` should be above 0, the first below the second. "
            f"Found `lr_search.min = {low}` and `lr_search.max = {high}`. Change them."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < MIN_STEPS:
        raise ConfigError(
            f"`lr_search.steps` should be a whole number of at least {MIN_STEPS}: the first {SKIPPED} are not looked "
            f"at. Found `lr_search.steps = {steps}`. Set it higher."
        )


def _search(settings: DictConfig, cfg: DictConfig) -> LrSearch:
    quieten_lightning()
    data: DataModule = instantiate(settings.data)
    data.prepare()
    low, high, steps = float(cfg.lr_search.min), float(cfg.lr_search.max), int(cfg.lr_search.steps)
    for _ in range(ATTEMPTS):
        make_repeatable(settings.seed)
        task = build_task(settings, data.prepared)
        scale = _scale(task, settings)
        with tempfile.TemporaryDirectory() as scratch:
            trainer = _trainer(settings, steps, scratch)
            try:
                tuned: Any = Tuner(trainer).lr_find(
                    task, datamodule=data, min_lr=low, max_lr=high, num_training=steps, update_attr=False
                )
            except (NonFiniteLossError, NonFiniteLogitsError):
                reached = _last_good(trainer, low)
                say(f"The loss is no number above a rate of {reached:.2g}: the search is made again up to there.")
                if reached <= 2 * low:
                    break
                high = reached
                continue
        return _found(tuned, scale)
    raise ConfigError(
        f"The loss should be a number at small learning rates. Found NaN or infinity from {low:.2g} on. "
        "Lower `lr_search.min`, or look at the data: `hsl audit`."
    )


def _trainer(settings: DictConfig, steps: int, scratch: str) -> lightning.Trainer:
    trainer: lightning.Trainer = instantiate(settings.trainer)(
        max_epochs=steps, check_val_every_n_epoch=steps + 1, num_sanity_val_steps=0, logger=False, callbacks=[],
        enable_checkpointing=False, enable_progress_bar=False, default_root_dir=scratch,
        devices=1, strategy="auto", num_nodes=1,
    )  # fmt: skip
    return trainer


def _last_good(trainer: lightning.Trainer, low: float) -> float:
    """The rate before the one at which a search ended with an error; of the trainer itself the tuner restores all."""
    rates: Sequence[float] = next(
        (callback.lrs for callback in cast(Any, trainer).callbacks if hasattr(callback, "lrs")), []
    )
    return float(rates[-2]) if len(rates) > 1 else low


def _scale(task: Any, settings: DictConfig) -> float:
    """The rate of the parameters over ``optimizer.lr``; not 1 with a reference batch size."""
    rates = {group["lr"] for group in task.optimizer(task).param_groups}
    if len(rates) > 1:
        raise ConfigError(
            "`optimizer.lr_by_module` should be null for a search: it gives all modules one rate. "
            f"Found the rates {sorted(rates)}. Search without it, and set the rates in proportion."
        )
    return float(rates.pop()) / float(settings.optimizer.lr)


def _found(tuned: Any, scale: float) -> LrSearch:
    rates, losses = list(tuned.results["lr"]), list(tuned.results["loss"])
    suggestion = tuned.suggestion(skip_begin=SKIPPED) if len(losses) > SKIPPED + 2 else None
    if suggestion is None or not (np.diff(losses[SKIPPED:-1]) < 0).any():
        raise ConfigError(
            f"The loss should fall at some rate between {rates[0]:.2g} and {rates[-1]:.2g}. Found that it never does "
            f"within {len(losses)} steps. Widen `lr_search.min` and `lr_search.max`, or take more `lr_search.steps`."
        )
    count = min(len(rates), len(losses))
    return LrSearch([rate / scale for rate in rates[:count]], losses[:count], float(suggestion) / scale)


def _write(folder: Path, found: LrSearch, cfg: DictConfig) -> None:
    page = {"suggestion": found.suggestion, "steps": len(found.rates), "overrides": list(cfg.overrides)}
    page |= {"min": found.rates[0], "max": found.rates[-1], "seed": cfg.seed}
    write_atomically(folder / "lr.json", json.dumps(page, indent=1).encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(neutral, ["optimizer.lr", "smoothed_loss"]))
    writer.writerows(zip(found.rates, found.losses, strict=True))
    write_atomically(folder / "lr.csv", text.getvalue().encode())
    learning_rate_search(found.rates, found.losses, found.suggestion, folder / "lr.png")
