"""Cross-entropy by torch."""

from torch import Tensor, nn

from hsl.config.ranges import FractionBelowOne
from hsl.errors import ConfigError
from hsl.losses import functional


class CrossEntropy(nn.Module):
    """Cross-entropy, mean over valid pixels weighted by class: see ``functional.cross_entropy``.

    Args:
        label_smoothing: in [0, 1); 0 is off.

    Raises:
        ConfigError: ``label_smoothing`` is out of range.
    """

    takes_class_weights = True

    def __init__(self, label_smoothing: FractionBelowOne = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"`label_smoothing` should be in [0, 1). Found `label_smoothing = {label_smoothing}`.")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target, class_weights)
        return functional.cross_entropy(logits, target, class_weights, self.label_smoothing)
