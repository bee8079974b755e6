"""From runs to models: which runs belong together, what is missing, and their scores over folds."""

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsl.files.split_file import Split
from hsl.reports.naming import comparable, differences, labels, unlike_predictors
from hsl.reports.scores import Counts, Scores, total_counts
from hsl.reports.statistics.paired_tests import Summary, harmonic_mean, mean_std
from hsl.run_folder.run import Run, ScoredOn, reverted_mark
from hsl.run_folder.stored_counts import ObjectRow

Read = TypeVar("Read")


@dataclass(frozen=True)
class Model:
    """Runs whose configs agree in everything but fold and seed, and that started from the same weights.

    ``finished`` maps (fold, seed) to the newest finished run; ``missing`` maps a fold without one to the
    reason; ``refused`` says why no average over the folds is allowed (empty: it is). ``of_images``: see `on_images`.
    """

    label: str
    initialisation: str
    runs: Sequence[Run]
    finished: Mapping[tuple[int, int], Run]
    missing: Mapping[int, str]
    refused: str = ""
    differences: Mapping[str, str] = field(default_factory=dict)
    of_images: bool = False

    @property
    def pretrained(self) -> bool:
        return self.initialisation not in ("random", "unknown")

    @property
    def folds(self) -> list[int]:
        """Numbers of the finished folds."""
        return sorted({fold for fold, _ in self.finished})

    @property
    def num_folds(self) -> int:
        """How many folds the split has."""
        return len(set(self.folds) | set(self.missing))

    @property
    def split(self) -> Split | None:
        return next((run.split for run in self.finished.values() if run.split), None)

    @property
    def classes(self) -> list[str]:
        return next((run.classes for run in self.finished.values() if run.classes), [])

    @property
    def several(self) -> bool:
        """Whether the image head may find several classes in a picture."""
        return self.of_images and any(run.several for run in self.finished.values())

    @property
    def tasks(self) -> list[str]:
        """The tasks that every finished run has scores for; empty for a network of one head that no task reads."""
        runs = list(self.finished.values())
        return [task for task in runs[0].tasks if all(task in run.tasks for run in runs)] if runs else []

    @property
    def primary(self) -> list[str]:
        """The tasks that the loss, or else the task of a flat model, calls primary; all where neither does."""
        config = next((run.config for run in self.finished.values()), {})
        nodes = [node for node in (config.get("loss"), config.get("task")) if isinstance(node, Mapping)]
        chosen = next((node["primary"] for node in nodes if "primary" in node), "all")
        return [task for task in self.tasks if chosen == "all" or task in chosen]

    def on_task(self, task: str) -> "Model":
        """The model as if this task of `tasks` were all it was scored on."""
        return replace(self, finished={key: run.on_task(task) for key, run in self.finished.items()})

    def on_images(self) -> "Model":
        """The model as if its image head were all it was scored on; without `classes` where it has none."""
        finished = {key: run.on_image_head() for key, run in self.finished.items()}
        return replace(self, finished=finished, of_images=True)

    def h_mean(self, on: ScoredOn, tasks: Sequence[str] | None = None) -> Summary:
        """Harmonic mean of the mIoU of `tasks`, else the primary ones, of each run, over folds; NaN without one."""
        chosen = [task for task in self.tasks if task in tasks] if tasks is not None else self.primary

        def of_run(run: Run) -> float | None:
            found = [Scores.of_run(run.on_task(task), on) for task in chosen]
            known = [scores.overall["miou"] for scores in found if scores]
            return harmonic_mean(known) if known and len(known) == len(found) else None

        folds = {} if self.refused else self.per_fold(of_run)
        return mean_std([mean_std(seeds).mean for seeds in folds.values()])

    def seeds(self, fold: int) -> list[Run]:
        """The finished runs of a fold, by seed."""
        return [run for (number, _), run in sorted(self.finished.items()) if number == fold]

    def confusions(self, on: ScoredOn) -> dict[int, list[NDArray[np.int64]]]:
        """Fold to one matrix per seed; a fold not scored by every seed is left out."""
        return self.per_fold(lambda run: run.confusion(on))

    def scores(self, on: ScoredOn) -> dict[int, list[Scores]]:
        """Fold to one set of scores per seed; a fold not scored by every seed is left out."""
        return self.per_fold(lambda run: Scores.of_run(run, on))

    def seed_scores(self, name: str, on: ScoredOn) -> dict[int, list[float]]:
        """Fold to an overall score of each seed."""
        return {fold: [one.overall[name] for one in seeds] for fold, seeds in self.scores(on).items()}

    def overall(self, name: str, on: ScoredOn) -> dict[int, float]:
        """Fold to an overall score; several seeds are averaged within their fold first."""
        return {fold: mean_std(seeds).mean for fold, seeds in self.seed_scores(name, on).items()}

    def summary(self, name: str, on: ScoredOn) -> Summary:
        """An overall score over folds; all NaN when averaging is refused."""
        if self.refused:
            return Summary(math.nan, math.nan, 0)
        return mean_std(list(self.overall(name, on).values()))

    def class_summaries(self, name: str, on: ScoredOn) -> list[Summary]:
        """A score of each class over the folds that score it; several seeds are averaged first."""
        if self.refused:
            return [Summary(math.nan, math.nan, 0) for _ in self.classes]
        folds = [[one.per_class[name] for one in seeds] for seeds in self.scores(on).values()]
        return [
            mean_std([mean_std([float(seed[i]) for seed in fold]).mean for fold in folds])
            for i in range(len(self.classes))
        ]

    def pooled_confusion(self, on: ScoredOn) -> NDArray[np.int64] | None:
        """Sum of the folds' matrices, none without any or when refused; see `pooled_over`."""
        return None if self.refused else pooled_over(self.confusions(on))

    def counts(self, on: ScoredOn) -> Counts | None:
        """Sum of the folds' counts, none without any, where some are missing, or when refused; see `pooled_over`."""
        found = self.per_fold(lambda run: total_counts(run, on))
        complete = found.keys() == self.scores(on).keys()
        return pooled_over(found) if complete and not self.refused else None

    def pooled(self, on: ScoredOn) -> Scores | None:
        """Scores of the pooled counts; with ``val``, the out-of-fold scores."""
        if counts := self.counts(on):
            return Scores.of_counts(counts)
        matrix = self.pooled_confusion(on)
        return None if matrix is None or self.of_images else Scores.of(matrix)

    def objects(self, on: ScoredOn) -> list[ObjectRow]:
        """The rows of the metric pool over folds and seeds, none when refused.

        A fold that some seed has no rows for is left out. The rows of a fold with fewer seeds stand there more
        often, so that each picture weighs the same.
        """
        folds = self.per_fold(lambda run: run.objects(on) or None)
        if self.refused or not folds:
            return []
        factors = _factors(folds)
        return [row for fold, seeds in folds.items() for rows in seeds for row in list(rows) * factors[fold]]

    def per_fold(self, read: Callable[[Run], Read | None]) -> dict[int, list[Read]]:
        """Fold to what is read of each seed; a fold of which some seed has nothing is left out."""
        found = {fold: [read(run) for run in self.seeds(fold)] for fold in self.folds}
        return {
            fold: [value for value in values if value is not None]
            for fold, values in found.items()
            if all(value is not None for value in values)
        }


