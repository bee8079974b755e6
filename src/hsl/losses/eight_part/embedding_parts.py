"""The two parts of the eight-part loss that compare embeddings."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

FAR = -1e9  # exponent of a negative that is not there; finite, so that a picture without any has no NaN


def object_embedding(embedding: Tensor, positive: Tensor, batch_weight: float = 0.5) -> Tensor:
    """Pull the embeddings of object pixels to the prototype of their picture and to that of the batch.

    ``mean_i (1 - e_i . c_b) + batch_weight mean_i (1 - e_i . c)`` over the positives ``i`` of all pictures ``b``, with
    ``c_b`` the mean embedding of the positives of picture ``b`` and ``c`` the mean of the ``c_b``, both at length 1: in
    ``c`` a picture with many objects counts like one with few. The prototypes are constants to the gradient. For
    ``c_b`` that changes nothing (it minimises its term, so the gradient through it is 0); through ``c`` pictures would
    be pulled twice.

    Source of the idea: Snell et al. 2017, "Prototypical Networks for Few-shot Learning"; no prototypes repel here.

    Args:
        embedding: ``(B, D, h, w)`` of length 1 over D.
        positive: bool ``(B, h, w)``.
        batch_weight: at least 0.

    Returns:
        A scalar in [0, 2 + 2 batch_weight].

    Example:
        >>> embedding = torch.eye(2).view(2, 2, 1, 1)  # two pictures of one pixel: c = (1, 1) / sqrt 2
        >>> round(object_embedding(embedding, torch.ones(2, 1, 1).bool()).item(), 4)  # (1 - 1 / sqrt 2) / 2
        0.1464
    """
    chosen = positive.flatten(1).to(embedding.dtype)
    number = chosen.sum(1)
    sums = torch.bmm(embedding.flatten(2), chosen.unsqueeze(2)).squeeze(2)
    own = F.normalize(sums.detach(), dim=1)
    shared = F.normalize(own.sum(0), dim=0)
    to_own = number - (sums * own).sum(1)
    to_shared = number - sums @ shared
    return (to_own + batch_weight * to_shared).sum() / number.sum().clamp_min(1)


def pixel_contrastive(
    embedding: Tensor, positive: Tensor, negative: Tensor, temperature: float = 0.1, max_pixels: int = 512
) -> Tensor:
    """InfoNCE: embeddings of object pixels of a picture are alike, and unlike those of its pseudo-negatives.

    With ``s = e . e / temperature``, over the sampled positives ``i, j`` and negatives ``k`` of one picture::

        L_i = mean_{j != i} -log( exp(s_ij) / (exp(s_ij) + sum_k exp(s_ik)) )
            = mean_{j != i} softplus( logsumexp_k s_ik - s_ij )

    and the mean over the anchors ``i`` of all pictures that have two positives and a negative. The second form
    overflows nowhere. Source: Wang et al. 2021, "Exploring Cross-Image Pixel Contrast for Semantic Segmentation",
    equation 3; there the negatives come from a memory, here from the same picture.

    Args:
        embedding: ``(B, D, h, w)`` of length 1 over D.
        positive: bool ``(B, h, w)``.
        negative: bool ``(B, h, w)``.
        temperature: above 0.
        max_pixels: how many positives, and negatives, of a picture are drawn at most. Drawn without replacement
            from torch's default generator of the device.

    Returns:
        A scalar of at least 0.

    Example:
        >>> embedding = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).view(1, 2, 1, 3)
        >>> mask = torch.tensor([[[True, True, False]]])
        >>> round(pixel_contrastive(embedding, mask, ~mask, temperature=1.0).item(), 4)  # log(1 + exp(0 - 1))
        0.3133
    """
    anchor_index, anchors = sample_pixels(positive.flatten(1), max_pixels)
    negative_index, negatives = sample_pixels(negative.flatten(1), max_pixels)
    vectors = embedding.flatten(2)
    here, there = _take(vectors, anchor_index), _take(vectors, negative_index)
    sums = cast(Tensor, _PairLosses.apply(here, there, anchors, negatives, temperature))
    partners = anchors.sum(1, keepdim=True) - 1
    counted = anchors & (partners > 0) & negatives.any(1, keepdim=True)
    return torch.where(counted, sums / partners.clamp_min(1), 0).sum() / counted.sum().clamp_min(1)


def sample_pixels(chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Draw at most ``count`` of the chosen pixels of each picture, all alike, without replacement.

    Args:
        chosen: bool ``(B, N)``.
        count: at least 1.

    Returns:
        ``index``, int64 ``(B, min(count, N))``, and ``drawn``, bool of that shape: false where a picture has fewer
        pixels, and the index there means nothing.
    """
    keys = torch.rand(chosen.shape, device=chosen.device).masked_fill_(~chosen, -1.0)
    values, index = keys.topk(min(count, chosen.shape[1]), dim=1, sorted=False)
    return index, values >= 0


def _take(vectors: Tensor, index: Tensor) -> Tensor:
    """Columns ``(B, D, K)`` of ``(B, D, N)``."""
    return vectors.gather(2, index.unsqueeze(1).expand(-1, vectors.shape[1], -1))


class _PairLosses(torch.autograd.Function):
    """``sum_{j != i} softplus( logsumexp_k s_ik - s_ij )`` of each anchor ``i``, ``(B, P)``.

    The gradient of every pair is known from the values: a row and a column factor around two matrices that forward has.
    So backward reads these in matrix products only, which takes half the time of going through the steps again.
    """

    @staticmethod
    def forward(
        ctx: Any, here: Tensor, there: Tensor, anchors: Tensor, negatives: Tensor, temperature: float
    ) -> Tensor:
        scaled, present = here.transpose(1, 2) / temperature, anchors.unsqueeze(2).to(here.dtype)
        shares = torch.baddbmm(torch.where(negatives, 0.0, FAR).to(here.dtype).unsqueeze(1), scaled, there)
        largest = shares.amax(2, keepdim=True)
        mass = shares.sub_(largest).exp_().sum(2, keepdim=True)
        gaps = torch.baddbmm(largest + mass.log(), scaled, here, alpha=-1)
        gaps.diagonal(dim1=1, dim2=2).fill_(-torch.inf)  # an anchor is no pair with itself: softplus and slope 0
        sums = torch.bmm(F.softplus(gaps), present)
        ctx.save_for_backward(here, there, scaled, present, shares, mass, gaps.sigmoid_())
        ctx.temperature = temperature
        return sums.squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        here, there, scaled, present, shares, mass, slopes = ctx.saved_tensors
        near = gradients[0].unsqueeze(2)
        far = near * torch.bmm(slopes, present) / mass
        to_anchors = far * torch.bmm(shares, there.transpose(1, 2))
        to_anchors -= near * torch.bmm(slopes, present * here.transpose(1, 2))
        to_partners = torch.bmm((near * scaled).transpose(1, 2), slopes) * present.transpose(1, 2)
        to_negatives = torch.bmm((far * scaled).transpose(1, 2), shares)
        return to_anchors.transpose(1, 2) / ctx.temperature - to_partners, to_negatives, None, None, None
