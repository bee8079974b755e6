"""Which of the combinations is recommended: the simplest that no other is shown to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

from hsl.reports.models import Model
from hsl.reports.statistics.comparisons import Comparison, compare_pairs, pooled_estimates
from hsl.reports.statistics.resampling import Estimate
from hsl.run_folder.run import ScoredOn
from hsl.verbs.ensemble.stages.variants import BEST, MEAN

BASELINES = (BEST, MEAN)
"""The first in the order of simplicity stand beside all others: the best single member, and the plain mean."""


@dataclass(frozen=True)
class Recommendation:
    """What the scores of the stages allow to be said.

    ``estimates``: pooled score by label, with its interval. ``comparisons``: of every other against the baselines, in
    one table.
    """

    recommended: str
    sentence: str
    estimates: dict[str, Estimate]
    comparisons: Sequence[Comparison]


def judge_stages(models: Sequence[Model], metric: str, resamples: int, seed: int) -> Recommendation:
    """Compare the stages and name the one to take.

    The candidates are looked at in the order of simplicity. One that some other is shown to beat is passed over: with
    the adjusted p and interval of one table (definitions of a verdict), in which both baselines stand against all
    others; a later candidate stands against all others in a table of its own.

    Args:
        models: of one head, simplest first: the best single member, the plain mean, then the others.
        metric: the score that decides.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    on, labels = ScoredOn("val"), [model.label for model in models]
    estimates = pooled_estimates(models, on, resamples, seed, metric)
    num_bases = sum(label in BASELINES for label in labels)
    pairs = [(other, base) for i, base in enumerate(models[:num_bases]) for other in models[i + 1 :]]
    tables = [compare_pairs(pairs, on, resamples, seed, metric)]
    for i, candidate in enumerate(models):
        if i >= num_bases:
            others = [other for other in models if other is not candidate]
            tables.append(compare_pairs([(other, candidate) for other in others], on, resamples, seed, metric))
        known = [one for one in tables[0 if i < num_bases else -1] if candidate.label in (one.first, one.second)]
        beaten = [one.verdict.winner for one in known if one.verdict.winner not in ("", candidate.label)]
        if not beaten:
            return Recommendation(candidate.label, _sentence(labels, i, known), estimates, tables[0])
    best = max(estimates, key=lambda label: estimates[label].mean)  # each is beaten by one: only with odd pairs
    return Recommendation(best, f"Each is beaten by another; {best} has the highest score.", estimates, tables[0])


def _sentence(labels: Sequence[str], place: int, known: Sequence[Comparison]) -> str:
    name = labels[place]
    if len(labels) == 1:
        return f"Take {name}: there is nothing to compare it with."
    told = [one for one in known if not one.refused and one.score is not None]
    if not told:
        reason = next((one.verdict.pictures for one in known), "nothing was scored")
        return f"Take {name}, the simplest: nothing can be said between the stages ({reason})."
    few = next((one.verdict.pictures for one in told if one.verdict.pictures.startswith("too few")), "")
    if few:
        return f"Take {name}, the simplest: {few}."
    if name == BEST:
        return f"No ensemble: no combination is shown to be better than {name}, the best single member chosen nested."
    if place == 0:
        return f"Take {name}: the simplest that no other is shown to beat."
    named = " and ".join(labels[: min(place, 2)]) + (f" and {place - 2} more" if place > 2 else "")
    beaten = f"{named} {'is' if place == 1 else 'are'} beaten"
    return f"Take {name}: the simplest that no other is shown to beat; {beaten}."
