"""How much each dimension mattered, with the spread of that number itself."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from hsl.verbs.study.pages.showing import best_first
from hsl.verbs.study.stored_study import StoredStudy

LEAST = 10  # complete trials, below which shares of variance are noise
RESAMPLES = 50


@dataclass(frozen=True)
class Importance:
    """Mean and standard deviation over bootstrap resamples of the trials, by dimension, and a sentence on it."""

    sentence: str
    means: Mapping[str, float] = field(default_factory=dict)
    deviations: Mapping[str, float] = field(default_factory=dict)


def importance_of(study: optuna.Study, stored: StoredStudy) -> Importance:
    """PED-ANOVA (Watanabe et al. 2023) of the first objective, over resamples of the complete trials."""
    complete = best_first(study, stored)
    always = [key for key in stored.space if all(key in trial.params for trial in complete)]
    if len(complete) < LEAST:
        return Importance(f"Not computed: {len(complete)} complete trials, at least {LEAST} are needed.")
    generator = np.random.default_rng(0)
    draws = [generator.integers(0, len(complete), len(complete)) for _ in range(RESAMPLES)]
    found = [_once([complete[i] for i in draw], always, study.directions[0]) for draw in draws]
    return Importance(
        "Share of the variation of the value near the best that each dimension explains, with its standard "
        f"deviation over {RESAMPLES} resamples of the trials. Dimensions that vary in some trials only are left out.",
        {key: statistics.fmean(one.get(key, 0.0) for one in found) for key in always},
        {key: statistics.stdev(one.get(key, 0.0) for one in found) for key in always},
    )


def _once(trials: list[FrozenTrial], keys: list[str], direction: optuna.study.StudyDirection) -> dict[str, float]:
    copy = optuna.create_study(direction=direction)
    for trial in trials:
        copy.add_trial(optuna.create_trial(
            params={key: trial.params[key] for key in keys},
            distributions={key: trial.distributions[key] for key in keys}, value=trial.values[0],
        ))  # fmt: skip
    return dict(get_param_importances(copy, evaluator=PedAnovaImportanceEvaluator(), params=keys))
