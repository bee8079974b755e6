"""The rules about time: how many epochs, how many validations, and whether the scores at the end are also augmented."""

from dataclasses import dataclass, replace

from hsl.verbs.plan.fingerprint import Fingerprint
from hsl.verbs.plan.views import MEGA, Budget, Cost, Setting, View, num_passes

TRAINING_SHARE = 0.8
LEAST_TRAINING = 0.2
MOST_EPOCHS = 200
MOST_VALIDATIONS = 20
NEVER_SCORED = 0.1
FORWARD_SHARE = 1 / 3
"""Of a training step: backward takes about twice as long as forward (Kaplan 2020, arXiv:2001.08361, section 2.1)."""
OVERLAP = 1.5**2
"""Windows that see a pixel on average, at a stride of two thirds of a window."""
AUGMENTED_PASSES = 4
"""Over the scored pictures, of test-time augmentation: as they are, mirrored twice, turned."""


@dataclass(frozen=True)
class Length:
    """What a fold spends its time on.

    Attributes:
        budget: What is left for training.
        epochs: Of it, a whole number of validations apart.
        every: So many epochs after each other is a validation, the last one after the last.
        validating: Seconds of one of them.
        scoring: Seconds of the scores at the end.
        augmented: Whether the pictures are also scored with test-time augmentation.
    """

    budget: Budget
    epochs: int
    every: int
    validating: float
    scoring: float
    augmented: bool

    @property
    def validations(self) -> int:
        """How many there are while it trains."""
        return self.epochs // self.every

    @property
    def beside(self) -> float:
        """Seconds that a fold takes beside its training."""
        return self.validations * self.validating + self.scoring


def choose_length(facts: Fingerprint, view: View, cost: Cost, whole: Budget, stop_fraction: float) -> Length:
    """Share the time of a fold between training, validations, and the scores at the end.

    Four fifths train, as many epochs as fit, at most 200. The rest is for the scores and as many validations as fit, at
    most 20. Where the scores with test-time augmentation do not fit it, they are left out; where the plain ones and a
    single validation do not, training gives up time, down to a fifth.

    Args:
        facts: Of the training part.
        view: What the network sees.
        cost: Of the network.
        whole: Seconds of the fold in all, and the memory.
        stop_fraction: Of the training part, that chooses the epoch; 0: the validation part does.
    """
    pictures = facts.num_images * stop_fraction if stop_fraction else facts.num_val
    validating = _pass_seconds(facts, view, cost, pictures)
    plain = _pass_seconds(facts, view, cost, facts.num_val + facts.num_test + facts.num_images * stop_fraction)
    augmented = (1 + AUGMENTED_PASSES) * plain + validating <= (1 - TRAINING_SHARE) * whole.seconds
    scoring = (1 + AUGMENTED_PASSES) * plain if augmented else plain
    left = whole.seconds - scoring - validating
    budget = replace(whole, seconds=max(LEAST_TRAINING * whole.seconds, min(TRAINING_SHARE * whole.seconds, left)))
    passes = num_passes(facts, view, cost, budget)
    epochs = max(1, min(MOST_EPOCHS, int(passes)))
    room = whole.seconds - scoring - budget.seconds * epochs / passes
    validations = min(MOST_VALIDATIONS, epochs, int(room / validating) if validating else MOST_VALIDATIONS)
    every = _apart(epochs, max(1, validations))
    return Length(budget, epochs - epochs % every, every, validating, scoring, augmented)


def _apart(epochs: int, most: int) -> int:
    """Epochs between two validations, of which there are ``most``: fewer where a tenth would train past the last."""
    distances = (-(-epochs // number) for number in range(most, 0, -1))
    return next(every for every in distances if epochs % every <= NEVER_SCORED * epochs)


def length_settings(facts: Fingerprint, view: View, cost: Cost, length: Length) -> list[Setting]:
    """Epochs, validations, test-time augmentation: no early stop, for the learning rate falls to the last epoch."""
    each = facts.num_images * cost.seconds * view.megapixels
    what = "a patch of every picture" if view.patches else "every picture once"
    short = "" if length.epochs * each <= 1.01 * length.budget.seconds else "; more than this plan has"
    epochs = Setting(
        {"trainer.max_epochs": length.epochs, "callbacks.early_stopping": None},
        f"an epoch is {what}, about {each:.0f} s{short}; the learning rate falls to the last one",
    )
    every = Setting(
        {"trainer.check_val_every_n_epoch": length.every},
        f"a validation takes about {length.validating:.0f} s",
    )
    if length.augmented:
        return [epochs, every]
    why = (
        "scores with test-time augmentation do not fit the time; `hsl evaluate run=RUN inference=tta` makes them later"
    )
    return [epochs, every, Setting({"callbacks.tta_evaluation": None}, why)]


def _pass_seconds(facts: Fingerprint, view: View, cost: Cost, num_images: float) -> float:
    """Of predicting so many pictures, whole or in overlapping windows of the source."""
    source = facts.heights[1] * facts.widths[1] / MEGA
    seen = max(view.megapixels, OVERLAP * source) if view.patches else view.megapixels
    return num_images * seen * cost.seconds * FORWARD_SHARE
