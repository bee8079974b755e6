"""The runs of a sweep on a Ray cluster, each once: what a machine that dies leaves goes on elsewhere."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hsl.errors import ConfigError, DataError
from hsl.signals import Interrupted, listener
from hsl.terminal import say
from hsl.verbs.code_version import code_version
from hsl.verbs.on_ray.cluster import Settings, connected, lacking, machines, read_settings
from hsl.verbs.on_ray.worker import PATIENCE_S, VARIABLES, Job, run

LOOK_S = 2.0
WAIT_S = 60.0
"""For which a sweep waits for a machine to come back when those that are left cannot do a run."""


@dataclass(frozen=True)
class Planned:
    """A run of the sweep: its number, its words, those that others have not, and how often it was begun."""

    number: int
    words: tuple[str, ...]
    own: tuple[str, ...]
    start: int = 1

    @property
    def name(self) -> str:
        """What is said of it."""
        return " ".join((f"#{self.number}", *self.own))


def run_sweep(
    given: Mapping[str, Any],
    hydra_context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    overrides: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """Do every run of a sweep.

    Args:
        given: the keys of the launcher.
        hydra_context: of the sweep.
        task: what a run calls with its config.
        config: of the sweep.
        overrides: the words of each run.
        first: number of the first run.

    Returns:
        How each ended, in their order. A run that failed has an error in the place of its value and does not keep the
        others from running.

    Raises:
        ConfigError: a setting breaks a rule, the cluster cannot be reached, or no machine of it has what a run takes.
    """
    setup_globals()
    settings = read_settings(given)
    runs = _plan(overrides, first)
    writer = _Writer(hydra_context, task, config, settings)
    begun = [writer.job(one) for one in runs]  # a word that no config has is told before anything is started
    with connected(settings) as ray:
        having = machines(ray)
        if found := lacking(settings, having):
            raise ConfigError(f"A machine of the cluster should have what one run takes. Found {found}. Ask for less, "
                              "or add a machine.")  # fmt: skip
        say(f"{len(runs)} runs on Ray, machines: {len(having)}; logs: {writer.logs}/NUMBER.log")
        sweep = _Sweep(ray, settings, writer)
        try:
            for one, job in zip(runs, begun, strict=True):
                sweep.start(one, job)
            sweep.wait()
        finally:
            sweep.end()
    return [sweep.done[one.number] for one in runs]


def _plan(overrides: Sequence[Sequence[str]], first: int) -> list[Planned]:
    shared = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()
    return [
        Planned(first + place, tuple(words), tuple(word for word in words if word not in shared))
        for place, words in enumerate(overrides)
    ]


@dataclass(frozen=True)
class _Writer:
    """Makes what travels of a run."""

    hydra_context: HydraContext
    task: TaskFunction
    config: DictConfig
    settings: Settings

    @property
    def logs(self) -> Path:
        return Path(str(self.config.hydra.sweep.dir))

    def log(self, planned: Planned) -> Path:
        return self.logs / f"{planned.number}.log"

    def job(self, planned: Planned) -> Job:
        from ray import cloudpickle

        words, again = list(planned.words), planned.start > 1
        if again and "resume" in self.config:
            words = [*(word for word in words if not word.startswith("resume=")), "resume=last"]
        config = self.hydra_context.config_loader.load_sweep_config(self.config, words)
        with open_dict(config):
            config.hydra.job.num = planned.number
            config.hydra.job.id = f"ray_{planned.number}"
        content = cloudpickle.dumps((self.hydra_context, config, self.task, Singleton.get_state()))
        return Job(
            content=content,
            program=sys.argv[0],
            folder=str(Path.cwd()),
            log=str(self.log(planned)),
            code=None if self.settings.other_code else code_version(),
            again=again,
            variables={name: value for name, value in os.environ.items() if name.startswith(VARIABLES)},
        )


@dataclass
class _Sweep:
    """The runs under way, and those that ended."""

    ray: Any
    settings: Settings
    writer: _Writer
    under_way: dict[Any, Planned] = field(default_factory=dict)
    done: dict[int, JobReturn] = field(default_factory=dict)

    def start(self, planned: Planned, job: Job) -> None:
        task = self.ray.remote(**self.settings.options)(run)
        self.under_way[task.remote(job)] = planned

    def wait(self) -> None:
        """Until every run ended.

        Raises:
            Interrupted: by a signal. Raised inside of Ray, it would become another exit code.
        """
        hearing, since = listener(), time.monotonic()
        hearing.patient = True
        while self.under_way:
            if hearing.number is not None:
                raise Interrupted(hearing.number)
            ready, _ = self.ray.wait(list(self.under_way), timeout=LOOK_S)
            for reference in ready:
                self._receive(reference)
            if ready or not (found := lacking(self.settings, machines(self.ray))):
                since = time.monotonic()
            elif time.monotonic() - since > WAIT_S:
                self._give_up(found)

    def end(self) -> None:
        """Ask what is under way to end, and let it save what it has."""
        for reference in self.under_way:
            self.ray.cancel(reference)
        if self.under_way:
            say(f"{len(self.under_way)} runs save what they have; `resume=last` goes on with them", error=True)
            self.ray.wait(list(self.under_way), num_returns=len(self.under_way), timeout=PATIENCE_S)

    def _receive(self, reference: Any) -> None:
        planned = self.under_way.pop(reference)
        known = self.ray.exceptions
        lost = (known.WorkerCrashedError, known.NodeDiedError, known.LocalRayletDiedError, known.ObjectLostError)
        try:
            value = self.ray.get(reference)
        except known.RayTaskError as error:
            self._fail(planned, _told(error))
        except lost:
            if planned.start < self.settings.max_starts:
                again = replace(planned, start=planned.start + 1)
                say(f"{planned.name}: its machine or Ray worker died; it goes on elsewhere", error=True)
                self.start(again, self.writer.job(again))
            else:
                log = self.writer.log(planned)
                self._fail(planned, f"its machine or Ray worker died {planned.start} times; see {log}")
        except known.RayError as error:
            self._fail(planned, f"{type(error).__name__}, {' '.join(str(error).split())[:300]}")
        else:
            say(f"{planned.name}: {'done' if value is None else f'{value:.4f}'}")
            self._end(planned, JobStatus.COMPLETED, value)

    def _fail(self, planned: Planned, sentence: str) -> None:
        say(f"{planned.name}: error: {sentence}", error=True)
        self._end(planned, JobStatus.FAILED, DataError(sentence))

    def _end(self, planned: Planned, status: JobStatus, value: Any) -> None:
        done = JobReturn(overrides=list(planned.words), status=status)
        done.return_value = value
        self.done[planned.number] = done

    def _give_up(self, found: str) -> None:
        """The machines that are left cannot do what is left."""
        for reference, planned in list(self.under_way.items()):
            self.ray.cancel(reference)
            del self.under_way[reference]
            self._fail(
                planned,
                f"A machine of the cluster should have what one run takes. Found {found}, since another died. Start "
                "the same command again when there is one, with `resume=last`.",
            )


def _told(error: Any) -> str:
    """What a machine said of a run that did not come to its end there."""
    cause = error.cause
    if isinstance(cause, DataError):
        return str(cause)
    last = str(error).strip().splitlines()[-1]
    return f"Every machine should have hsl and its packages in the Python that runs Ray. Found: {last[:300]}"
