"""A run of several processes: how the further ones come to repeat this very run."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from omegaconf import DictConfig

from hsl.errors import ConfigError

PATIENCE_S = 10.0
LAUNCH_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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


@contextmanager
def ending_together(trainer: lightning.Trainer) -> Iterator[None]:
    """End the further processes that Lightning started where this one ends early; alone they would wait for ever.

    They get some seconds for what they are at: one that is told to end by a signal of its own saves with the others.
    """
    try:
        yield
    except BaseException:
        launcher = trainer.strategy.launcher
        deadline = time.monotonic() + PATIENCE_S
        for process in launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else ():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        raise


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
