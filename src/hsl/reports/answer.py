"""The answer of a report in two to four sentences: what page, terminal and `cv_results.json` open with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hsl.reports.comparisons import Comparison
from hsl.reports.contrasts import LEAST
from hsl.reports.pixel_counts import LOWER_IS_BETTER
from hsl.reports.resampling import Estimate
from hsl.reports.statistics import Interval
from hsl.reports.titles import KINDS, name_of
from hsl.reports.verdicts import LEAST_TRAININGS

NAMED = 4  # models that a sentence lists; of more it says how many


@dataclass(frozen=True)
class Standing:
    """What an answer is made from.

    ``models``: labels of those with finished runs, best first; ``estimates``: label to the pooled score; ``warnings``:
    what changes the reading, a few words each; ``of``: image heads, where they are meant.
    """

    data: str
    metric: str
    models: Sequence[str]
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    warnings: Sequence[str] = ()
    of: str = ""


def answer(standing: Standing) -> list[str]:
    """Two to four sentences: the best, what is not known of it, what would settle it, and what to mind."""
    told = [f"Read this with care: {'; '.join(standing.warnings)}."] if standing.warnings else []
    models, where = standing.models, f"on {standing.data}"
    if not models:
        return [f"No model has finished runs {where}.", "There is nothing to compare yet.", *told]
    if len(models) == 1:
        only = f"{models[0]} is the only model with finished runs {where}: {_score(standing, models[0])}."
        return [only, "There is nothing to compare it with.", *told]
    paired = [one for one in standing.comparisons if one.score is not None and not one.refused]
    if not paired:
        reason = next((one.verdict.pictures for one in standing.comparisons), "nothing was scored")
        return [f"The {len(models)} models cannot be compared {where}: {reason}.", _highest(standing), *told]
    most = max(one.score.num_units for one in paired if one.score)
    if most < LEAST:
        few = f"Nothing can be said between the {len(models)} models {where}: {paired[0].verdict.pictures}."
        return [few, _highest(standing), _wanted(most), *told]
    beaten = {_loser(one) for one in paired if one.verdict.winner}
    unbeaten = [label for label in models if label not in beaten] or list(models)
    body = _one_best(standing, unbeaten[0], paired) if len(unbeaten) == 1 else _several(standing, unbeaten, paired)
    return [*body, *told]


def _one_best(standing: Standing, best: str, paired: Sequence[Comparison]) -> list[str]:
    """The closest of those that it is better than stands for all."""
    won = [one for one in paired if one.verdict.winner == best]
    closest = min(won, key=lambda one: abs(one.score.mean) if one.score else 0.0)
    rival, num = _loser(closest), len(standing.models)
    every = len(won) == num - 1
    title = f"the best of {num} models" if every and num > 2 else f"better than {_listed([_loser(one) for one in won])}"
    lead = f"{_ahead(closest)} better than {rival}, the closest," if len(won) > 1 else f"{_ahead(closest)} better,"
    score = _score(standing, best)
    first = f"{best} is {title} on these pictures of {standing.data}: {score}, {lead} over {_units(closest)}"
    others = [label for label in standing.models if label != best and label not in {_loser(one) for one in won}]
    unclear = "" if every else f"; {_listed(others)} cannot be told apart from it"
    training = closest.verdict.training
    sentences = [f"{first}{unclear}.", f"{training[0].upper()}{training[1:]}."]
    if closest.trainings.num < LEAST_TRAININGS:
        sentences.append(f"{LEAST_TRAININGS} trainings of each, over folds or seeds, would tell.")
    return sentences


def _several(standing: Standing, unbeaten: Sequence[str], paired: Sequence[Comparison]) -> list[str]:
    first = next((one for one in paired if {one.first, one.second} <= set(unbeaten)), paired[0])
    worse = [label for label in standing.models if label not in unbeaten]
    ahead = first.first if _is_ahead(first) else first.second
    best = (
        f"{_listed(unbeaten)} cannot be told apart {'as the best ' if worse else ''}on these pictures of "
        f"{standing.data}: {_score(standing, ahead)} for {ahead}, {_ahead(first)} ahead of "
        f"{first.second if ahead == first.first else first.first} over {_units(first)}."
    )
    sentences = [best]
    if worse:
        sentences.append(f"{_listed(worse)} {'is' if len(worse) == 1 else 'are'} worse than one of them at least.")
    return [*sentences, _settled(first)]


def _settled(pair: Comparison) -> str:
    score = pair.score
    if score is None or score.interval is None:
        return "What would settle it is not known: too few groups tell the two apart at all."
    shows = f"{score.num_units} groups show differences from {_size(score.smallest, pair.metric)} on"
    if score.needed is None:
        return f"So many groups do not settle it: {shows}, and no number that can be had would show one so small."
    if score.needed <= score.num_units:
        return f"More groups would settle it: {shows} in four of five studies."
    return f"About {score.needed} groups would settle a difference of this size; {shows}."


def _wanted(num: int) -> str:
    groups = f"{LEAST} independent groups ({num} here)"
    return f"At least {groups} and {LEAST_TRAININGS} trainings of each would be a beginning."


def _highest(standing: Standing) -> str:
    first = standing.models[0]
    return f"{first} comes first with {_score(standing, first)}, which is no verdict."


def _score(standing: Standing, label: str) -> str:
    found = standing.estimates.get(label)
    name = f"pooled {name_of(standing.metric)}{f' of {standing.of}' if standing.of else ''}"
    if found is None:
        return f"its {name} is not known"
    unit = " %" if KINDS[standing.metric] == "share" else ""
    interval = "" if found.interval is None else f" {_ends(found.interval, standing.metric)}"
    return f"{name} {_number(found.mean, standing.metric)}{unit}{interval}"


def _ahead(pair: Comparison) -> str:
    """The difference without its sign, and its adjusted interval turned alike."""
    score = pair.score
    if score is None:
        return ""
    sign, reach = (1 if score.mean >= 0 else -1), score.adjusted or score.interval
    told = _size(abs(score.mean), pair.metric)
    if reach is None:
        return told
    low, high = sorted((sign * reach.low, sign * reach.high))
    return f"{told} {_ends(Interval(abs(score.mean), low, high), pair.metric)}"


def _is_ahead(pair: Comparison) -> bool:
    return pair.score is None or (pair.score.mean >= 0) != (pair.metric in LOWER_IS_BETTER)


def _loser(pair: Comparison) -> str:
    return pair.second if pair.verdict.winner == pair.first else pair.first


def _units(pair: Comparison) -> str:
    return f"{pair.score.num_units if pair.score else 0} groups"


def _number(value: float, metric: str) -> str:
    return f"{100 * value:.1f}" if KINDS[metric] == "share" else f"{value:.4f}"


def _size(value: float, metric: str) -> str:
    return f"{_number(value, metric)}{' points' if KINDS[metric] == 'share' else ''}"


def _ends(interval: Interval, metric: str) -> str:
    return f"[{_number(interval.low, metric)}, {_number(interval.high, metric)}]"


def _listed(labels: Sequence[str]) -> str:
    """As a sentence lists them.

    >>> _listed(["a"]), _listed(["a", "b", "c"]), _listed([*"abcdef"])
    ('a', 'a, b and c', 'a, b, c and 3 others')
    """
    if len(labels) > NAMED:
        labels = [*labels[: NAMED - 1], f"{len(labels) - NAMED + 1} others"]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
