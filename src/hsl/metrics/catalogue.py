"""The scores that are logged and stored, and which values of each are good. No torch: a config is checked with it."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeAlias

from hsl.errors import ConfigError

Mode: TypeAlias = Literal["max", "min"]
STAGES = ("train", "val", "test")


@dataclass(frozen=True)
class Score:
    """What is known of a score beside its formula.

    Attributes:
        better: whether more (``max``) or less (``min``) of it is better.
        logged: whether a validation logs it, so that it can be monitored; the others are of the final evaluation.
    """

    better: Mode
    logged: bool = True


def _alike(score: Score, *names: str) -> dict[str, Score]:
    return dict.fromkeys(names, score)


SCORES: dict[str, Score] = {
    **_alike(Score("min"), "loss"),
    **_alike(Score("max"), "miou", "foreground_iou", "micro_iou", "mean_dice", "pixel_accuracy", "boundary_iou",
             "boundary_f1", "h_mean"),
    **_alike(Score("min"), "ece", "nll", "brier"),
    **_alike(Score("min"), "error_background_boundary", "error_background_interior", "error_missed_boundary",
             "error_missed_interior", "error_classification_boundary", "error_classification_interior"),
    **_alike(Score("max"), "accuracy", "exact_match", "balanced_accuracy", "macro_f1", "macro_precision",
             "macro_recall", "micro_f1", "micro_precision", "micro_recall", "macro_auroc", "macro_average_precision"),
    **_alike(Score("max", logged=False), "iou", "dice", "precision", "recall", "f1", "auroc", "average_precision",
             "dice_empty_one", "pq", "sq", "rq", "object_ap", "object_ap50", "object_ap75", "aji", "ari"),
    **_alike(Score("min", logged=False), "hd95", "assd", "voi", "voi_split", "voi_merge"),
}  # fmt: skip
"""By name, as it is logged behind ``val/`` and stored in metrics.json."""


def better(name: str) -> Mode | None:
    """Whether more (``max``) or less (``min``) of a score is better; ``None``: it is not in the catalogue.

    Args:
        name: as it is logged, ``val/miou``, ``val/miou/genus``, ``val/loss/dice``; or the score alone, ``miou``.

    Example:
        >>> better("val/miou/genus"), better("val/loss/dice"), better("hd95"), better("val/dream")
        ('max', 'min', 'min', None)
    """
    first, _, rest = name.partition("/")
    score = SCORES.get(rest.partition("/")[0] if first in STAGES else first)
    return None if score is None else score.better


def read_mode(name: str, mode: str, keys: tuple[str, str] = ("monitor", "monitor_mode")) -> Mode:
    """The direction in which a monitored value gets better.

    Args:
        name: of the value, as it is logged.
        mode: ``auto``: as in the catalogue; ``max`` or ``min``: for a value that is not in it.
        keys: of the config, of the name and of the mode.

    Raises:
        ConfigError: the mode contradicts the catalogue, is none of the three, or ``auto`` for an unknown value.
    """
    known = better(name)
    if mode not in ("auto", "max", "min"):
        raise ConfigError(f"`{keys[1]}` should be auto, max or min. Found `{keys[1]} = {mode}`.")
    if known is None and mode == "auto":
        logged = [f"val/{score}" for score, of in SCORES.items() if of.logged]
        near = get_close_matches(name, logged, n=1)
        hint = f" Did you mean `{keys[0]}={near[0]}`?" if near else ""
        raise ConfigError(
            f"`{keys[0]}` should be a score whose direction is known, where `{keys[1]}=auto`: {', '.join(logged)}. "
            f"Found `{keys[0]} = {name}`.{hint} For a score of your own, set `{keys[1]}=max` or `{keys[1]}=min`."
        )
    if known is not None and mode not in ("auto", known):
        amount = "less" if known == "min" else "more"
        raise ConfigError(
            f"`{keys[1]}` should be {known} for `{name}`: {amount} of it is better. Found `{keys[1]} = {mode}`. "
            f"Set `{keys[1]}=auto`."
        )
    return "max" if "max" in (mode, known) else "min"
