"""What the numbers of a pseudo-label come to: its row of the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsl.data.labels.label_table import LabelRow
from hsl.errors import ConfigError
from hsl.pseudo_labels.class_rules import ClassRule, parse_rule
from hsl.pseudo_labels.quality import mask_quality, tier_of

EVERY = "all"
"""The name under which a rule for every picture stands among those for a class."""


@dataclass(frozen=True)
class Judgement:
    """Rules and thresholds of one labelling.

    Attributes:
        rules: by image class, or ``all``; of a picture both have to hold.
        tiers: least quality of the tiers A and B.
    """

    rules: Mapping[str, ClassRule]
    tiers: Mapping[str, float]

    @classmethod
    def of(
        cls, rules: Mapping[str, str], tiers: Mapping[str, float], classes: Sequence[str], labels: Sequence[str]
    ) -> "Judgement":
        """Read the rules.

        Args:
            rules: image class, or ``all``, to the text of its rule; see `hsl.pseudo_labels.class_rules`.
            tiers: least quality of the tiers A and B.
            classes: names of the dense classes.
            labels: names of the image classes.

        Raises:
            ConfigError: a rule cannot be read or is for an unknown class, or the thresholds are out of order.
        """
        if unknown := sorted(set(rules) - {EVERY, *labels}):
            raise ConfigError(
                f"`rules` should be for image classes of the data, {sorted(labels)}, or `{EVERY}`. Found {unknown}. "
                "Correct the names."
            )
        if set(tiers) != {"A", "B"} or not 0 <= tiers["B"] <= tiers["A"] <= 1:
            raise ConfigError(f"`tiers` should hold 0 <= B <= A <= 1. Found `tiers = {dict(tiers)}`. Correct them.")
        return cls({label: parse_rule(text, classes) for label, text in rules.items()}, dict(tiers))

    def row(self, name: str, label: str, mask: NDArray[np.uint8], sources: Sequence[str], image: str) -> LabelRow:
        """Judge one mask.

        Args:
            name: id of the picture.
            label: its image class.
            mask: class indices ``(H, W)``, 255 = uncertain.
            sources: those that had a say.
            image: where the picture lies.
        """
        quality = mask_quality(mask)
        passed = all(self.rules[key].holds(mask) for key in (EVERY, label) if key in self.rules)
        return LabelRow(
            id=name,
            label=label,
            tier=tier_of(quality.score, passed, self.tiers),
            quality=quality.score,
            uncertain=quality.uncertain,
            foreground=quality.foreground,
            rule_passed=passed,
            sources=" ".join(sources),
            image=image,
        )
