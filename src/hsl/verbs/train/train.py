"""`hsl train`: config in, run folder out."""

import contextlib
import copy
import functools
from pathlib import Path
from typing import Any, cast

import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hsl.callbacks.monitored import MonitoredValue, best_of
from hsl.callbacks.progress import quieten_lightning
from hsl.callbacks.provenance import Provenance
from hsl.config.validation import validate
from hsl.data.audit.audit_views import write_contact_sheets
from hsl.data.bands.bands import BandStatistics
from hsl.data.datamodule import DataModule
from hsl.data.files.scan import annotation_hashes, bits_of
from hsl.data.prepared import PreparedData
from hsl.files.split_file import write_split
from hsl.metrics.catalogue import read_mode
from hsl.models.families import family_of
from hsl.run_folder.claim import RunFolder, find_run_folder
from hsl.run_folder.layout import SPLITS
from hsl.run_folder.provenance import write_audit, write_config, write_parts
from hsl.tasks.segmentation import SegmentationTask
from hsl.tasks.sharding import FullyShardedStrategy
from hsl.terminal import say
from hsl.verbs.audit import part_tests
from hsl.verbs.evaluate import score_checkpoint
from hsl.verbs.opening.building import build_task, facts_of, without_weights
from hsl.verbs.scoring.results import Monitored
from hsl.verbs.train.earlier_runs import check_first_weights, learned_from, same_schedule, take_over
from hsl.verbs.train.phase_plan import check_phases
from hsl.verbs.train.phases import PhasedRun, check_phase_checkpoints
from hsl.verbs.train.setup import (
    check_launch,
    check_training,
    ending_together,
    is_further_process,
    make_callbacks,
    make_repeatable,
    own_command,
    share_folder,
)


def train(cfg: DictConfig) -> float | None:
    """Train, evaluate the best checkpoint, fill the run folder.

    Returns:
        The best monitored value; what a sweep optimises. ``None`` in the further processes of a distributed run.

    Raises:
        ConfigError: a setting breaks a rule.
        DataError: the data or its split does not pass the audit.
    """
    validate(cfg)
    read_mode(cfg.monitor, cfg.monitor_mode)
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    quieten_lightning()
    make_repeatable(cfg.seed)
    data: DataModule = instantiate(cfg.data)
    data.prepare()
    folder = find_run_folder(
        cfg,
        sweep=sweep,
        counts=functools.partial(learned_from, data=data.prepared),
        alike=functools.partial(same_schedule, cfg, data),
    )
    if folder.finished:
        say(f"finished already: {folder.path} (`resume=null rerun=true` trains anew)")
        return folder.result(cfg.monitor)
    check_first_weights(cfg.encoder.weights, data.prepared)
    task = build_task(without_weights(cfg) if folder.checkpoint else cfg, data.prepared)
    if data.bands is not None:
        say(_told_of(data.bands))
    check_phases(cfg, data, task)
    check_training(cfg, data, task)
    take_over(folder, cfg, data.prepared, task)  # a checkpoint that does not fit is refused before a folder is made
    check_phase_checkpoints(folder.path)
    facts = _facts(folder, cfg, data.prepared, task)
    if not is_further_process(cfg.trainer):
        folder.claim(facts)
    try:
        with own_command():
            share_folder(folder, cfg)
            return _train_in(folder, cfg, data, task)
    finally:
        folder.release()


def _train_in(folder: RunFolder, cfg: DictConfig, data: DataModule, task: SegmentationTask) -> float | None:
    cfg = copy.deepcopy(cfg)
    cfg.run_dir = str(folder.path)
    provenance = Provenance(folder.path, _facts(folder, cfg, data.prepared, task))
    with provenance.recording() if folder.claimed else contextlib.nullcontext():
        return _fit(folder, cfg, data, task, provenance)


