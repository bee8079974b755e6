"""What every training begins with, and how the further processes of a run come to repeat this very run."""

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.fabric.utilities.distributed import _init_dist_connection
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from omegaconf import DictConfig

from hsl.callbacks.object_scores import ObjectScores
from hsl.callbacks.rollback_gate import RollbackGate
from hsl.data.datamodule import DataModule
from hsl.errors import ConfigError
from hsl.run_folder.checkpoint import AtomicCheckpointIO
from hsl.run_folder.claim import CHILD_VARIABLE, RunFolder
from hsl.signals import Interrupted
from hsl.tasks.segmentation import SegmentationTask
from hsl.tasks.sharding import FullyShardedStrategy
from hsl.verbs.train.earlier_runs import check_first_weights
from hsl.verbs.train.preview import check_batch_norm, check_batches, check_monitored, check_parts

_HINTS = get_type_hints(lightning.Trainer.__init__)
PATIENCE_S = 10.0
LAUNCH_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def make_repeatable(seed: int) -> None:
    """Seed every generator; ``trainer.deterministic`` chooses the kernels."""
    lightning.seed_everything(seed, workers=True, verbose=False)
    # with deterministic kernels torch also fills every new tensor with NaN, to show reads of memory that nothing has
    # written: a few percent of a step's time, for a fault that our operations do not have
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of theirs


def make_trainer(precision: Any = "auto", accelerator: Any = "auto", **settings: Any) -> lightning.Trainer:
    """A trainer of Lightning, whose ``precision`` may be ``auto``.

    Args:
        precision: ``auto`` is mixed precision on a GPU, in bf16 where it has that and in fp16 with a gradient scaler
            else, and 32 bits on anything else. Others are those of Lightning.
        accelerator: as Lightning takes it.
        settings: all else that Lightning's trainer takes.
    """
    if precision == "auto":
        gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        mixed = "bf16-mixed" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
        precision = mixed if gpu else "32-true"
    return lightning.Trainer(precision=precision, accelerator=accelerator, **settings)


# a wrong key or type is then found before anything is built, as with Lightning's own
make_trainer.__signature__ = inspect.signature(lightning.Trainer)  # type: ignore[attr-defined]

make_trainer.__annotations__ = {**_HINTS, "precision": Literal["auto"] | _HINTS["precision"]}


def make_callbacks(cfg: DictConfig) -> dict[str, Any]:
    """The callbacks of a config by name; those that are null are left out."""
    return {name: instantiate(node) for name, node in cfg.callbacks.items() if node is not None}


def trainer_of(cfg: DictConfig, **given: Any) -> lightning.Trainer:
    """The trainer of a config, with what exists only now.

    Raises:
        ConfigError: this machine cannot give what it asks for, or it does not take a value.
    """
    try:
        trainer: lightning.Trainer = instantiate(cfg.trainer)(**given)
    except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
        raise ConfigError(
            f"`trainer` should be one that this machine has. Found `trainer.accelerator = {cfg.trainer.accelerator}`, "
            f"`trainer.devices = {cfg.trainer.get('devices')}`: {error} Choose `trainer=default` or other values."
        ) from error
    return trainer


def check_training(cfg: DictConfig, data: DataModule, task: SegmentationTask) -> None:
    """Build what the training will build and let it go again: what is wrong shows before there is a run folder.

    Args:
        cfg: of the run, or of a phase.
        data: prepared.
        task: built with ``cfg``; what is frozen is in evaluation mode.

    Raises:
        ConfigError: this machine cannot give what ``trainer`` asks for, optimizer or scheduler refuse a value, a
            rollback gate could restore weights that learned from pictures that are held out, the encoder takes one
            size only and pictures are to be evaluated at their own, objects are to be measured in overlapping
            channels, or see `hsl.verbs.train.preview`.
        DataError: nothing can be learned from a part of the split, or scored on it.
    """
    encoder = cast(Any, task.network).encoder
    window = cfg.inference.get("predictor", cfg.inference).get("window")
    if encoder.fixed_size and cfg.data.evaluation_size == "source" and window != encoder.stride:
        raise ConfigError(
            f"`inference.window` should be {encoder.stride}, the one size that `{encoder.name}` was built for, where "
            f"`data.evaluation_size=source`. Found `inference.window = {window}`. Set `inference=sliding_window "
            f"inference.window={encoder.stride}`, or `data.evaluation_size=image_size`."
        )
    callbacks = make_callbacks(cfg)
    measuring = [f"callbacks.{name}=null" for name, one in callbacks.items() if isinstance(one, ObjectScores)]
    if task.problem.channels and (cfg.metrics.pool is not None or measuring):
        raise ConfigError(
            "`metrics` should be none for overlapping channels: contours and objects are measured in masks with one "
            f"class per pixel. Set `{' '.join(['metrics=none', *measuring])}`."
        )
    for gate in callbacks.values():
        if isinstance(gate, RollbackGate) and gate.baseline is not None and gate.baseline.folder is not None:
            check_first_weights(str(gate.baseline.folder), data.prepared, "rollback_gate.baseline")  # may be restored
    trainer = trainer_of(cfg, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    _check_strategy(cfg, trainer)
    task.scheduler(task.optimizer(task), total_steps=cfg.trainer.max_epochs, steps_per_epoch=1)
    check_parts(data.prepared, task)
    check_monitored(cfg, data.prepared, task, list(callbacks.values()))
    check_batches(cfg, data)
    check_batch_norm(cfg, data, task.network, trainer.world_size, callbacks)


def _check_strategy(cfg: DictConfig, trainer: lightning.Trainer) -> None:
    launcher = trainer.strategy.launcher
    kinds = SingleDeviceStrategy | DDPStrategy | FullyShardedStrategy
    if not isinstance(trainer.strategy, kinds) or isinstance(launcher, _MultiProcessingLauncher):
        raise ConfigError(
            "`trainer.strategy` should be auto, ddp or that of `trainer=fsdp`: each process is a command of its own. "
            f"Found `trainer.strategy = {cfg.trainer.strategy}`. Choose `trainer=ddp`."
        )
    if not isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO):
        raise ConfigError(
            "`trainer.plugins` should keep `hsl.run_folder.checkpoint.AtomicCheckpointIO`, which never leaves "
            f"half a checkpoint. Found `trainer.plugins = {cfg.trainer.plugins}`. Add yours beside it."
        )


