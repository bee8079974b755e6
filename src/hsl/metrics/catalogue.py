"""Every score: its name, title and unit, which of its values are good, and what it is made from. No torch.

Whoever adds a score writes its formula, its entry here and a test. What is logged, which way a monitored score gets
better, the columns and titles of tables, plots and pages, and the tables of docs/metrics.md follow from the entry.
``python -m hsl.metrics.catalogue docs/metrics.md`` renews the tables there.
"""

import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from hsl.errors import ConfigError

Mode: TypeAlias = Literal["max", "min"]
Room: TypeAlias = Literal["pixels", "images", "objects", "heads"]
STAGES = ("train", "val", "test")


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        name: as it is logged behind ``val/``, and as it stands in metrics.json and in tables.
        title: as a reader sees it, without its unit.
        formula: in words or symbols; what the letters mean stands above the tables of docs/metrics.md.
        edge: what happens where a denominator is 0.
        source: of the formula.
        of: what it scores: pixels, whole images, objects and regions, or the heads together.
        counts: the sums it is made from: of pixels ``confusion``, ``boundaries`` or ``calibration``, of images
            ``decisions`` (right and wrong) or ``curves`` (probabilities), of objects ``matches`` or ``areas``;
            ``pictures``, ``contours`` and ``regions``: a mean over pictures. Empty: in no table.
        better: whether more (``max``) or less (``min``) of it is better.
        unit: ``%`` is a share from 0 to 1, shown in per cent; empty: a plain number.
        per_class: whether it is a score of each class, ``also`` beside one of all, or ``only``.
        logged: whether a validation logs it, so that it can be monitored; the others are of the final evaluation.
        tabled: of an image score, whether every table has a column of it; else only that of which it decides the rank.
        listed: whether `hsl runs` has a column of it.
    """

    name: str
    title: str
    formula: str
    edge: str = ""
    source: str = ""
    of: tuple[Room, ...] = ("pixels",)
    counts: str = ""
    better: Mode = "max"
    unit: Literal["%", "", "pixels", "bits"] = "%"
    per_class: Literal["no", "also", "only"] = "no"
    logged: bool = True
    tabled: bool = True
    listed: bool = False

    @property
    def heading(self) -> str:
        """The title with its unit, as a column is headed.

        >>> SCORES["miou"].heading, SCORES["nll"].heading
        ('mIoU (%)', 'NLL')
        """
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def definition(self) -> str:
        """The formula with its edge rule and source, as a page explains it.

        >>> SCORES["assd"].definition
        'mean of all distances, both directions; the same; lower is better. Heimann 2009.'
        """
        told = "; ".join(filter(None, (self.formula, self.edge, "lower is better" * (self.better == "min"))))
        return ". ".join(filter(None, (told, self.source))).replace("`", "") + "."


_NONE_PREDICTED = "the denominator is 0: 0 where the class is in the other mask, else NaN; of images NaN"
_MACRO = "never predicted: 0; in neither: left out"
_NO_CURVE = "class shown by all pictures or none: NaN, left out of the mean"
_ERRORS = {
    "background": "foreground predicted on background",
    "missed": "background predicted on foreground",
    "classification": "foreground predicted as other foreground",
}
_PLACES = {"interior": "farther than d from every true contour", "boundary": "within d of a true contour"}
_of_class = partial(Score, counts="confusion", per_class="only", logged=False)
_confusion = partial(Score, counts="confusion")
_boundary = partial(Score, counts="boundaries", per_class="also")
_calibration = partial(Score, edge="no valid pixel: NaN", counts="calibration", better="min")
_images = partial(Score, of=("images",), counts="decisions")
_curves = partial(Score, of=("images",), counts="curves")
_final = partial(Score, of=("objects",), logged=False)
_distance = partial(_final, counts="contours", better="min", unit="pixels", per_class="only")
_objects = partial(_final, edge="no object: NaN", counts="matches", per_class="also")
_regions = partial(_final, counts="regions", unit="")
_information = partial(_regions, source="Meila 2007", better="min", unit="bits")

_SCORES = (
    _of_class("iou", "IoU", "TP / (TP + FP + FN)", source="Jaccard 1912"),
    _of_class("dice", "Dice", "2 TP / (2 TP + FP + FN)", source="Dice 1945"),
    _of_class("precision", "precision", "TP / (TP + FP)", _NONE_PREDICTED, of=("pixels", "images")),
    _of_class("recall", "recall", "TP / (TP + FN)", _NONE_PREDICTED, of=("pixels", "images")),
    _of_class("f1", "F1", "2 TP / (2 TP + FP + FN); of pixels the same as Dice", of=("pixels", "images")),
    _confusion("miou", "mIoU", "macro mean of the IoU over the scored classes", "no scored class: NaN", listed=True),
    _confusion("foreground_iou", "mIoU of the foreground", "the same without class 0", "none of them scored: NaN"),
    _confusion("micro_iou", "micro IoU", "sum TP / sum (TP + FP + FN) over classes", "no valid pixel: NaN"),
    _confusion("frequency_weighted_iou", "frequency-weighted IoU",
               "sum over classes of t IoU / sum of t, with t the true pixels of the class", "no valid pixel: NaN",
               "Long 2015, section 5"),
    _confusion("mean_dice", "mean Dice", "macro mean of the Dice over the scored classes", "no scored class: NaN"),
    _confusion("pixel_accuracy", "pixel accuracy", "correct valid pixels / valid pixels", "no valid pixel: NaN"),
    _boundary("boundary_iou", "boundary IoU", "IoU of the inner bands of width d of truth and prediction, macro mean",
              "as IoU, for bands", "Cheng 2021, equation 1"),
    _boundary("boundary_f1", "boundary F1",
              "harmonic mean of: share of the predicted contour within d of the true one, and the reverse; macro mean",
              "in one mask only: 0",
              "Csurka 2013; there Euclidean and a mean over pictures, here chessboard distance and pooled"),
    _calibration("ece", "ECE",
                 "sum over 15 equal-width bins of the confidence (the top probability): share of pixels × "
                 "abs(accuracy − mean confidence)",
                 source="Guo 2017, equation 3"),
    _calibration("nll", "NLL", "mean of −log p of the true class", unit=""),
    _calibration("brier", "Brier score", "mean of the squared distance between probabilities and truth, 0 to 2",
                 source="Brier 1950", unit=""),
    *(Score(f"error_{kind}_{place}", f"{kind} errors, {place}", f"share of valid pixels: {wrong}, {where}",
            better="min")
      for kind, wrong in _ERRORS.items() for place, where in _PLACES.items()),
    Score("dice_empty_one", "Dice, both empty = 1",
          "mean over pictures and foreground classes of the Dice of that picture (not pooled)", "both empty: 1",
          "the score of the Severstal contest", counts="pictures", logged=False),
    Score("dice_empty_one_predicting_nothing", "the same of predicting nothing",
          "share of pictures and foreground classes without a true pixel: what never predicting anything scores, "
          "0.8556 in the Severstal contest", counts="pictures", logged=False),
    _images("accuracy", "accuracy",
            "right pictures / pictures; several classes: right decisions / decisions, over all pictures and classes",
            "no known label: NaN", listed=True),
    _images("balanced_accuracy", "balanced accuracy", "mean recall of the classes that some picture shows"),
    _images("macro_f1", "macro F1", "mean F1 over the classes that occur in truth or prediction", _MACRO, listed=True),
    _images("macro_precision", "macro precision", "mean precision over the same classes", _MACRO, tabled=False),
    _images("macro_recall", "macro recall", "mean recall over the same classes", _MACRO, tabled=False),
    _images("micro_f1", "micro F1", "from TP, FP and FN summed over the classes"),
    _images("micro_precision", "micro precision", "the same", tabled=False),
    _images("micro_recall", "micro recall", "the same", tabled=False),
    _images("exact_match", "exact match",
            "pictures with every class right / pictures; with one class per picture the accuracy", tabled=False),
    _curves("macro_auroc", "AUROC", "mean over classes of `auroc`", _NO_CURVE),
    _curves("macro_average_precision", "average precision", "mean over classes of `average_precision`", _NO_CURVE),
    _curves("auroc", "AUROC", "area under the ROC curve of the class against all others",
            _NO_CURVE, per_class="only", logged=False),
    _curves("average_precision", "average precision", "sum (R_n − R_n−1) P_n",
            _NO_CURVE, per_class="only", logged=False),
    _distance("hd95", "HD95",
              "larger of the two directed 95th percentiles of the distances between the contours of a picture",
              "in neither mask: not scored; in one: the picture's diagonal, so a miss never improves it",
              "Huttenlocher 1993; percentiles as in MONAI"),
    _distance("assd", "ASSD", "mean of all distances, both directions", "the same", "Heimann 2009"),
    _objects("pq", "PQ", "SQ x RQ = IoU sum / (TP + FP/2 + FN/2)", source="Kirillov 2019"),
    _objects("sq", "SQ", "IoU sum / TP", edge="no match: NaN", source="Kirillov 2019"),
    _objects("rq", "RQ = object F1", "TP / (TP + FP/2 + FN/2)", source="Kirillov 2019"),
    _objects("object_ap", "AP",
             "TP / (TP + FP + FN) with matches above an IoU of 0.5, 0.55, ..., 0.95, and the mean of these",
             source="Caicedo 2019; there the mean over pictures"),
    _objects("object_ap50", "AP at 0.5", "the same at 0.5 alone"),
    _objects("object_ap75", "AP at 0.75", "the same at 0.75 alone"),
    _objects("aji", "AJI",
             "sum of the intersections of each true object with the predicted one of the largest IoU / (sum of their "
             "unions + area of the predicted objects that none took)",
             source="Kumar 2017, algorithm 1", counts="areas", per_class="no"),
    _regions("ari", "ARI", "adjusted Rand index of the two class maps of a picture as partitions",
             "one region in both: 1", "Hubert & Arabie 1985"),
    _information("voi", "VOI", "`voi_split` + `voi_merge`"),
    _information("voi_split", "VOI, split", "H(prediction given truth)"),
    _information("voi_merge", "VOI, merge", "H(truth given prediction)"),
    Score("loss", "loss",
          "what training minimises: the weighted sum of the objectives, each logged as `loss/<objective>`",
          of=("heads",), better="min", unit=""),
    Score("h_mean", "H-mean of the mIoU",
          "harmonic mean of the mIoU of the primary tasks of a multi-task model, or of all tasks (`task.primary`) that "
          "read the map of a flat one", "one of them 0: 0", of=("heads",)),
)  # fmt: skip
SCORES = {score.name: score for score in _SCORES}
"""By name, in the order of the columns of a table."""


def score_names(of: Room, *counts: str, per_class: bool = False) -> tuple[str, ...]:
    """Names of the scores of a room, in the order of the columns.

    Args:
        of: the room.
        counts: only those made from these sums; without any, from whatever.
        per_class: those that each class has; else those that all classes together have.

    Example:
        >>> score_names("pixels", "boundaries", "calibration")
        ('boundary_iou', 'boundary_f1', 'ece', 'nll', 'brier')
    """
    left_out = "no" if per_class else "only"
    chosen = [one for one in SCORES.values() if of in one.of and one.per_class != left_out]
    return tuple(one.name for one in chosen if not counts or one.counts in counts)


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
        logged = [f"val/{score.name}" for score in SCORES.values() if score.logged]
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


def score_table(of: str) -> str:
    """The Markdown table of the scores of a room."""
    lines = ["| name | title | better | formula | edge rule | source |", "|---|---|---|---|---|---|"]
    for score in SCORES.values():
        if of == score.of[0]:
            name = f"`{score.name}`" + {"only": " of a class", "also": ", also of a class"}.get(score.per_class, "")
            cells = (name, score.heading, score.better, score.formula, score.edge, score.source)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_tables(page: str) -> str:
    """A page in which the table below each ``<!-- scores of ROOM`` is that of the catalogue."""

    def renewed(found: re.Match[str]) -> str:
        return f"{found[1]}{score_table(found[2])}\n\n"

    return re.sub(r"(<!-- scores of (\w+).*?-->\n)(?:\|.*\n)*\n", renewed, page)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(encoding="utf8")), encoding="utf8")
