"""Lovasz-Softmax by segmentation_models_pytorch."""

from segmentation_models_pytorch.losses import LovaszLoss
from torch import Tensor, nn

from hsl.batch import IGNORE_INDEX
from hsl.losses import functional


class Lovasz(nn.Module):
    """Lovasz-Softmax: a convex surrogate of the mean IoU over the classes present in the batch.

    Source: Berman et al. 2018, "The Lovasz-Softmax loss", section 3. It has no class weights. smp
    returns an empty tensor for a batch without a valid pixel; here that is 0. smp computes in float32 only.
    """

    takes_class_weights = False

    def __init__(self) -> None:
        super().__init__()
        self.surrogate = LovaszLoss("multiclass", per_image=False, ignore_index=IGNORE_INDEX)

    def forward(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        functional.check_shapes(logits, target)
        if class_weights is not None:
            raise ValueError("`class_weights` should be None: Lovasz-Softmax takes no class weights.")
        loss: Tensor = self.surrogate(logits.float(), target)
        return loss.sum()
