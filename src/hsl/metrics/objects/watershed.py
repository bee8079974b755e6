"""Instances from a prediction: the object mask, cut by a watershed on the predicted distance map."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from hsl.metrics.objects.segments import components

if TYPE_CHECKING:
    from torch import Tensor

Map = npt.NDArray[np.floating]


def split_objects(
    probabilities: Map, distances: Map, threshold: float = 0.5, marker_height: float = 0.1, smoothing: float = 1.0
) -> npt.NDArray[np.int32]:
    """Instance ids by a marker-controlled watershed.

    1. The mask is ``probabilities > threshold``.
    2. The distances are 0 outside the mask and are smoothed by a Gaussian.
    3. The markers are their maxima of a height of ``marker_height`` or more: from one to the next higher, the way falls
       at least so far. In a normalised distance map every object rises to 1 and falls to its border, so touching
       objects have two. (Regions above a threshold make a marker of every speck of noise near it.)
    4. A component of the mask without a marker is one object: nothing that was predicted is lost.
    5. The basins of minus the smoothed distances grow from the markers and fill the mask.

    Source: Vincent & Soille 1991, "Watersheds in Digital Spaces"; Soille 2003, "Morphological Image Analysis"
    (h-maxima); on a predicted distance map as in Naylor et al. 2019.

    Args:
        probabilities: ``(H, W)`` of the object class.
        distances: ``(H, W)``, predicted; normalised per object, see ``hsl.data.labels.object_labels``. Values outside
            [0, 1] are allowed.
        threshold: in [0, 1).
        marker_height: in (0, 1). Lower cuts more.
        smoothing: standard deviation of the Gaussian, in pixels; 0 turns it off.

    Returns:
        ``int32 (H, W)``, 0 outside the mask, ids from 1 without a gap.

    Raises:
        ValueError: the sizes differ, or a value is NaN or infinite.

    Example:
        >>> probabilities, distances = np.ones((1, 5)), np.array([[0.5, 1.0, 0.2, 0.9, 0.3]])
        >>> split_objects(probabilities, distances, smoothing=0).tolist()
        [[1, 1, 1, 2, 2]]
    """
    if probabilities.ndim != 2 or probabilities.shape != distances.shape:
        raise ValueError(
            "`probabilities` and `distances` should be maps (H, W) of one size. Found "
            f"`probabilities.shape = {probabilities.shape}` and `distances.shape = {distances.shape}`."
        )
    if not (np.isfinite(probabilities).all() and np.isfinite(distances).all()):
        raise ValueError("`probabilities` and `distances` should be finite. Found NaN or infinite values.")
    mask = probabilities > threshold
    smooth = np.clip(np.where(mask, distances, 0), 0, 1)
    smooth = ndimage.gaussian_filter(smooth, smoothing) if smoothing else smooth
    markers = components((mask & (cast(Any, h_maxima)(smooth, marker_height) > 0)).astype(np.uint8), [1])
    whole = components(mask.astype(np.uint8), [1])
    marked = np.zeros(len(whole.classes), dtype=np.bool_)
    marked[whole.ids[markers.ids > 0]] = True
    lone = np.flatnonzero(~marked[1:]) + 1
    number = np.zeros(len(whole.classes), dtype=np.int32)
    number[lone] = len(markers.classes) + np.arange(lone.size)
    seeds = np.where(markers.ids > 0, markers.ids, number[whole.ids])
    flood = cast(Any, watershed)  # scikit-image types some of its functions
    filled: npt.NDArray[np.int32] = flood(-smooth, seeds, mask=mask, connectivity=2).astype(np.int32, copy=False)
    return filled


def objects_of(logits: "Tensor", distance: "Tensor") -> npt.NDArray[np.int32]:
    """Ids ``(H, W)`` of the objects of one image: all that is not class 0, cut apart by `split_objects`.

    Args:
        logits: ``(C, H, W)`` of the dense head.
        distance: ``(1, H, W)``, the predicted distance map.
    """
    return split_objects(1 - logits.softmax(dim=0)[0].cpu().numpy(), distance[0].cpu().numpy())
