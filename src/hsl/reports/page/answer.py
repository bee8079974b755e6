"""The answer of a report in two to four sentences: what page, terminal and `cv_results.json` open with."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hsl.metrics.catalogue import better
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.contrasts import LEAST
from hsl.reports.statistics.paired_tests import Interval
from hsl.reports.statistics.power import MOST_TRAININGS
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.statistics.verdicts import LEAST_TRAININGS, NO_DIFFERENCE
from hsl.reports.tables.titles import kind_of, name_of

NAMED = 4  # models that a sentence lists; of more it says how many


@dataclass(frozen=True)
class Standing:
    """What an answer is made from.

    ``models``: labels of those with finished runs, best first; ``estimates``: label to the pooled score; ``warnings``:
    what changes the reading, a few words each; ``of``: image heads, where they are meant; ``unit``: what is drawn,
    groups, or pictures where no groups are known.
    """

    data: str
    metric: str
    models: Sequence[str]
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    warnings: Sequence[str] = ()
    of: str = ""
    unit: str = "groups"


def answer(standing: Standing) -> list[str]:
    """Two to four sentences: the best, what is not known of it, what would settle it, and what to mind."""
    told = [f"Read this with care: {'; '.join(standing.warnings)}."] if standing.warnings else []
    models, where = standing.models, f"on {standing.data}"
    if not models:
        return [f"No model has finished runs {where}.", "There is nothing to compare yet.", *told]
    if len(models) == 1:
        kind = "image" if standing.of else "pixel"
        only = f"{models[0]} is the only model with {kind} scores {where}: {_score(standing, models[0])}."
        return [only, "There is nothing to compare it with.", *told]
    paired = [one for one in standing.comparisons if one.score is not None and not one.refused]
    if not paired:
        reason = next(map(_reason, standing.comparisons), "nothing was scored")
        return [f"The {len(models)} models cannot be compared {where}: {reason}.", _highest(standing), *told]
    most = max(one.score.num_units for one in paired if one.score)
    if most < LEAST:
        few = f"Nothing can be said between the {len(models)} models {where}: {paired[0].verdict.pictures}."
        return [few, _highest(standing), _wanted(most), *told]
    met = {label for one in paired for label in (one.first, one.second)}
    among = replace(standing, models=[label for label in models if label in met])
    beaten = {_loser(one) for one in paired if one.verdict.winner}
    unbeaten = [label for label in among.models if label not in beaten] or list(among.models)
    won = [one for one in paired if one.verdict.winner == unbeaten[0]]
    body = _one_best(among, unbeaten[0], won) if len(unbeaten) == 1 and won else _several(among, unbeaten, paired)
    return [body[0], *_rest(standing, unbeaten, met), *body[1:], *told]


def _one_best(standing: Standing, best: str, won: Sequence[Comparison]) -> list[str]:
    """The closest of those that it is better than stands for all."""
    closest = min(won, key=lambda one: abs(one.score.mean) if one.score else 0.0)
    rival, num = _loser(closest), len(standing.models)
    every = len(won) == num - 1
    title = f"the best of {num} models" if every and num > 2 else f"better than {_listed([_loser(one) for one in won])}"
    lead = f"{_ahead(closest)} better than {rival}, the closest," if len(won) > 1 else f"{_ahead(closest)} better,"
    score = _score(standing, best)
    first = f"{best} is {title} on these pictures of {standing.data}: {score}, {lead} over {_units(standing, closest)}"
    others = [label for label in standing.models if label != best and label not in {_loser(one) for one in won}]
    unclear = "" if every else f"; {_listed(others)} cannot be told apart from it"
    return [f"{first}{unclear}.", _trainings(won)]


def _trainings(won: Sequence[Comparison]) -> str:
    """Whether a new training would likely show all of it, what speaks against it most, and what would settle it."""
    sure = [one for one in won if one.verdict.training.startswith("a new training")]
    unsure = [one for one in won if one not in sure]
    worst = max(unsure or sure, key=lambda one: math.inf if math.isnan(one.trainings.p) else one.trainings.p)
    training, of = worst.verdict.training, worst.trainings
    rival = f"against {_loser(worst)}{f' and {len(unsure) - 1} more' if len(unsure) > 1 else ''} "
    said = _capital(f"{rival if sure and unsure else ''}{training}")
    if of.num < 2:
        return f"{said}: {LEAST_TRAININGS} trainings of each, over folds or seeds, are the least that can tell."
    if not unsure or math.isnan(of.p) or "the other is ahead" in training:
        return f"{said}."
    unit = "folds" if of.by_fold else "trainings, over seeds,"
    if of.needed is None:
        return f"{said}: not even {MOST_TRAININGS} {unit} would likely show a difference of this size."
    return f"{said}: about {of.needed} {unit} would settle a difference of this size ({of.num} here)."


def _several(standing: Standing, unbeaten: Sequence[str], paired: Sequence[Comparison]) -> list[str]:
    pairs = [one for one in standing.comparisons if {one.first, one.second} <= set(unbeaten)]
    first = next((one for one in pairs if one in paired), None)
    where = f"on these pictures of {standing.data}"
    if first is None:
        reason = next(map(_reason, pairs), "nothing was scored")
        return [f"{_listed(unbeaten)} are beaten by none {where}, but not compared with each other: {reason}."]
    worse = len(unbeaten) < len(standing.models)
    ahead = first.first if _is_ahead(first) else first.second
    best = (
        f"{_listed(unbeaten)} cannot be told apart {'as the best ' if worse else ''}{where}: {_score(standing, ahead)} "
        f"for {ahead}, {_ahead(first)} ahead of {first.second if ahead == first.first else first.first} over "
        f"{_units(standing, first)}."
    )
    return [best, _settled(standing, first)]


def _rest(standing: Standing, unbeaten: Sequence[str], met: Collection[str]) -> list[str]:
    """One sentence of the models that the others do not tell of: worse than one of the best, or compared with none."""
    worse = [label for label in standing.models if label in met and label not in unbeaten]
    alone = [label for label in standing.models if label not in met]
    told = []
    if worse and len(unbeaten) > 1:
        told.append(f"{_listed(worse)} {_are(worse)} worse than at least one of them")
    if alone:
        reason = next(_reason(one) for one in standing.comparisons if alone[0] in (one.first, one.second))
        told.append(f"{_listed(alone)} {_are(alone)} compared with none: {reason}")
    return [f"{'; '.join(told)}."] if told else []


def _reason(pair: Comparison) -> str:
    """Why two models could not be compared."""
    return pair.verdict.pictures.removeprefix("not paired: ").removeprefix(f"{NO_DIFFERENCE}: ")


def _are(labels: Sequence[str]) -> str:
    return "is" if len(labels) == 1 else "are"


def _settled(standing: Standing, pair: Comparison) -> str:
    score, unit = pair.score, standing.unit
    if score is None or score.num_units < LEAST:
        num = score.num_units if score else 0
        return f"At least {LEAST} {unit} that both were scored on would be a beginning ({num} here)."
    if score.interval is None and score.mean == 0 and not score.rests_on_one:
        return (
            f"They are alike in every one of the {score.num_units} {unit}: more of the same would not tell them apart."
        )
    if score.interval is None or score.is_shown:
        return _capital(f"{pair.verdict.pictures}.")
    if score.adjusted is None:
        return f"The bootstrap drew too few resamples to settle anything over {score.num_units} {unit}."
    if math.isnan(score.smallest):
        return f"{score.num_units} {unit} of which few make up most of the score could show no difference of any size."
    shows = f"{score.num_units} {unit} show differences from {_size(score.smallest, pair.metric)} on"
    if score.needed is None:
        return f"So many {unit} do not settle it: {shows}, and no number that can be had would show one so small."
    return f"About {_rounded(score.needed)} {unit} would settle a difference of this size; {shows}."


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _rounded(num: int) -> int:
    """Up to two digits, for more would be made up.

    >>> _rounded(34), _rounded(160), _rounded(8518)
    (34, 160, 8600)
    """
    step = int(10 ** max(0, len(str(num)) - 2))
    return -(-num // step) * step


def _wanted(num: int) -> str:
    groups = f"{LEAST} independent groups ({num} here)"
    return f"At least {groups} and {LEAST_TRAININGS} trainings of each would be a beginning."


def _highest(standing: Standing) -> str:
    first = standing.models[0]
    score = f" with {_score(standing, first)}" if first in standing.estimates else ""
    return f"{first} comes first{score}, which is no verdict."


def _score(standing: Standing, label: str) -> str:
    found = standing.estimates.get(label)
    name = f"pooled {name_of(standing.metric)}{f' of {standing.of}' if standing.of else ''}"
    if found is None:
        return f"its {name} is not known"
    unit = " %" if kind_of(standing.metric) == "share" else ""
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
    return pair.score is None or (pair.score.mean >= 0) != (better(pair.metric) == "min")


def _loser(pair: Comparison) -> str:
    return pair.second if pair.verdict.winner == pair.first else pair.first


def _units(standing: Standing, pair: Comparison) -> str:
    return f"{pair.score.num_units if pair.score else 0} {standing.unit}"


def _number(value: float, metric: str) -> str:
    """In per cent or points where it is a share; one digit more where it would be 0, and 0 has no sign.

    >>> _number(-0.0123, "miou"), _number(-0.0002, "miou"), _number(-1e-9, "miou"), _number(0.25, "nll")
    ('-1.2', '-0.02', '0.0', '0.2500')
    """
    if kind_of(metric) != "share":
        return f"{value:.4f}"
    digits = 1 if abs(value) >= 0.0005 or abs(value) < 0.00005 else 2
    return f"{100 * value + 0.0 if abs(value) >= 0.00005 else 0.0:.{digits}f}"


def _size(value: float, metric: str) -> str:
    return f"{_number(value, metric)}{' points' if kind_of(metric) == 'share' else ''}"


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
