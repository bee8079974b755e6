"""What is said of two models: one sentence on these pictures, another on a new training; never one for both."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsl.files.split_file import Split
from hsl.reports.statistics.contrasts import LEAST, TINY
from hsl.reports.statistics.paired_tests import corrected_resampled_t
from hsl.reports.statistics.power import trainings_needed
from hsl.reports.statistics.resampling import LEVEL, Estimate

LEAST_TRAININGS = 3
NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class Trainings:
    """A score of one model minus that of another over paired trainings.

    ``num``: trainings of each; ``mean``: of the differences; ``p``: corrected resampled t-test, NaN below
    ``LEAST_TRAININGS`` and where all differences are equal; ``by_fold``: whether a training is a fold, else a seed;
    ``needed``: how many would show a difference of this size in 80 % of studies, none where not even ``MOST_TRAININGS``
    would.
    """

    num: int = 0
    mean: float = math.nan
    p: float = math.nan
    by_fold: bool = True
    needed: int | None = None


@dataclass(frozen=True)
class Verdict:
    """``winner`` is the label of the better model, empty where none is shown; ``training`` is empty without one."""

    pictures: str
    training: str = ""
    winner: str = ""

    @property
    def text(self) -> str:
        """Both sentences."""
        joint = ", and " if self.training.startswith("a new training") else "; "
        return f"{self.pictures}{joint}{self.training}" if self.training else self.pictures


def trainings_of(
    ours: Mapping[int, Sequence[float]], theirs: Mapping[int, Sequence[float]], test_share: float, part: str = "val"
) -> Trainings:
    """Pair the trainings of two models: by fold, seeds averaged, else by the order of the seeds in each fold.

    With three folds or more the folds are the trainings; with fewer, every seed of every fold is one; of a model with
    more seeds than the other some are averaged.

    Args:
        ours: fold to the score of each seed, of the folds that both have.
        theirs: of the other model.
        test_share: pictures scored over pictures trained on, above 0.
        part: val or test; the more folds, the smaller the share of a validation part.

    >>> trainings_of({0: [0.5, 0.7]}, {0: [0.4]}, 0.5)
    Trainings(num=1, mean=0.19999999999999996, p=nan, by_fold=False, needed=None)
    """
    folds = sorted(ours.keys() & theirs.keys())
    by_fold = len(folds) >= LEAST_TRAININGS
    if by_fold:
        values = [float(np.mean(ours[fold]) - np.mean(theirs[fold])) for fold in folds]
    else:
        num = min((len(seeds[fold]) for seeds in (ours, theirs) for fold in folds), default=0)
        pairs = [
            pair for fold in folds for pair in zip(_spread(ours[fold], num), _spread(theirs[fold], num), strict=True)
        ]
        values = [a - b for a, b in pairs]
    if not values or not np.isfinite(values).all():
        return Trainings()
    num, mean = len(values), float(np.mean(values))
    if num < LEAST_TRAININGS or not test_share > 0 or not np.ptp(values) > TINY * np.abs(values).max():
        return Trainings(num, mean, by_fold=by_fold)
    p = corrected_resampled_t(values, test_share)[1]
    smaller = by_fold and part == "val"
    needed = trainings_needed(
        abs(mean),
        float(np.std(values, ddof=1)),
        lambda k: test_share * (num - 1) / (k - 1) if smaller else test_share,
        LEAST_TRAININGS,
    )
    return Trainings(num, mean, p, by_fold, needed)


def _spread(scores: Sequence[float], num: int) -> list[float]:
    """``num`` means of the scores, each of which is in one of them."""
    return [float(np.mean(part)) for part in np.array_split(np.asarray(scores, dtype=float), num)]


def share_scored(split: Split | None, folds: Sequence[int], part: str) -> float:
    """Pictures of a part over those trained on, the mean over folds; 0 where it is not known."""
    if split is None or not folds:
        return 0.0
    sizes = [(len(split.test if part == "test" else split.folds[fold].val), split.folds[fold].train) for fold in folds]
    return float(np.mean([size / max(1, len(train)) for size, train in sizes]))


def verdict(
    names: tuple[str, str],
    score: Estimate,
    trainings: Trainings,
    higher_is_better: bool,
    beside: Mapping[str, Estimate],
) -> Verdict:
    """Name the better of two models, or say why none is.

    Args:
        names: of the models.
        score: of the first minus that of the second, judged with all pairs of its table.
        trainings: the same over trainings.
        higher_is_better: what a larger score means.
        beside: differences in other scores of the same sense; one that clearly points the other way forbids a verdict.
    """
    if score.num_units < LEAST:
        return Verdict(f"too few independent groups to say ({score.num_units}; at least {LEAST})")
    if score.interval is None:
        same = (
            "alike in every group" if score.mean == 0 else "every group moves the score alike, which hides the spread"
        )
        one = "one group alone shows what is scored, so nothing is known of the spread"
        return Verdict(f"{NO_DIFFERENCE}: {one if score.rests_on_one else same}")
    if not score.is_shown:
        return Verdict(NO_DIFFERENCE)
    against = [name for name, each in beside.items() if each.is_clear and (each.mean > 0) != (score.mean > 0)]
    if against:
        return Verdict(f"{NO_DIFFERENCE}: the {against[0]} says the reverse")
    winner = names[0] if (score.mean > 0) == higher_is_better else names[1]
    return Verdict(f"{winner} is better on these pictures", _of_training(trainings, score.mean), winner)


def _of_training(trainings: Trainings, difference: float) -> str:
    if trainings.num < 2:
        return "nothing is known of the spread of training"
    if trainings.num < LEAST_TRAININGS:
        return f"{trainings.num} trainings each say too little of the spread of training (at least {LEAST_TRAININGS})"
    if math.isnan(trainings.p):
        return "nothing is known of the spread of training: every training shows the same difference"
    if (trainings.mean > 0) != (difference > 0):
        return f"another training may undo this: over trainings the other is ahead ({p_text(trainings.p)})"
    if trainings.p < LEVEL:
        return f"a new training would likely show it too ({p_text(trainings.p)})"
    return f"another training may undo this ({p_text(trainings.p)})"


def p_text(p: float) -> str:
    """A p value in a sentence.

    >>> p_text(0.2149), p_text(0.0312), p_text(0.0496), p_text(0.00003)
    ('p = 0.21', 'p = 0.0312', 'p = 0.0496', 'p < 0.001')
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.3g}"
