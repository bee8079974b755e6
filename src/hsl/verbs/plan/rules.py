"""The rules about everything but size: from what the training part is like to values with their reasons.

Every rule is a function of facts alone. What is chosen between (options of conf/) it calls by a name of its own; the
words of train.py for it stand in ``conf/plan.yaml``.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from scipy.special import stdtrit

from hsl.reports.statistics.contrasts import LEAST
from hsl.reports.statistics.power import smallest_difference
from hsl.verbs.plan.fingerprint import Fingerprint
from hsl.verbs.plan.views import FEW_PASSES, Setting, View, smallest_kept

RARE_PIXELS = 0.01
RARE_IMAGES = 0.25
STOP_FRACTION, STOP_GROUPS = 0.1, 10
GROUPS_PER_FOLD = 2
NARROW = 4.0


def loss(facts: Fingerprint) -> Setting:
    """Cross-entropy with weighted classes where one is rarer than 1 % of the pixels, else cross-entropy and soft Dice.

    Soft Dice of a class of few pixels has next to no gradient before the network finds it: in our runs on magnetic
    tiles it kept the network at the background for tens of epochs. Elsewhere the sum is what nnU-Net found to be robust
    (Isensee 2021). Weights by one over the square root of the frequency, at most 40 to 1 (definitions, 2).
    """
    if facts.labels and not facts.num_masks:
        several = "several_labels" if facts.several_labels else "labels_alone"
        return Setting(
            {"monitor": "val/macro_f1"}, "labels of whole pictures, no masks; rare ones count as much", several
        )
    rarest = min(facts.classes, key=lambda one: one.share if one.share else 1.0)
    words = f"`{rarest.name}` is {100 * rarest.share:.2g} % of the pixels"
    if rarest.share < RARE_PIXELS:
        reason = f"{words}: soft Dice starts slowly there, weighted cross-entropy does not"
        return Setting({"loss.class_weights": "inverse_sqrt"}, reason, "rare_pixels")
    reason = f"{words}, none is rare: cross-entropy and soft Dice, all classes alike"
    return Setting({"loss.class_weights": None}, reason, "common_pixels")


def sampling(facts: Fingerprint) -> Setting | None:
    """Pictures of rare classes more often where a class shows in fewer than a quarter of them (Gupta 2019)."""
    shown = {one.name: one.num_images for one in facts.classes if one.num_images}
    rare = [f"`{name}` ({number})" for name, number in shown.items() if number < RARE_IMAGES * facts.num_images]
    if not rare or not facts.num_masks:
        return None
    return Setting({}, f"few of {facts.num_images} training pictures show {', '.join(rare[:4])}", "rare_classes")


ORIENTATIONS: Mapping[str, tuple[float | None, float | None, bool]] = {
    "any": (0.5, 0.5, True), "upright": (0.5, None, False), "fixed": (None, None, False), "unknown": (0.5, None, False),
}  # fmt: skip
"""Chances of a flip left to right and upside down, and whether quarter turns are taken."""


def augmentation(facts: Fingerprint, view: View, passes: float, orientation: str) -> Iterator[Setting]:
    """What may be done to a picture without changing what its masks mean.

    Whether upside down means the same cannot be read off the pixels: it is asked. Grey pictures have no hue. Blur would
    wipe out objects of 3 pixels. In few passes a network sees each picture so seldom that only flips pay.
    """
    horizontal, vertical, turns = ORIENTATIONS[orientation]
    values: dict[str, Any] = {"augmentation.flips": {"horizontal": horizontal, "vertical": vertical}}
    if not turns:
        values |= {"augmentation.rot90": None}
    reason = f"orientation={orientation}"
    if orientation == "unknown":
        reason = (
            "open question: does a picture upside down mean the same? Then orientation=any. Left is right here, too, "
        )
        reason += "unless orientation=fixed"
    yield Setting(values, reason, "augmented", open=orientation == "unknown")
    if passes < FEW_PASSES:
        off = {f"augmentation.{part}": None for part in ("resized_crop", "rotation", "colour", "blur")}
        yield Setting(off, f"{passes:.1f} passes over the training part: flips and turns only")
        return
    if orientation == "fixed":
        yield Setting({"augmentation.rotation": None}, "orientation=fixed")
    if not facts.colour:
        values = {"augmentation.colour.saturation": None, "augmentation.colour.hue": None}
        yield Setting(values, "the pictures are grey")
    tenths = [one.smallest_tenth for one in facts.classes if one.num_objects]
    if tenths and min(min(tenths), min(smallest_kept(facts, view.height, view.width).values())) <= NARROW:
        yield Setting({"augmentation.blur": None}, "blur would wipe out the smallest objects")


def precision(device: str) -> Setting:
    """bfloat16 on a GPU that has it: half the memory at the range of 32 bits (Kalamkar 2019); else 32 bits."""
    word = "bf16-mixed" if device == "gpu" else "32-true"
    return Setting({"trainer.precision": word}, f"trains on the {device}, which was measured")


def num_folds(groups_of_class: Mapping[str, int], num_groups: int) -> tuple[int, str]:
    """The most of 5, 3 and 2 folds that leave two groups of every class to each, on average.

    A class in fewer groups than that is absent from the validation of some fold, whose score then leaves it out.
    """
    shown = {name: number for name, number in groups_of_class.items() if number}
    rarest = min(shown, key=lambda name: shown[name], default="")
    least = min(shown.get(rarest, num_groups), num_groups)
    number = next((k for k in (5, 3) if least >= GROUPS_PER_FOLD * k), 2)
    enough = "" if least >= GROUPS_PER_FOLD * number else ": fewer than two a fold, so some folds cannot score it"
    return number, f"`{rarest}` is in {least} groups{enough}" if rarest else f"{num_groups} groups"


def stop_fraction(facts: Fingerprint) -> Setting:
    """A tenth of the training part chooses the epoch where every class has groups to spare: ``val`` stays clean.

    A score of the very part that chose its epoch is too good (Cawley & Talbot 2010).
    """
    shown = [one.num_groups for one in facts.classes if one.num_groups] or [facts.num_groups]
    if min(shown) >= STOP_GROUPS:
        reason = (
            f"a tenth of the training part chooses the epoch, not `val`: every class is in {min(shown)} groups or more"
        )
        return Setting({"data.split.stop_fraction": STOP_FRACTION}, reason)
    reason = f"a class is in {min(shown)} training groups only, none to spare: `val` chooses the epoch, and flatters it"
    return Setting({"data.split.stop_fraction": 0.0}, reason)


def visible_difference(num_groups: int) -> str:
    """The smallest difference between two models that so many groups show in 80 % of studies (definitions, 7b)."""
    if num_groups < LEAST:
        return f"{num_groups} groups are too few for a verdict between two models; {LEAST} at least"
    critical = -float(stdtrit(num_groups - 1, 0.025))
    points = smallest_difference(10 / math.sqrt(num_groups), critical, num_groups)
    return (
        f"{num_groups} groups are scored: two models have to differ by {points:.1f} points to be told apart (80 % "
        "power), where their difference varies by 10 points from group to group"
    )
