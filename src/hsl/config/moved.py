"""What a stored config means now: its modules have moved, settings came later; run folders outlive the floor plan."""

from collections.abc import Mapping
from typing import Any

MOVED = {
    "data.audit": "data.audit.audit",
    "data.fractions": "data.splits.fractions",
    "data.labels": "data.labels.pseudo_labels",
    "data.object_labels": "data.labels.object_labels",
    "data.patches": "data.patches.patch_sampling",
    "data.sampling": "data.loading.sampling",
    "data.splits": "data.splits.folds",
    "data.transforms": "data.loading.transforms",
    "losses.eight_part": "losses.eight_part.loss",
    "metrics.clustering": "metrics.objects.clustering",
    "metrics.failures": "metrics.objects.failures",
    "metrics.object_scores": "metrics.objects.jaccard",
    "metrics.panoptic": "metrics.objects.panoptic",
    "metrics.pixelwise": "metrics.pixels.pixelwise",
    "metrics.surface": "metrics.objects.surface",
    "run.checkpoint_io": "run_folder.checkpoint",
    "run.setup": "verbs.train.setup",
}
"""Module that conf/ named first to the one that it names now, both below ``hsl``. An entry stays for ever; who moves a
module again changes its right side."""

JOINED = {
    "callbacks.best_checkpoint.BestCheckpoint": "callbacks.monitored.BestCheckpoint",
    "inference.whole.Whole": "inference.predictor.Whole",
    "losses.dice.Dice": "losses.overlap.Dice",
    "losses.focal.Focal": "losses.cross_entropy.Focal",
    "losses.foreground_dice.ForegroundDice": "losses.overlap.ForegroundDice",
    "losses.lovasz.Lovasz": "losses.overlap.Lovasz",
}
"""The same of single names whose module joined another."""

LATER: dict[str, Any] = {"data.split.stop_fraction": 0.0, "data.teachers": None}
"""Settings that came after the first runs, each with the value that means what was so before it was there."""

_FIRST, _FIRST_JOINED = ({now: first for first, now in table.items()} for table in (MOVED, JOINED))


def without_later(content: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """A config without the settings of ``LATER`` that change nothing: for identities, so that older runs are the same.

    Args:
        content: The config, or a node of it.
        place: Of the node, with dots.

    Example:
        >>> without_later({"split": {"num_folds": 3, "stop_fraction": 0}}, "data")
        {'split': {'num_folds': 3}}
    """
    kept = {}
    for name, value in content.items():
        key = f"{place}.{name}" if place else str(name)
        if isinstance(value, Mapping):
            kept[name] = without_later(value, key)
        elif key not in LATER or value != LATER[key]:
            kept[name] = value
    return kept


def with_present_targets(content: Any) -> Any:
    """A copy of a stored config in which every ``_target_`` has its present name.

    Example:
        >>> with_present_targets({"split": {"_target_": "hsl.data.splits.kfold", "num_folds": 3}})
        {'split': {'_target_': 'hsl.data.splits.folds.kfold', 'num_folds': 3}}
    """
    return _renamed(content, MOVED, JOINED)


def with_first_targets(content: Any) -> Any:
    """A copy of a config in which every ``_target_`` has its first name, which says the same for ever: for identities.

    Example:
        >>> with_first_targets({"_target_": "hsl.data.splits.folds.kfold"})
        {'_target_': 'hsl.data.splits.kfold'}
    """
    return _renamed(content, _FIRST, _FIRST_JOINED)


def _renamed(node: Any, modules: Mapping[str, str], names: Mapping[str, str]) -> Any:
    if isinstance(node, Mapping):
        return {key: _target(value, modules, names) if key == "_target_" else _renamed(value, modules, names)
                for key, value in node.items()}  # fmt: skip
    return [_renamed(value, modules, names) for value in node] if isinstance(node, list) else node


def _target(target: Any, modules: Mapping[str, str], names: Mapping[str, str]) -> Any:
    """A name that is no text, or of another package, stays as it is: whether it may be called is asked elsewhere."""
    if not isinstance(target, str) or not target.startswith("hsl."):
        return target
    path = target.removeprefix("hsl.")
    module, _, name = path.rpartition(".")
    return f"hsl.{names.get(path) or f'{modules.get(module, module)}.{name}'}"