def pooled_over(folds: Mapping[int, Sequence[Any]]) -> Any:
    """Sum over folds and their seeds, none without a fold.

    Folds with fewer seeds count for more per seed, so that each picture weighs the same. Scores are shares, so
    a common factor changes none.
    """
    factors = _factors(folds)
    summands = [value * factors[fold] for fold, seeds in folds.items() for value in seeds]
    return reduce(operator.add, summands) if summands else None


def _factors(folds: Mapping[int, Sequence[Any]]) -> dict[int, int]:
    common = math.lcm(*(len(seeds) for seeds in folds.values()))
    return {fold: common // len(seeds) for fold, seeds in folds.items()}


def models_of(runs: Sequence[Run], ignore: Sequence[str], name_key: str) -> list[Model]:
    """Group runs into models and name them.

    Args:
        runs: those whose config could not be read are passed over.
        ignore: patterns of config keys in which runs of one model may differ.
        name_key: the key of the encoder's name.
    """
    flat = {run.folder: comparable(run.config, run.fold, ignore) for run in runs if run.config}
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted((r for r in runs if r.config), key=lambda r: r.initialisation == "unknown"):
        config = repr(sorted(flat[run.folder].items()))
        known = [initialisation for other, initialisation in groups if other == config]
        # a run that ended before it loaded weights belongs to the runs of its config
        chosen = known[0] if run.initialisation == "unknown" and known else run.initialisation
        groups.setdefault((config, chosen), []).append(run)
    # models with results come first: what never finished should not lengthen the names of what did
    in_order = sorted(groups.items(), key=lambda item: all(run.status != "finished" for run in item[1]))
    num_ready = sum(any(run.status == "finished" for run in members) for _, members in in_order)
    configs = [flat[members[0].folder] for _, members in in_order]
    starts = [{**c, "initialisation": json.dumps(k[1])} for c, (k, _) in zip(configs, in_order, strict=True)]
    twins = len({config for config, _ in groups}) < len(groups)  # only their weights tell some models apart
    named = starts if twins else configs
    names = labels(named[:num_ready], name_key)
    names += [f"{name} (none finished)" for name in labels(named[num_ready:], name_key)]
    found = differences(starts[:num_ready], name_key) + [{}] * (len(starts) - num_ready)
    return [
        _model(name, key[1], members, unlike, _siblings(groups, *key))
        for name, (key, members), unlike in zip(names, in_order, found, strict=True)
    ]


def _siblings(groups: Mapping[tuple[str, str], Sequence[Run]], config: str, initialisation: str) -> list[Run]:
    """Runs of the same config that started from other weights."""
    return [run for (other, kind), runs in groups.items() if other == config and kind != initialisation for run in runs]


def _model(
    label: str, initialisation: str, runs: Sequence[Run], found: Mapping[str, str], siblings: Sequence[Run]
) -> Model:
    finished: dict[tuple[int, int], Run] = {}
    for run in sorted(runs, key=_age):
        if run.status == "finished":
            finished[run.fold, run.seed] = run  # the newest stays
    numbers = {run.fold for run in runs}
    for run in runs:
        numbers |= set(range(len(run.split.folds))) if run.split else set()
    done = {fold for fold, _ in finished}
    missing = {fold: _reason(fold, runs, siblings) for fold in sorted(numbers - done)}
    label += reverted_mark(list(finished.values()))
    return Model(label, initialisation, runs, finished, missing, _refusal(list(finished.values())), found)


def _age(run: Run) -> tuple[str, str]:
    return str(run.provenance.get("started", "")), str(run.folder)


def _reason(fold: int, runs: Sequence[Run], siblings: Sequence[Run]) -> str:
    tried = sorted((run for run in runs if run.fold == fold), key=_age)
    if tried:
        return f"{tried[-1].status}: {tried[-1].reason.rstrip('.')}"
    if other := next((run for run in siblings if run.fold == fold), None):
        return f"only a run that started from other weights ({other.initialisation})"
    return "no run folder"


def _refusal(runs: Sequence[Run]) -> str:
    """Why these runs must not be averaged; empty when they may."""
    if len({repr((run.metrics.classes, run.metrics.image_classes)) for run in runs if run.metrics}) > 1:
        return "its runs have unlike classes"
    hashes = sorted({str(run.provenance.get("split_sha256", "?"))[:12] for run in runs})
    if len(hashes) > 1:
        return f"its runs saw unlike data (split hashes {', '.join(hashes)})"
    if unlike := unlike_predictors([run.config for run in runs]):
        return f"its runs were scored as `{unlike}` by unlike predictors"
    if len({run.split.assignment for run in runs if run.split}) > 1:
        return "its runs have unlike fold assignments of the same data, so their validation parts overlap"
    return ""
