"""What the page says of the runs themselves: the audit of their data, and where they came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hsl.config import DataError
from hsl.files import read_json
from hsl.reports.run_folder import Run


@dataclass(frozen=True)
class AuditSummary:
    """What ``audit.json`` of one or more runs says, and which runs say it.

    ``pictures``: train, val, test; ``findings``: (rule, severity, message); ``missing``: why there is no audit.
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
        content = read_json(run.folder / "audit.json")
    except DataError as error:
        return str(error)
    kept = ("stopped", "method", "groups", "num_pictures", "near_duplicates", "threshold", "num_inside", "num_across")
    findings = [(each.get("rule"), each.get("severity"), each.get("message")) for each in content.get("findings", [])]
    return {key: content.get(key) for key in kept} | {"findings": findings}


def _summary(content: Mapping[str, Any] | str, names: Sequence[str]) -> AuditSummary:
    if isinstance(content, str):
        return AuditSummary(names, f"no audit: {content}")
    numbers = content["num_pictures"] or {}
    findings = [(str(rule), str(severity), str(message)) for rule, severity, message in content["findings"]]
    verdict = (
        "stopped the run" if content["stopped"] else f"passed, findings: {len(findings)}" if findings else "passed"
    )
    grouped = f", grouped by {content['groups']}" if content["groups"] else ", not grouped"
    duplicates = (
        f"{content['num_across']} across parts, {content['num_inside']} inside one "
        f"(correlation ≥ {content['threshold']})"
    )
    if content["near_duplicates"] == "off":
        duplicates = "not searched"
    pictures = ", ".join(f"{part} {number}" for part, number in numbers.items())
    return AuditSummary(names, verdict, pictures, f"{content['method']}{grouped}", duplicates, findings)
