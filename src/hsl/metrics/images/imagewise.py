"""Every score of an image head in one metric: probabilities and labels are kept, and scored at the end."""

import torch
from torch import Tensor
from torchmetrics import Metric

from hsl.metrics.finite import check_on_host
from hsl.metrics.images.image_scores import image_scores


class ImageScores(Metric):
    """Accuracy, F1, areas under the curves and their like, over all pictures with a known label.

    Keeps the probabilities of all pictures, a few numbers each. See `image_scores` for the definitions.

    Args:
        num_classes: K.
        several: whether a picture may show several classes: sigmoid and a threshold of 0.5 for each class, else softmax
            and the largest.
    """

    full_state_update = False
    probabilities: list[Tensor]
    targets: list[Tensor]

    def __init__(self, num_classes: int, several: bool) -> None:
        super().__init__()
        self.num_classes, self.several = num_classes, several
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take logits ``(B, K)`` and labels ``int64 (B,)``, -1 unknown, or ``float32 (B, K)``, NaN unknown.

        A logit that is NaN or infinite raises ``NonFiniteLogitsError``; on an accelerator `compute` does.
        """
        check_on_host(logits)
        self.probabilities.append(probabilities_of(logits, self.several))
        self.targets.append(labels)

    def compute(self) -> dict[str, Tensor]:
        """The scalars of `image_scores`."""
        probabilities, targets = (
            (states if isinstance(states, Tensor) else torch.cat(states)).cpu().numpy()
            for states in (self.probabilities, self.targets)
        )
        found = image_scores(probabilities, targets)
        return {name: torch.tensor(value) for name, value in found.items() if isinstance(value, float)}


def probabilities_of(logits: Tensor, several: bool) -> Tensor:
    """Softmax, or a sigmoid for each class where several may be present, in float32; NaN for an infinite logit."""
    values = logits.float()
    probabilities = values.sigmoid() if several else values.softmax(dim=1)
    return probabilities.masked_fill(~values.isfinite(), torch.nan)
