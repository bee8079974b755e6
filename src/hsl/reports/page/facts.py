"""What the page says of the runs themselves: audits, packages, steps taken back, memory, hints of the gradients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError
from hsl.reports.models import Model
from hsl.run_folder.history import Series, WeightingSteps
from hsl.run_folder.provenance import read_audit
from hsl.run_folder.run import Run
from hsl.weighting import MAX_FAILURES

UNCHECKED = ("off", "not checked", "partly checked")  # states of a rule in audit.json
NAMED = 3
IMBALANCE = 5.0  # largest over smallest median norm past which balancing methods are worth a run
CONFLICT = 0.3  # share of the steps with a cosine below 0 past which projecting ones are
UNRELATED = 0.05  # size of a median cosine below which the sign says little
MIN_STEPS = 20  # logged steps below which nothing is suggested
BALANCING, PROJECTING = ("imgrad", "nash_mtl"), ("pcgrad",)


@dataclass(frozen=True)
class AuditSummary:
    """What ``audit.json`` of one or more runs says, and which runs say it.

    ``pictures``: how many in each part; ``findings``: (rule, severity, message), and of rules that did not look at all
    there is (rule, state, reason).
    """

    runs: Sequence[str]
    verdict: str
    pictures: str = ""
    method: str = ""
    duplicates: str = ""
    findings: Sequence[tuple[str, str, str]] = ()


def audits(runs: Sequence[Run]) -> list[AuditSummary]:
    """The audits of the runs, alike ones together, in the order of their folds."""
    told: dict[str, tuple[dict[str, Any] | str, list[str]]] = {}
    for run in sorted((run for run in runs if run.config), key=lambda run: (run.fold, str(run.folder))):
        content = _audit(run)
        told.setdefault(repr(content), (content, []))[1].append(f"{run.folder.parent.parent.name} fold {run.fold}")
    return [_summary(content, names) for content, names in told.values()]


def package_rows(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Package to its versions over all runs; Python first."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        packages = {"Python": run.provenance.get("python"), **(run.provenance.get("packages") or {})}
        for name, version in packages.items():
            if version is not None:
                found.setdefault(name, {})[str(version)] = None
    return [(name, list(versions)) for name, versions in found.items()]


def _audit(run: Run) -> dict[str, Any] | str:
    try:
        content = read_audit(run.folder)
    except DataError as error:
        return str(error).replace(f"{run.folder}/", "")  # alike in all runs
    kept = ("stopped", "method", "groups", "num_pictures", "near_duplicates", "threshold", "num_inside", "num_across")
    findings = [(each.get("rule"), each.get("severity"), each.get("message")) for each in content.get("findings", [])]
    return {key: content.get(key) for key in kept} | {"findings": findings, "open": _open(content.get("states"))}


def _open(states: Mapping[str, Mapping[str, str]] | None) -> list[tuple[str, str, str]]:
    """Rules that did not look at everything; audits of older versions do not tell."""
    if states is None:
        return [("a to g", "not known", "an older version did not record what was not checked")]
    return [(rule, one["state"], one["reason"]) for rule, one in states.items() if one["state"] in UNCHECKED]


def unchecked(runs: Sequence[Run]) -> Iterator[str]:
    """What nobody looked at before the runs were trained, a sentence for each kind with the runs it is true of."""
    found: dict[str, list[str]] = {}
    for run in (run for run in runs if run.config):
        content, name = _audit(run), f"{run.folder.parent.parent.name} fold {run.fold}"
        if isinstance(content, str):
            found.setdefault(f"The data were not audited: {content}", []).append(name)
        else:
            for rule, state, reason in content["open"]:
                found.setdefault(f"Audit, rule ({rule}): {state}: {reason}.", []).append(name)
        if ((run.config.get("data") or {}).get("labels") or {}).get("unchecked"):
            found.setdefault("Pseudo-labels were used without a passed spot check.", []).append(name)
    for sentence, names in found.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"{sentence} ({', '.join(names[:NAMED])}{more})"


def _summary(content: Mapping[str, Any] | str, names: Sequence[str]) -> AuditSummary:
    if isinstance(content, str):
        return AuditSummary(names, f"no audit: {content}")
    numbers = content["num_pictures"] or {}
    findings = [(str(rule), str(severity), str(message)) for rule, severity, message in content["findings"]]
    nothing = "nothing found" if content["open"] else "passed"
    verdict = "stopped the run" if content["stopped"] else f"findings: {len(findings)}" if findings else nothing
    if content["open"]:
        verdict += "; not all was checked"
    grouped = f", grouped by {content['groups']}" if content["groups"] else ", not grouped"
    duplicates = (
        f"{content['num_across']} across parts, {content['num_inside']} inside one "
        f"(correlation ≥ {content['threshold']})"
    )
    if content["near_duplicates"] == "off":
        duplicates = "not searched"
    pictures = ", ".join(f"{part} {number}" for part, number in numbers.items())
    return AuditSummary(
        names, verdict, pictures, f"{content['method']}{grouped}", duplicates, [*findings, *content["open"]]
    )


def reverted(models: Sequence[Model]) -> list[str]:
    """For every model with runs that the rollback gate took back: what was restored, and why."""
    said = []
    for model in models:
        found = [run for run in model.finished.values() if run.events.reverted]
        if not found:
            continue
        told = "; ".join(f"fold {run.fold}, seed {run.seed}: {_why(run)}" for run in found)
        rest = len(model.finished) - len(found)
        others = f"{rest} run{'s' if rest > 1 else ''} that {'were' if rest > 1 else 'was'} not taken back"
        mixed = f" The mean over folds also holds {others}." if rest else ""
        said.append(f"{model.label}: the rollback gate restored earlier weights, which are scored here. {told}.{mixed}")
    return said


def memory(models: Sequence[Model]) -> list[str]:
    """For every run that ran out of memory: how far its micro-batch fell."""
    return [
        f"{model.label}, fold {run.fold}, seed {run.seed}: not enough memory; {_falls(run.events.memory)}. "
        "The effective batch stayed."
        for model in models
        for run in model.finished.values()
        if run.events.memory
    ]


def _falls(events: Sequence[Mapping[str, Any]]) -> str:
    """What fell, by what was cut: batches of training, of evaluation, windows of a forward pass."""
    said = []
    for kind in dict.fromkeys(str(event.get("cut", "train")) for event in events):
        own = [event for event in events if str(event.get("cut", "train")) == kind]
        sizes = f"{own[0].get('micro_batch_before')} to {own[-1].get('micro_batch_after')}"
        of_kind = "" if kind == "train" else f" of the {kind}"
        said.append(f"the micro-batch{of_kind} fell from {sizes} in {len(own)} event{'s' if len(own) > 1 else ''}")
    checkpointing = any(event.get("gradient_checkpointing") for event in events)
    return " and ".join(said) + (", with gradient checkpointing at last" if checkpointing else "")


def _why(run: Run) -> str:
    page = run.events.rollback
    phase = f"after phase {page['phase']} " if page.get("phase") else ""
    return (
        f"{phase}{page.get('metric')} was {_number(page.get('found'))} against a baseline of "
        f"{_number(page.get('baseline'))} (tolerance {_number(page.get('tolerance'))}){_least(page)}; restored from "
        f"{page.get('restored_from')}"
    )


def _least(page: Mapping[str, Any]) -> str:
    """The values that were below their minimum."""
    wrong = {
        name: one
        for name, one in (page.get("minimum") or {}).items()
        if one["found"] is None or one["found"] < one["least"]
    }
    return "".join(
        f", {name} was {_number(one['found'])}, below {_number(one['least'])}" for name, one in wrong.items()
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "unknown"


def logs_of(model: Model) -> list[WeightingSteps]:
    """The logs of the finished runs that have one."""
    return [run.weighting for run in model.finished.values() if run.weighting]


def degraded(models: Sequence[Model]) -> Iterator[str]:
    """A sentence per model with a run whose solver failed in more than 1 % of its steps."""
    for model in models:
        found = [
            f"fold {run.fold}, seed {run.seed}: {log.solver_failures} of {log.solver_steps} steps "
            f"({100 * log.solver_failures / log.solver_steps:.1f} %)"
            for run in model.finished.values()
            if (log := run.weighting) and log.solver_failures > MAX_FAILURES * log.solver_steps
        ]
        if found:
            yield (
                f"{model.label}: DEGRADED, the solver of the task weights failed in more than {100 * MAX_FAILURES:g} % "
                f"of the steps, which had weights of 1 instead; its scores are not those of its method. "
                f"{'; '.join(found)}."
            )


def weighting_hints(models: Sequence[Model]) -> Iterator[str]:
    """A sentence per model and finding; nothing for a method that looks at no gradients.

    Norms are those of the tasks: other objectives, as the consistency term, are small by their constant weight. The
    steps of all runs of a model count alike.
    """
    for model in models:
        logs = logs_of(model)
        norms, cosines = _joined([log.norms for log in logs]), _joined([log.cosines for log in logs])
        named = {name: values for name, values in norms.items() if name in model.tasks} or norms
        runs = f"{sum(len(log.steps) for log in logs)} logged steps of {len(logs)} run{'s' if len(logs) > 1 else ''}"
        yield from _imbalance(model, named, runs)
        yield from _conflict(model, cosines, runs)


def _imbalance(model: Model, norms: Series, runs: str) -> Iterator[str]:
    medians = {name: float(np.median(values)) for name, values in norms.items() if len(values) >= MIN_STEPS}
    if len(medians) < 2:
        return
    low, *_, high = sorted(medians, key=lambda name: medians[name])
    ratio = medians[high] / medians[low]
    if ratio > IMBALANCE:
        yield (
            f"{model.label}: imbalance between the tasks. The median norm of the gradient of {high} "
            f"({medians[high]:.3g}) is {ratio:.1f} times that of {low} ({medians[low]:.3g}; more than {IMBALANCE:g} "
            f"counts; {runs}). {_suggestion(model, BALANCING)}"
        )


def _conflict(model: Model, cosines: Series, runs: str) -> Iterator[str]:
    shares = {pair: float(np.mean(values < 0)) for pair, values in cosines.items() if len(values) >= MIN_STEPS}
    over = [pair for pair, share in shares.items() if share > CONFLICT]
    if not over:
        return
    worst = min(over, key=lambda pair: float(np.median(cosines[pair])))
    median = float(np.median(cosines[worst]))
    others = f"; {len(over)} of {len(shares)} pairs pass that" if len(over) > 1 else ""
    unrelated = " So near 0 they are unrelated rather than opposed." if abs(median) < UNRELATED else ""
    yield (
        f"{model.label}: conflict between objectives. The gradients of {worst.replace(', ', ' and ')} point apart "
        f"(cosine below 0) in {100 * shares[worst]:.0f} % of the steps, median cosine {median:+.2f} (more than "
        f"{100 * CONFLICT:g} % counts{others}; {runs}).{unrelated} {_suggestion(model, PROJECTING)}"
    )


def _suggestion(model: Model, methods: Sequence[str]) -> str:
    used = _method(model)
    if used in methods:
        return f"Its weighting, {used}, is made for that."
    return f"{' or '.join(f'weighting={name}' for name in methods)} is made for that and worth a run."


def _method(model: Model) -> str:
    """The last word of the weighting's, or its method's, ``_target_``; it is what the option is called but for case."""
    node = next((run.config.get("weighting") for run in model.finished.values()), None)
    while isinstance(node, Mapping) and isinstance(node.get("method"), Mapping):
        node = node["method"]
    return str(node.get("_target_", "")).rpartition(".")[2].lower() if isinstance(node, Mapping) else ""


def _joined(logs: Sequence[Series]) -> dict[str, NDArray[np.float64]]:
    """Name to the finite values of all logs, end to end."""
    names = dict.fromkeys(name for log in logs for name in log)
    joined = {name: np.concatenate([log[name] for log in logs if name in log]) for name in names}
    return {name: values[np.isfinite(values)] for name, values in joined.items()}
