"""What the page says of the runs themselves: the audit of their data, and where they came from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hsl.errors import DataError
from hsl.run_folder.provenance import read_audit
from hsl.run_folder.run import Run

UNCHECKED = ("off", "not checked", "partly checked")  # states of a rule in audit.json
NAMED = 3


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