def _fit(
    folder: RunFolder, cfg: DictConfig, data: DataModule, task: SegmentationTask, provenance: Provenance
) -> float | None:
    callbacks = list(make_callbacks(cfg).values())
    if cfg.phases:
        _write_inputs(folder, cfg, data.prepared)
        monitored = PhasedRun(folder.path, cfg, data, provenance).fit()
        score_checkpoint(task, data, cfg, callbacks, Path(monitored.checkpoint), folder.path, monitored)
        return _tell(monitored, folder.path)
    watching = [*callbacks, MonitoredValue(cfg.monitor), provenance]
    trainer: lightning.Trainer = instantiate(cfg.trainer)(
        callbacks=watching, logger=instantiate(cfg.logger), default_root_dir=folder.path
    )
    check_launch(trainer)
    if trainer.is_global_zero:
        _write_inputs(folder, cfg, data.prepared)
    with ending_together(trainer):
        trainer.fit(task, datamodule=data, ckpt_path=folder.checkpoint, weights_only=True)
        trainer.strategy.barrier()  # the first process may have put other weights in the place of the best
        monitored = Monitored.of(best_of(watching), folder.path)
        if isinstance(trainer.strategy, FullyShardedStrategy):  # without an optimizer the model fits a device
            task = build_task(without_weights(cfg), data.prepared)
            cfg.trainer.strategy = "ddp"
        score_checkpoint(task, data, cfg, callbacks, Path(monitored.checkpoint), folder.path, monitored)
        return _tell(monitored, folder.path) if trainer.is_global_zero else None
    return None  # of a further process, whose first one was interrupted


def _tell(monitored: Monitored, folder: Path) -> float:
    say(f"{monitored.name} {monitored.value:.4f} (epoch {monitored.epoch + 1})  {folder}")
    return monitored.value


def _write_inputs(folder: RunFolder, cfg: DictConfig, data: PreparedData) -> None:
    write_config(folder.path, cfg)
    write_split_and_audit(folder.path, data)


def write_split_and_audit(folder: Path, data: PreparedData) -> None:
    """Leave the fold assignment, the audit and the comparison of the parts in the run folder."""
    write_split(folder / SPLITS, data.fold_assignment)
    write_audit(folder, data.audit.to_json())
    write_contact_sheets(data.audit, data.catalogue, folder / "audit")
    write_parts(folder, part_tests(data))


def _facts(folder: RunFolder, cfg: DictConfig, data: PreparedData, task: SegmentationTask) -> dict[str, Any]:
    return {
        "identity": folder.identity,
        "name": cfg.name,
        "seed": cfg.seed,
        "fold": cfg.fold,
        "split_sha256": data.fold_assignment.sha256,
        "annotations_sha256": annotation_hashes(data.catalogue, data.scan, data.parts),
        "data": data.catalogue.name,
        "value_range": data.catalogue.value_range,
        "picture_bits": bits_of(data.scan, data.parts["train"]),
        **facts_of(data),
        "weights_used": cast(Any, task.network).encoder.weights_used,
        "encoder_family": family_of(cfg.encoder.name),
        "num_parameters": sum(p.numel() for p in task.network.parameters()),
        "choices": _choices(),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }


def _told_of(statistics: BandStatistics) -> str:
    """What is said of named channels at the beginning."""
    names, number = ", ".join(statistics.bands.names), len(statistics.mean)
    colour = "red, green and blue" if statistics.bands.colours else "none"
    return (
        f"{number} channels ({names}), normalised by the training part; the first layer's weights for three are "
        f"repeated and scaled by 3 / {number}; colour augmentation changes {colour}"
    )


def _choices() -> dict[str, Any]:
    """Group to the option, or options, that were chosen; the resolved config does not say their names."""
    if not HydraConfig.initialized():
        return {}
    chosen: Any = OmegaConf.to_container(HydraConfig.get().runtime.choices)
    return {group: option for group, option in chosen.items() if not group.startswith("hydra/")}