@contextmanager
def own_command() -> Iterator[None]:
    """Let ``sys.argv`` say this one run while it lasts.

    Lightning starts the further processes by repeating ``sys.argv``: in a sweep that is the whole sweep, and
    behind the console script the verb is gone from it. Afterwards the variables that Lightning leaves behind
    are taken away; with them, the next run of a sweep would wait for processes that nobody starts.
    """
    argv, variables = sys.argv, {name: os.environ.get(name) for name in LAUNCH_VARIABLES}
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        program = argv[0] if _is_program() else "hsl"
        verb = [] if Path(program).suffix == ".py" else [str(hydra.job.config_name)]
        sys.argv = [program, *verb, *hydra.overrides.task]
    try:
        yield
    finally:
        sys.argv = argv
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def is_further_process(trainer: DictConfig) -> bool:
    """Whether srun or torchrun started this process beside the one that owns the run folder."""
    alone = trainer.get("devices", 1) == 1 and trainer.get("num_nodes", 1) == 1
    return not alone and (_get_rank() or 0) > 0


def share_folder(folder: RunFolder, cfg: DictConfig) -> None:
    """Tell the processes that srun or torchrun started which folder the first one claimed, and where it goes on.

    Those that Lightning starts are told by a variable, see `hsl.run_folder.claim`. The connection is the one that the
    training uses.
    """
    if os.environ.get(CHILD_VARIABLE) and not folder.claimed:
        return
    strategy: Any = trainer_of(cfg, logger=False, enable_checkpointing=False, enable_progress_bar=False).strategy
    launcher = strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher) or launcher.num_processes * launcher.num_nodes == 1:
        return
    environment = launcher.cluster_environment
    if environment.creates_processes_externally:
        environment.validate_settings(num_devices=launcher.num_processes, num_nodes=launcher.num_nodes)
        strategy.set_world_ranks()
        if strategy.root_device.type == "cuda":
            torch.cuda.set_device(strategy.root_device)
        _init_dist_connection(environment, strategy._get_process_group_backend())
        folder.path, folder.checkpoint = strategy.broadcast((folder.path, folder.checkpoint))


@contextmanager
def ending_together(trainer: lightning.Trainer) -> Iterator[None]:
    """What several processes do together, as long as it lasts; afterwards each is by itself.

    Where the first one ends early it ends those that Lightning started; alone they would wait for ever. They get some
    seconds for what they are at: one that is told to end by a signal of its own saves with the others. How the run
    ended is told by the first process, so the others end without a word where they are interrupted.
    """
    try:
        yield
    except BaseException as error:
        if not trainer.is_global_zero and isinstance(error, Interrupted):
            return
        launcher = trainer.strategy.launcher
        deadline = time.monotonic() + PATIENCE_S
        for process in launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else ():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        raise
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_launch(trainer: lightning.Trainer) -> None:
    """Refuse to start processes from one that its command line cannot repeat.

    Raises:
        ConfigError: several devices in a local job of submitit, which runs a pickle.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher) or launcher.num_processes == 1 or _is_program():
        return
    if launcher.cluster_environment.creates_processes_externally:
        return
    raise ConfigError(
        "`trainer.devices` should be 1 in a job of `hydra/launcher=local`. "
        f"Found `trainer.devices = {launcher.num_processes}`. Leave the launcher away; on SLURM use "
        "`slurm/array.sbatch`, or `hydra.launcher.tasks_per_node` as large as `trainer.devices`."
    )


def _is_program() -> bool:
    """Whether a script was started, rather than ``python -m``, which is how submitit starts its jobs."""
    return sys.modules["__main__"].__spec__ is None
