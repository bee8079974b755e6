"""The launcher behind ``hydra/launcher=ray``. Hydra takes launchers from this package only, imported at every start."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RayLauncher(Launcher):
    """Hands the runs of a sweep to `hsl.verbs.on_ray.sweep`.

    Args:
        settings: see `hsl.verbs.on_ray.cluster.Settings`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.given = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from hsl.verbs.on_ray.sweep import run_sweep

        return run_sweep(self.settings, *self.given, job_overrides, initial_job_idx)
