"""What the reader must know of runs that were taken back, or that ran out of memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from hsl.reports.models import Model
from hsl.run_folder.run import Run


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
